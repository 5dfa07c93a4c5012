//! Fragments: the first of a datagram has its ports, the others find them here.

use super::{PortBe, Proto};
use crate::hash;

/// Whose fragment it is. 16 bytes for IPv4, 40 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Which of the pair's datagrams under way, of [`FragmentKey::place`]. That nobody else's make room for them.
    pub place: u32,
    /// IPv4: the protocol, since identifications are counted for each (RFC 791). IPv6: 0.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}

impl<A> FragmentKey<A> {
    /// Datagrams under way from one address to another whose fragments are told apart.
    pub const PLACES: u32 = 64;

    /// Where a datagram's first fragment is remembered. `id`: its identification, as it lies in the packet; hosts count them up
    /// or draw lots, and either byte may be the one that changes.
    #[inline(always)]
    pub const fn place(id: u32) -> u32 {
        hash::mix(id) & (Self::PLACES - 1)
    }
}

/// What its first fragment said. 12 bytes. Written by the datapath; the least recently used make room.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FirstFragment {
    /// The datagram's identification, as it lies in the packet.
    pub id: u32,
    /// Source port.
    pub sport: PortBe,
    /// Destination port.
    pub dport: PortBe,
    /// Protocol.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}
