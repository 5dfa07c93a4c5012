//! Source NAT: the node's own addresses in place of clients', and which of their ports are taken.

use super::{PortBe, Proto};

/// Addresses at most, for each IP version.
pub const MAX_SOURCES: usize = 16;
/// Ports of one address at most: a multiple of 64.
pub const MAX_SOURCE_PORTS: usize = 32_768;

/// Addresses that flows are given, and their ports. One record a family. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources<A> {
    /// How many addresses there are; 0: no source NAT.
    pub count: u32,
    /// The first port, in host order.
    pub first: u16,
    /// How many ports there are, 1..=[`MAX_SOURCE_PORTS`].
    pub ports: u16,
    /// The addresses.
    pub addr: [A; MAX_SOURCES],
}

impl<A: Copy + Default> Sources<A> {
    /// These addresses, of which those beyond [`MAX_SOURCES`] are left out, with so many ports each from `first` on.
    pub fn new(first: u16, ports: u16, addresses: impl IntoIterator<Item = A>) -> Self {
        let mut sources = Self { count: 0, first, ports, addr: [A::default(); MAX_SOURCES] };
        for (slot, address) in sources.addr.iter_mut().zip(addresses) {
            *slot = address;
            sources.count += 1;
        }
        sources
    }
}

/// Whose ports: one address of ours, towards one backend's address and port. 12 bytes for IPv4, 36 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SourceKey<A> {
    /// The backend's address.
    pub backend: A,
    /// Ours.
    pub source: A,
    /// The backend's port.
    pub port: PortBe,
    /// TCP or UDP.
    pub proto: Proto,
    /// Zero.
    pub _pad: u8,
}

/// Which of an address's ports are taken, a bit each. 4 KiB and a word. Made and written by the datapath, bit by bit, atomically.
///
/// A hint, which makes a free port quick to find however few are left: what decides is whether a reply entry with that port can be made.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePorts {
    /// Bit `n`: the port `n` after the first.
    pub taken: [u64; MAX_SOURCE_PORTS / 64],
    /// Where closed flows were last looked for, so that their ports can be used again: a port, counted from the first.
    pub next: u64,
}
