//! Where a backend is.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Addr4, Addr6, BLOCK_SLOTS, BlockId, PortBe, ServiceId};

/// Block × 16 + slot. 0..16 do not exist, since block 0 doesn't.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct BackendId(pub u32);

impl BackendId {
    /// From block and slot.
    #[inline(always)]
    pub const fn new(block: BlockId, slot: u32) -> Self {
        Self(block * BLOCK_SLOTS as u32 + slot)
    }
    /// The block.
    #[inline(always)]
    pub const fn block(self) -> BlockId {
        self.0 / BLOCK_SLOTS as u32
    }
    /// The slot in the block.
    #[inline(always)]
    pub const fn slot(self) -> usize {
        (self.0 % BLOCK_SLOTS as u32) as usize
    }
}

/// One backend of one service. 24 bytes. Written by the agent before any weight or table names it, and not changed while a
/// flow is pinned to it; a new address is a new backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend {
    /// The address: all words for IPv6, the first for IPv4.
    pub addr: [u32; 4],
    /// The port; 0: the service's, unchanged.
    pub port: PortBe,
    /// [`Backend::FREE`], [`Backend::V4`] or [`Backend::V6`].
    pub family: u8,
    /// [`Backend::RETIRED`], [`Backend::ON_NODE`].
    pub flags: u8,
    /// Its service.
    pub service: ServiceId,
}

impl Backend {
    /// `family` of a free slot.
    pub const FREE: u8 = 0;
    /// `family` of an IPv4 backend.
    pub const V4: u8 = 4;
    /// `family` of an IPv6 backend.
    pub const V6: u8 = 6;

    /// The backend is no longer declared; the slot is kept until its last flow is gone.
    pub const RETIRED: u8 = 1;
    /// Its address is one of the node's: what answers is a socket here, whose packets leave by the hooks of the client's side.
    pub const ON_NODE: u8 = 2;

    /// A backend in use.
    pub fn new(address: IpAddr, port: Option<u16>, service: ServiceId) -> Self {
        let (addr, family) = match address {
            IpAddr::V4(a) => ([Addr4::from(a).0, 0, 0, 0], Self::V4),
            IpAddr::V6(a) => (Addr6::from(a).0, Self::V6),
        };
        Self { addr, port: PortBe::new(port.unwrap_or(0)), family, flags: 0, service }
    }

    /// The same, with [`Backend::ON_NODE`] or without it.
    pub const fn on_node_if(self, on_node: bool) -> Self {
        let others = self.flags & !Self::ON_NODE;
        Self { flags: if on_node { others | Self::ON_NODE } else { others }, ..self }
    }

    /// The same, no longer declared.
    pub const fn retired(self) -> Self {
        Self { flags: self.flags | Self::RETIRED, ..self }
    }

    /// Is its address one of the node's?
    #[inline(always)]
    pub const fn is_on_node(&self) -> bool {
        self.flags & Self::ON_NODE != 0
    }

    /// Is it no longer declared?
    #[inline(always)]
    pub const fn is_retired(&self) -> bool {
        self.flags & Self::RETIRED != 0
    }

    /// The address; `None` for a free slot.
    pub fn address(&self) -> Option<IpAddr> {
        match self.family {
            Self::V4 => Some(Ipv4Addr::from(Addr4(self.addr[0])).into()),
            Self::V6 => Some(Ipv6Addr::from(Addr6(self.addr)).into()),
            _ => None,
        }
    }

    /// The port the backend names; `None`: the service's.
    pub fn port(&self) -> Option<u16> {
        Some(self.port.get()).filter(|p| *p != 0)
    }
}
