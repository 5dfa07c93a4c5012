//! Bytes → what the packet is. No maps. The fate of everything odd is named here.

use lb_common::{
    abi::{Addr4, Addr6, FlowKey, IpVersion, PortBe, Proto, V4, V6},
    flow_state::{Segment, flags},
};

use crate::{
    conntrack::Ending,
    packet::{Packet, get},
};

const ETH_LEN: usize = 14;
/// Kind of a frame that has IPv4 in it, as it lies there.
pub const ETH_P_IP: u16 = 0x0800u16.to_be();
/// The same with IPv6.
pub const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
const ETH_P_8021Q: u16 = 0x8100u16.to_be();
const ETH_P_8021AD: u16 = 0x88a8u16.to_be();

/// Tags looked through: one service tag, one customer tag.
const MAX_TAGS: usize = 2;
/// IPv6 extension headers looked through. RFC 8504, section 5.3 lets a node limit them; 8 is its example.
const MAX_EXTENSIONS: usize = 8;
/// Bytes of extension headers looked through.
const MAX_EXTENSION_BYTES: usize = 512;

/// Which IP header follows the layer-2 header, and where.
pub enum Layer3 {
    /// IPv4 at this offset.
    V4(usize),
    /// IPv6 at this offset.
    V6(usize),
    /// Something else.
    Other,
}

/// Ethernet, with up to two VLAN tags in the frame.
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &P) -> Layer3 {
    let Some(p) = packet.bytes(0, ETH_LEN) else { return Layer3::Other };
    // SAFETY: 14 bytes at `p` were just bounds-checked.
    let mut kind: u16 = unsafe { get(p, 12) };
    let mut at = ETH_LEN;
    for _ in 0..MAX_TAGS {
        if kind != ETH_P_8021Q && kind != ETH_P_8021AD {
            break;
        }
        let Some(p) = packet.bytes(at, 4) else { return Layer3::Other };
        // SAFETY: 4 bytes at `p` were just bounds-checked.
        kind = unsafe { get(p, 2) };
        at += 4;
    }
    match kind {
        ETH_P_IP => Layer3::V4(at),
        ETH_P_IPV6 => Layer3::V6(at),
        _ => Layer3::Other,
    }
}

/// The backend knows another connection by the port: the flow gets another one from the start. Besides, as the lowest bits: how many ports of ours
/// were tried.
pub const ANOTHER_PORT: u32 = 1 << 16;

/// Added in [`Parsed::again`] when room was made: in the table, on a backend, or for a binding.
pub const ROOM: u32 = 1 << 24;

/// What a packet is. What isn't known (yet) is as it was before.
#[derive(Default)]
#[repr(C)]
pub struct Parsed<A> {
    /// Its 5-tuple.
    pub key: FlowKey<A>,
    l3: u16,
    l4: u16,
    /// Fragments: the identification, as it lies in the packet.
    pub fragment: u32,
    /// Bytes from the IP header to the end of the packet, without layer-2 padding.
    pub bytes: u32,
    /// 1: it is a first fragment, whose checksum is over more than it holds.
    pub first: u32,
    /// TCP: what it says. UDP: nothing.
    pub segment: Segment,
    /// What the step of a flow is to tell of.
    pub ending: Ending,
    /// Room for another 5-tuple, which steps work with.
    pub spare: FlowKey<A>,
    /// Of the packet that an ICMP error quotes, reversed.
    pub quoted: FlowKey<A>,
    /// For further steps: where it was met, a [`Hook`](crate::packet::Hook).
    pub hook: u32,
    /// For the step that opens a flow: how often it was at it already; or [`ANOTHER_PORT`] and what goes with it. Above [`ROOM`], how often
    /// room was made for it.
    pub again: u32,
    /// For the steps of a flow: where its entry lies.
    pub place: u32,
    /// For the step that answers one that is too big: how large it may be.
    pub mtu: u32,
    /// For the step that answers: why it is refused, a [`Reason`](lb_common::abi::Reason). For the one of what has no ports: which [`ParseError`].
    pub because: u32,
}

impl<A> Parsed<A> {
    /// [`again`](Self::again) without what was done for room.
    #[inline(always)]
    pub const fn tried(&self) -> u32 {
        self.again & (ROOM - 1)
    }
    /// Offset of the IP header. The masks, here and below, cover all that parsing lets through; they tell the verifier so again
    /// where it has lost sight of it.
    #[inline(always)]
    pub const fn l3(&self) -> usize {
        self.l3 as usize & 0x1f
    }
    /// Offset of the TCP or UDP header; 0: it is in another fragment.
    #[inline(always)]
    pub const fn l4(&self) -> usize {
        self.l4 as usize & 0x3ff
    }
    /// Bytes from the IP header to the payload: what every segment of a GSO packet has.
    #[inline(always)]
    pub const fn headers(&self) -> usize {
        if self.key.proto.0 == Proto::TCP.0 {
            self.bytes.wrapping_sub(self.segment.len) as usize
        } else {
            self.l4().wrapping_sub(self.l3()) + 8
        }
    }
    /// Bytes from the TCP or UDP header to the end of the packet.
    #[inline(always)]
    pub const fn room(&self) -> usize {
        self.bytes as usize - (self.l4() - self.l3())
    }

    /// A fragment that isn't the first.
    #[inline(always)]
    fn later(&mut self, l3: usize, bytes: usize) -> ParseError {
        (self.l3, self.l4, self.bytes) = (l3 as u16, 0, bytes as u32);
        self.segment = Segment { flags: 0, seq: 0, ack: 0, len: 0 };
        ParseError::Fragment
    }
}

// Ethernet and tags below 32; that, the longest fixed header and all extensions below 1,024.
const _: () =
    assert!(ETH_LEN + 4 * MAX_TAGS < 0x20 && ETH_LEN + 4 * MAX_TAGS + 40 + MAX_EXTENSION_BYTES < 0x3ff);

/// ParseError a packet has no 5-tuple to go by.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ParseError {
    /// Not TCP, UDP or ICMP over IP. Passes.
    Foreign,
    /// ICMP of the IP version.
    Icmp,
    /// Broken, impossible or cut short. Dropped if it is addressed to a VIP, else passes.
    Malformed,
    /// A fragment that isn't the first.
    Fragment,
    /// A first fragment, which has ports.
    FirstFragment,
}

impl ParseError {
    /// From what it is as a number.
    #[inline(always)]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Icmp,
            2 => Self::Malformed,
            3 => Self::Fragment,
            4 => Self::FirstFragment,
            _ => Self::Foreign,
        }
    }
}

/// What parsing needs to know of an IP version.
pub trait Header: IpVersion {
    /// Protocol of the ICMP that belongs to this version.
    const ICMP: Proto;
    /// Parses the IP header at `l3` and what follows into `parsed`. On `Err` as much of the 5-tuple is there as is known:
    /// `Foreign`, nothing; `Icmp`, all but the ports; `Malformed`, the destination;
    /// `Fragment`, the addresses and the identification, IPv4's protocol; `FirstFragment`, all.
    fn parse<P: Packet>(packet: &P, l3: usize, parsed: &mut Parsed<Self::Addr>) -> Result<(), ParseError>;
}

impl Header for V4 {
    const ICMP: Proto = Proto(1);
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize, parsed: &mut Parsed<Addr4>) -> Result<(), ParseError> {
        let Some(p) = packet.bytes(l3, 20) else { return Err(ParseError::Foreign) };
        // SAFETY: 20 bytes at `p` were just bounds-checked.
        let (first, total, fragment) = unsafe {
            parsed.key.src = Addr4(get(p, 12));
            parsed.key.dst = Addr4(get(p, 16));
            parsed.key.proto = Proto(get(p, 9));
            (get::<u8>(p, 0), u16::from_be(get(p, 2)) as usize, u16::from_be(get(p, 6)))
        };
        let header = (first & 0xf) as usize * 4;
        let total = if P::BIG && total == 0 { packet.frame_len() - l3 } else { total };
        if first >> 4 != 4 || header < 20 || total < header || !packet.holds(l3 + total) {
            return Err(ParseError::Malformed);
        }
        if fragment & 0x3fff != 0 {
            // SAFETY: as above.
            parsed.fragment = unsafe { get::<u16>(p, 4) } as u32;
        }
        if fragment & 0x1fff != 0 {
            return Err(parsed.later(l3, total));
        }
        let more = fragment & 0x2000 != 0;
        layer4::<V4, P>(packet, l3, l3 + header, total, more, parsed)?;
        if more { Err(ParseError::FirstFragment) } else { Ok(()) }
    }
}

impl Header for V6 {
    const ICMP: Proto = Proto(58);
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, l3: usize, parsed: &mut Parsed<Addr6>) -> Result<(), ParseError> {
        let Some(p) = packet.bytes(l3, 40) else { return Err(ParseError::Foreign) };
        // SAFETY: 40 bytes at `p` were just bounds-checked.
        let (first, payload, mut next) = unsafe {
            parsed.key.src = Addr6([get(p, 8), get(p, 12), get(p, 16), get(p, 20)]);
            parsed.key.dst = Addr6([get(p, 24), get(p, 28), get(p, 32), get(p, 36)]);
            (get::<u8>(p, 0), u16::from_be(get(p, 4)) as usize, get::<u8>(p, 6))
        };
        let total = if P::BIG && payload == 0 { packet.frame_len() - l3 } else { payload + 40 };
        if first >> 4 != 6 || !packet.holds(l3 + total) {
            return Err(ParseError::Malformed);
        }
        let (mut extra, mut more) = (0, false);
        if next != Proto::TCP.0 && next != Proto::UDP.0 {
            let found = extensions(packet, l3 + 40, next);
            parsed.fragment = (found >> 32) as u32;
            let found = found as u32;
            if found >= BROKEN {
                return Err(if found == BROKEN { ParseError::Malformed } else { parsed.later(l3, total) });
            }
            next = found as u8;
            more = found & MORE != 0;
            extra = (found >> 16) as usize & 0x3ff;
            if 40 + extra > total {
                return Err(ParseError::Malformed);
            }
        }
        parsed.key.proto = Proto(next);
        layer4::<V6, P>(packet, l3, l3 + 40 + extra, total, more, parsed)?;
        if more { Err(ParseError::FirstFragment) } else { Ok(()) }
    }
}

/// In what [`extensions`] returns: a first fragment.
const MORE: u32 = 1 << 8;
/// What [`extensions`] returns for headers that are cut short, too many, or on their way to somewhere else.
const BROKEN: u32 = 1 << 30;
/// What it returns for a fragment that isn't the first.
const LATER_FRAGMENT: u32 = 1 << 31;

/// Walks the extension headers from `at` on, the first being of kind `next`. Returns the kind of what follows them (bits 0..8),
/// [`MORE`], and their length (bits 16..26); or [`BROKEN`] or [`LATER_FRAGMENT`]. In the upper half a fragment's identification.
#[inline(never)]
fn extensions<P: Packet>(packet: &P, at: usize, next: u8) -> u64 {
    let (mut next, mut extra, mut more, mut id) = (next, 0usize, 0, 0);
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, 0 | 43 | 44 | 51 | 60) {
            break;
        }
        let Some(p) = packet.bytes((at & 0x7f) + extra, 8) else { return BROKEN as u64 };
        // SAFETY: 8 bytes at `p` were just bounds-checked.
        let (after, len, field, last) =
            unsafe { (get::<u8>(p, 0), get::<u8>(p, 1) as usize, u16::from_be(get(p, 2)), get::<u32>(p, 4)) };
        match next {
            // A routing header with segments left is on its way to somewhere else first.
            43 if field & 0xff != 0 => return BROKEN as u64,
            // Fragment. Offset 0 and none following is a whole packet in disguise (RFC 6946).
            44 => {
                id = last;
                if field >> 3 != 0 {
                    return (id as u64) << 32 | LATER_FRAGMENT as u64;
                }
                if field & 1 != 0 {
                    more = MORE;
                }
                extra += 8;
            }
            // Authentication counts in words, and from 2.
            51 => extra += (len + 2) * 4,
            // Hop-by-hop, routing, destination options.
            _ => extra += (len + 1) * 8,
        }
        if extra > MAX_EXTENSION_BYTES {
            return BROKEN as u64;
        }
        next = after;
    }
    if matches!(next, 0 | 43 | 44 | 51 | 60) {
        return BROKEN as u64;
    }
    (id as u64) << 32 | (next as u32 | more | (extra as u32) << 16) as u64
}

/// TCP and UDP, the header at `l4`; the packet ends `bytes` after `l3`. `more`: other fragments follow.
#[inline(always)]
fn layer4<V: Header, P: Packet>(
    packet: &P,
    l3: usize,
    l4: usize,
    bytes: usize,
    more: bool,
    parsed: &mut Parsed<V::Addr>,
) -> Result<(), ParseError> {
    parsed.l3 = l3 as u16;
    parsed.l4 = l4 as u16;
    parsed.bytes = bytes as u32;
    parsed.first = more as u32;
    let room = bytes - (l4 - l3);
    if parsed.key.proto == Proto::TCP {
        let Some(p) = packet.bytes(l4, 20) else { return Err(ParseError::Malformed) };
        // SAFETY: 20 bytes at `p` were just bounds-checked.
        let offset = unsafe {
            parsed.key.sport = PortBe(get(p, 0));
            parsed.key.dport = PortBe(get(p, 2));
            parsed.segment.seq = u32::from_be(get(p, 4));
            parsed.segment.ack = u32::from_be(get(p, 8));
            parsed.segment.flags = get(p, 13);
            (get::<u8>(p, 12) >> 4) as usize * 4
        };
        if offset < 20 || offset > room || impossible(parsed.segment.flags) {
            return Err(ParseError::Malformed);
        }
        parsed.segment.len = (room - offset) as u32;
        return Ok(());
    }
    if parsed.key.proto != Proto::UDP {
        return Err(if parsed.key.proto == V::ICMP && !more {
            ParseError::Icmp
        } else {
            ParseError::Foreign
        });
    }
    let Some(p) = packet.bytes(l4, 8) else { return Err(ParseError::Malformed) };
    // SAFETY: 8 bytes at `p` were just bounds-checked.
    let len = unsafe {
        parsed.key.sport = PortBe(get(p, 0));
        parsed.key.dport = PortBe(get(p, 2));
        u16::from_be(get(p, 4)) as usize
    };
    // Length 0: a GSO datagram, whose length doesn't fit (RFC 2675).
    if room < 8 || ((len < 8 || (len > room && !more)) && !(P::BIG && len == 0)) {
        return Err(ParseError::Malformed);
    }
    Ok(())
}

/// Flags that no TCP sends: none that says what the segment is for, or an opening that also closes.
#[inline(always)]
const fn impossible(bits: u8) -> bool {
    use flags::{ACK, FIN, RST, SYN};
    bits & (SYN | ACK | RST) == 0 || (bits & SYN != 0 && bits & (FIN | RST) != 0)
}

#[cfg(test)]
mod tests;
