//! Fragments: the first of a datagram has its ports, the others find them here.

use super::{PortBe, Proto};

/// Whose fragment it is. 16 bytes for IPv4, 40 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, as it lies in the packet.
    pub id: u32,
    /// IPv4: the protocol, since identifications are counted for each (RFC 791). IPv6: 0.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}

/// What its first fragment said. 8 bytes. Written by the datapath; the least recently used make room.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FirstFragment {
    /// Source port.
    pub sport: PortBe,
    /// Destination port.
    pub dport: PortBe,
    /// Protocol.
    pub proto: Proto,
    /// Zero.
    pub _pad: [u8; 3],
}
