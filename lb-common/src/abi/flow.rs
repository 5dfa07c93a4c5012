//! The flow table. A flow has two entries, one per direction, each under the 5-tuple as the packet of that direction carries
//! it, so that a packet of an established flow finds all it needs with one lookup.

use super::{Addr, BackendId, PortBe, Proto};
use crate::flow_table::LANES;

/// A 5-tuple as a packet carries it. 16 bytes for IPv4, 40 for IPv6; `_pad` is always zero.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: PortBe,
    /// Destination port.
    pub dport: PortBe,
    /// Protocol.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}

impl<A: Addr> FlowKey<A> {
    /// A key.
    #[inline(always)]
    pub const fn new(src: A, dst: A, sport: PortBe, dport: PortBe, proto: Proto) -> Self {
        Self { src, dst, sport, dport, proto, _pad: [0; 3] }
    }

    /// The 5-tuple of packets that go the other way.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..*self }
    }
    /// The key of the other direction's entry, given this entry, which isn't [full](Direction::is_full).
    ///
    /// Forward, client → VIP: the reply comes from the backend (`flow.nat_*`) to the client. Reply, backend → client: the
    /// forward packet goes from the client to the VIP (`flow.nat_*`).
    #[inline(always)]
    pub fn twin(&self, flow: &Flow<A>) -> Self {
        if flow.direction.is_forward() {
            Self::new(flow.nat_addr, self.src, flow.nat_port, self.sport, self.proto)
        } else {
            Self::new(self.dst, flow.nat_addr, self.dport, flow.nat_port, self.proto)
        }
    }
}

/// Which way an entry's packets go.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Direction(pub u8);

impl Direction {
    /// Client to backend; the entry that carries the state and is counted.
    pub const FORWARD: Self = Self(0);
    /// Backend to client.
    pub const REPLY: Self = Self(1);
    /// The same, and a packet without SYN, FIN and RST must visit the forward entry all the same: the connection is closing, or provisional.
    pub const REPLY_TRACKED: Self = Self(3);

    /// A bit: source NAT. Both addresses and ports are replaced, and where the other entry lies is in the place of the address to put in.
    const FULL: u8 = 4;
    /// A bit: replies go past the node. The flow has this entry only, and its packets stay as they are.
    const DIRECT: u8 = 8;
    /// A bit besides: they are put in other packets.
    const TUNNEL: u8 = 16;
    /// A bit besides `FULL`: the address put in the client's place is its own, and only its port is another, since the backend knows a flow of the
    /// client's by that port already. The stack carries such packets on, as it does those of which only the destination is replaced.
    const PORTED: u8 = 32;
    /// Two bits besides `FULL`: how many ports of ours were tried before, by which the backend knew a connection.
    const TRIED_SHIFT: u8 = 6;
    /// Ports that are tried so, at most.
    pub const TRIED_MAX: u8 = 3;
    /// Client to backend?
    #[inline(always)]
    pub const fn is_forward(self) -> bool {
        self.0 & Self::REPLY.0 == 0
    }
    /// Backend to client, and no address of ours in the packet: it can be translated wherever it is met on its way.
    #[inline(always)]
    pub const fn is_plain_reply(self) -> bool {
        self.0 & Self::REPLY.0 != 0 && (self.0 & Self::FULL == 0 || self.0 & Self::PORTED != 0)
    }
    /// Must a packet without SYN, FIN and RST visit the other entry?
    #[inline(always)]
    pub const fn is_tracked(self) -> bool {
        self.0 & Self::REPLY_TRACKED.0 == Self::REPLY_TRACKED.0
    }
    /// The same, and it must.
    #[inline(always)]
    pub const fn tracked(self) -> Self {
        Self(self.0 | Self::REPLY_TRACKED.0)
    }
    /// The same, and it need not.
    #[inline(always)]
    pub const fn untracked(self) -> Self {
        Self(self.0 & !(Self::REPLY_TRACKED.0 ^ Self::REPLY.0))
    }
    /// The same; it must if `tracked`.
    #[inline(always)]
    pub const fn tracked_if(self, tracked: bool) -> Self {
        if tracked { self.tracked() } else { self }
    }
    /// Are both addresses replaced?
    #[inline(always)]
    pub const fn is_full(self) -> bool {
        self.0 & Self::FULL != 0
    }
    /// Are both addresses replaced, the client's by itself with another port?
    #[inline(always)]
    pub const fn is_ported(self) -> bool {
        self.0 & Self::PORTED != 0
    }
    /// The same, and they are.
    #[inline(always)]
    pub const fn ported(self) -> Self {
        Self(self.0 | Self::FULL | Self::PORTED)
    }
    /// How many ports of ours were tried before, by which the backend knew a connection; at most [`TRIED_MAX`](Self::TRIED_MAX).
    #[inline(always)]
    pub const fn tried(self) -> u8 {
        self.0 >> Self::TRIED_SHIFT
    }
    /// With another port, after so many that were tried: of ours, or with the client's address.
    #[inline(always)]
    pub const fn with_another_port(self, tried: u8) -> Self {
        if self.is_full() { Self(self.0 | tried << Self::TRIED_SHIFT) } else { self.ported() }
    }
    /// Do replies go past the node?
    #[inline(always)]
    pub const fn is_direct(self) -> bool {
        self.0 & Self::DIRECT != 0
    }
    /// Are packets put in other packets?
    #[inline(always)]
    pub const fn is_tunnel(self) -> bool {
        self.0 & Self::TUNNEL != 0
    }
    /// Of the reply entry of a flow whose forward entry has this one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self(Self::REPLY.0 | self.0 & (Self::FULL | Self::PORTED))
    }
    /// Is something else done with packets than to replace one side's address?
    #[inline(always)]
    pub const fn is_special(self) -> bool {
        self.0 & (Self::FULL | Self::DIRECT) != 0
    }
    /// The entry of a flow whose replies go past the node.
    #[inline(always)]
    pub const fn direct(tunnel: bool) -> Self {
        if tunnel { Self(Self::DIRECT | Self::TUNNEL) } else { Self(Self::DIRECT) }
    }
    /// The same; both are replaced if `full`.
    #[inline(always)]
    pub const fn full_if(self, full: bool) -> Self {
        if full { Self(self.0 | Self::FULL) } else { self }
    }
}

/// Ticks in a unit of [`Flow::created`], as a shift: 64 ms at 250 Hz. 32 bits of that are 8 years (2 at 1000 Hz).
pub const CREATED_SHIFT: u32 = 4;

/// Ticks in a unit of [`Flow::asked_at`], as a shift: 256 ms at 250 Hz. 16 bits of that are four hours (70 minutes at 1000 Hz).
pub const ASKED_SHIFT: u32 = 6;

/// One direction of one pinned flow, in a lane of a bucket (see [`flow_table`](crate::flow_table)). 64 bytes for IPv4, one cache
/// line; 104 for IPv6.
///
/// Made by the datapath, both entries at once. `packets`, `bytes` and `last_seen` are written by packets of this direction only;
/// `state` by compare-and-swap by whoever moves the connection on (packets of either direction, the sweep program). Removed
/// only by the one who moved the forward entry's state to `GONE`; see [`flow_state`](crate::flow_state). Userspace reads
/// entries and never writes them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow<A: Addr> {
    /// Forward: the connection's [`Word`](crate::flow_state::Word). Reply: the same tag, phase 0. 0: nothing to be read here
    /// (yet, or any more), whatever the other fields say.
    pub state: u64,
    /// Its key: source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: PortBe,
    /// Destination port.
    pub dport: PortBe,
    /// Protocol.
    pub proto: Proto,
    /// [`Direction`].
    pub direction: Direction,
    /// Forward, TCP: when the client last sent data, in jiffies shifted right by [`ASKED_SHIFT`]. Reply: low bits of jiffies when the flow
    /// was pinned, for what [`Self::created`] leaves out.
    pub asked_at: u16,
    /// What to put in place: forward, the backend as destination; reply, the VIP as source. [Direct](Direction::is_direct): where the packet
    /// is sent. [Full](Direction::is_full): where the other
    /// entry lies, as [`Addr::from_place`] has it.
    pub nat_addr: A,
    /// The port that goes with it.
    pub nat_port: PortBe,
    /// Bits 32..48 of the packets.
    pub packets_high: u16,
    /// Packets of this direction, low half. A GSO packet counts as the segments it stands for.
    pub packets_low: u32,
    /// TCP. Forward: the acknowledgement number with which the client last sent data. Reply: the sequence number after the last data of
    /// the backend. 0: there was none. See [`unanswered`](crate::flow_state::unanswered).
    pub mark: u32,
    /// Zero.
    pub _fill: A::Fill,
    /// Bytes of this direction, IP header included.
    pub bytes: u64,
    /// Low half of jiffies at the last packet of this direction. 49 days at 1000 Hz before it wraps; longest idle timeout is
    /// 24 days, so differences are unambiguous.
    pub last_seen: u32,
    /// When the flow was pinned, in jiffies shifted right by [`CREATED_SHIFT`].
    pub created: u32,
    /// The backend.
    pub backend: BackendId,
    /// Sequence number after the FIN of this direction's sender if the state says that it was seen, otherwise after its SYN; 0: nobody
    /// knows. See [`window`](crate::window).
    pub fin: u32,
    /// For the tests of upgrades: what a later version may keep of a flow.
    #[cfg(feature = "next")]
    pub next: u64,
}

impl<A: Addr> Flow<A> {
    /// The key it lies under.
    #[inline(always)]
    pub const fn key(&self) -> FlowKey<A> {
        FlowKey::new(self.src, self.dst, self.sport, self.dport, self.proto)
    }

    /// The key it lies under, where it is: for those who have no room for a copy. What fills it up is other fields of the entry.
    #[inline(always)]
    pub const fn key_in_place(flow: *const Self) -> *const FlowKey<A> {
        // An offset that is within the entry.
        flow.cast::<u8>().wrapping_add(core::mem::offset_of!(Self, src)).cast()
    }

    /// The 5-tuple with which its packets leave; not of a [full](Direction::is_full) entry, which doesn't know.
    #[inline(always)]
    pub fn translated(&self) -> FlowKey<A> {
        if self.direction.is_forward() {
            FlowKey::new(self.src, self.nat_addr, self.sport, self.nat_port, self.proto)
        } else {
            FlowKey::new(self.nat_addr, self.dst, self.nat_port, self.dport, self.proto)
        }
    }
    /// Packets of this direction.
    pub const fn packets(&self) -> u64 {
        (self.packets_high as u64) << 32 | self.packets_low as u64
    }
}

/// An entry's key lies in it as a [`FlowKey`] does by itself, but for what fills that up: see [`Flow::key_in_place`].
const _: () = {
    use core::mem::offset_of;
    const fn same<A: Addr>() {
        let start = offset_of!(Flow<A>, src);
        assert!(offset_of!(Flow<A>, dst) - start == offset_of!(FlowKey<A>, dst));
        assert!(offset_of!(Flow<A>, sport) - start == offset_of!(FlowKey<A>, sport));
        assert!(offset_of!(Flow<A>, dport) - start == offset_of!(FlowKey<A>, dport));
        assert!(offset_of!(Flow<A>, proto) - start == offset_of!(FlowKey<A>, proto));
    }
    same::<super::Addr4>();
    same::<super::Addr6>();
};

/// As many entries as a bucket has lanes: 448 bytes for IPv4, 728 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket<A: Addr> {
    /// The entries. Which are in use says the bucket's head.
    pub lanes: [Flow<A>; LANES],
}
