//! Sockets of the node's own processes that were led to a backend. Their packets never meet the packet path; what counts is the socket.

use super::{BackendId, PortBe, Proto};

/// Services that one socket may use at a time. TCP and connected UDP use one; an unconnected UDP socket that sends to more forgets one of them.
pub const PINS: usize = 4;

/// Pins of one socket. 256 bytes. Made and changed by the socket programs only, removed when the socket is closed.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Socket {
    /// In no order.
    pub pins: [SocketPin; PINS],
}

/// One of them. 64 bytes. It counts on its backend for as long as `state` is one that [counts](SocketPin::counts); whoever moves it to 0 by
/// compare-and-swap, and only he, subtracts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketPin {
    /// 0: free; [`SocketPin::FILLING`]; or a number that no pin of the recent past had.
    pub state: u64,
    /// What the process asked for, as [`Addr::words`](super::Addr::words).
    pub vip: [u32; 4],
    /// Where it was led.
    pub addr: [u32; 4],
    /// Port of the former.
    pub vip_port: PortBe,
    /// Port of the latter.
    pub port: PortBe,
    /// The backend.
    pub backend: BackendId,
    /// Low half of jiffies: unconnected UDP, when a datagram was last sent or received; otherwise when it was pinned.
    pub last_seen: u32,
    /// When it was pinned, in jiffies shifted right by [`CREATED_SHIFT`](super::CREATED_SHIFT).
    pub created: u32,
    /// TCP or UDP.
    pub proto: Proto,
    /// [`Backend::V4`](super::Backend::V4) or [`Backend::V6`](super::Backend::V6).
    pub family: u8,
    /// 1: it counts in its client's bond; the client is the node, 0.0.0.0 or `::`.
    pub bound: u8,
    /// 1: until the socket is closed or connected to something else; 0: unconnected UDP, until it has been silent for too long.
    pub connected: u8,
    /// Zero.
    pub _pad: u32,
}

impl SocketPin {
    /// `state` of a pin that is being written.
    pub const FILLING: u64 = 1;

    /// Does it count?
    #[inline(always)]
    pub const fn counts(&self) -> bool {
        self.state > Self::FILLING
    }
}

/// "Let go of this pin, if nothing has happened since I looked." 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketRequest {
    /// The socket's cookie.
    pub cookie: u64,
    /// What the agent saw.
    pub state: u64,
    /// Likewise. Not looked at if it is to go in any case ([`sweep::RESET`](super::sweep::RESET)).
    pub last_seen: u32,
    /// Which of the socket's pins.
    pub place: u32,
}
