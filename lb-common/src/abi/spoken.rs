//! What backends say by UDP outside of a flow: after it was forgotten, or from another port.

use super::{BackendId, PortBe};

/// Whom a client of a backend has asked. 16 bytes for IPv4, 28 for IPv6. Written by the datapath; the least recently used
/// make room.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spoken<A> {
    /// The VIP.
    pub vip: A,
    /// The backend.
    pub backend: BackendId,
    /// When that was, or ended: low half of jiffies.
    pub at: u32,
    /// The VIP's port.
    pub port: PortBe,
    /// Zero.
    pub _pad: u16,
}

/// TFTP: a server answers from another port than the one that it is asked at (RFC 1350, section 4).
pub const TFTP: PortBe = PortBe::new(69);

/// As the port of a backend: it may answer from any.
pub const ANY_PORT: PortBe = PortBe(0);
