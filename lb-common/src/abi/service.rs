//! Services as the datapath sees them: one entry per VIP, port and protocol. A range is an entry a port, so that a lookup is
//! one probe whatever was declared.

use super::{BlockId, PortBe, Proto, SourceRanges, limits};

/// Index of a service, 0..[`limits::MAX_SERVICES`](super::limits::MAX_SERVICES). Stable as long as a flow of it is pinned.
pub type ServiceId = u32;

/// VIP, port, protocol. 8 bytes for IPv4, 20 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServiceKey<A> {
    /// The VIP.
    pub vip: A,
    /// The port.
    pub port: PortBe,
    /// TCP or UDP.
    pub proto: Proto,
    /// Zero.
    pub _pad: u8,
}

impl<A> ServiceKey<A> {
    /// A key.
    #[inline(always)]
    pub const fn new(vip: A, port: PortBe, proto: Proto) -> Self {
        Self { vip, port, proto, _pad: 0 }
    }
}

/// How a backend is chosen.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Algorithm(pub u8);

impl Algorithm {
    /// Fewest active connections per weight.
    pub const LEAST_CONNECTIONS: Self = Self(0);
    /// Maglev.
    pub const CONSISTENT_HASH: Self = Self(1);
    /// One after the other, in proportion to weights.
    pub const ROUND_ROBIN: Self = Self(3);
    /// By lot, in proportion to weights.
    pub const WEIGHTED_RANDOM: Self = Self(4);
    /// Fewest clients per weight: what least-connections is where clients are bound to backends. Not declared; the datapath's own.
    pub const LEAST_CLIENTS: Self = Self(2);
}

/// What happens to a TCP packet that belongs to no flow and opens none.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stray(pub u8);

impl Stray {
    /// Answer with RST, so that the client reconnects at once. Default for least-connections.
    pub const RESET: Self = Self(0);
    /// Choose as for a new flow and pin. Default for consistent hashing: every node computes the same backend.
    pub const FORWARD: Self = Self(1);
    /// Leave it to the stack: while another balancer's connections are still open.
    pub const PASS: Self = Self(2);
}

/// How packets reach a backend.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forward(pub u8);

impl Forward {
    /// The destination is replaced; the backend sees the client and must answer by way of the node.
    pub const NAT: Self = Self(0);
    /// The source too, by an address of the node's: the backend answers to that.
    pub const SNAT: Self = Self(1);
    /// Nothing is replaced but the MAC address: a backend on a segment of the node's that has the VIP itself, and answers the client.
    pub const DSR_L2: Self = Self(2);
    /// The packet is put in another one as it is (RFC 2003, RFC 2473); the backend takes it out, has the VIP itself, and answers the client.
    pub const DSR_IPIP: Self = Self(3);

    /// Do replies go past the node?
    #[inline(always)]
    pub const fn is_direct(self) -> bool {
        self.0 >= Self::DSR_L2.0
    }
}

/// Where a new flow comes from, as far as it matters: by the interface's role.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Source(pub u8);

impl Source {
    /// By an interface whose role isn't `pod`.
    pub const ELSEWHERE: Self = Self(0);
    /// By an interface with the role `pod`.
    pub const POD: Self = Self(1);
}

/// Which backends of a pool a flow may go to: index of [`PoolBlock::lists`](super::PoolBlock::lists). Bit 0: IPv6; bit 1: those of this node only.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct List(pub u32);

impl List {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// Backends of an IP version; those of this node only if `local`.
    #[inline(always)]
    pub const fn new(v6: bool, local: bool) -> Self {
        Self(v6 as u32 | (local as u32) << 1)
    }
    /// Those of this node only?
    #[inline(always)]
    pub const fn is_local(self) -> bool {
        self.0 & 2 != 0
    }
    /// Index in an array of [`List::COUNT`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize & (Self::COUNT - 1)
    }
}

/// What the datapath knows of one port of a frontend: where clients knock, and which pool it leads to. 24 bytes. Written by the agent; replaced whole
/// (the map is not preallocated, so a reader keeps the old value until it is done).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Which service. Several frontends of one service have its id, and its pool.
    pub id: ServiceId,
    /// First block of the pool; 0: the pool is empty.
    pub first_block: BlockId,
    /// Under which number source ranges are looked up, if `source_ranges` asks for it.
    pub ranges: u32,
    /// Port of backends that name none; 0: the port that the client used.
    pub target: PortBe,
    /// [`Algorithm`].
    pub algorithm: Algorithm,
    /// [`Stray`].
    pub stray: Stray,
    /// 1: with affinity; how lies in the pool's blocks.
    pub affine: u8,
    /// [`SourceRanges`].
    pub source_ranges: SourceRanges,
    /// How packets go, by [`Source`].
    pub forward: [Forward; 2],
    /// Which flows go to backends of this node only. 0: none; 1: those from elsewhere; 2: all.
    pub local: u8,
    /// 1: it or its backends have limits, so that places may run out. Flows that may give theirs back are noted.
    pub scarce: u8,
    /// 1: it has a limit as a whole: [`ServiceLimit`](super::ServiceLimit).
    pub limited: u8,
    /// Zero.
    pub _pad: u8,
    /// For the tests of upgrades: what a later version may say of a service.
    #[cfg(feature = "next")]
    pub next: u32,
}

impl Service {
    /// Does it matter where a flow comes from?
    #[inline(always)]
    pub const fn asks_source(&self) -> bool {
        self.local != 0 || self.forward[0].0 != self.forward[1].0
    }
    /// Its id, if it has a limit as a whole; or else [`ServiceId::MAX`].
    #[inline(always)]
    pub const fn limited_id(&self) -> ServiceId {
        if self.limited != 0 { self.id } else { ServiceId::MAX }
    }
    /// How packets of a flow that comes from there go.
    #[inline(always)]
    pub const fn forward(&self, source: Source) -> Forward {
        self.forward[source.0 as usize & 1]
    }
    /// Which backends a flow that comes from there may go to.
    #[inline(always)]
    pub const fn list(&self, source: Source, v6: bool) -> List {
        List::new(v6, self.local > source.0)
    }
}

/// A service's name, UTF-8, zero-padded; all zero: the id is free.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceName(pub [u8; limits::NAME_BYTES]);

impl Default for ServiceName {
    fn default() -> Self {
        Self([0; limits::NAME_BYTES])
    }
}

impl ServiceName {
    /// From text; `None` if it is longer than [`limits::MAX_NAME`](super::limits::MAX_NAME) bytes.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; limits::NAME_BYTES];
        bytes[..limits::MAX_NAME].get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }
    /// The text; `None` if the id is free or the bytes are not UTF-8.
    pub fn get(&self) -> Option<&str> {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        core::str::from_utf8(&self.0[..end]).ok().filter(|s| !s.is_empty())
    }
}
