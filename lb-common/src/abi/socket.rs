//! Sockets of the node's own processes that were led to a backend. Their packets never meet the packet path; what counts is the socket.

use super::{BackendId, PortBe, Proto};

/// Services that one socket may use at a time. TCP and connected UDP use one; an unconnected UDP socket that sends to more forgets one of them.
pub const PINS: u32 = 4;

/// Whose sockets are led to backends.
pub mod led {
    /// Those of processes in the node's network namespace.
    pub const OF_THE_NODE: u32 = 0;
    /// Everybody's.
    pub const ALL: u32 = 1;
    /// Likewise, but packets of other namespaces are seen, too: what is better judged by packets isn't led.
    pub const ALL_BESIDE_PACKETS: u32 = 2;
}

/// Whether there is a pin at a place, and whose. 16 bytes. How they are looked for: [`socket_table`](crate::socket_table).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketPlace {
    /// 0: free; [`claimed`](crate::socket_table::claimed) or [`pinned`](crate::socket_table::pinned). It counts on its backend for as long as the
    /// state says so; whoever moves it to 0 by compare-and-swap, and only he, subtracts.
    pub state: u64,
    /// Pins that belong here and lie elsewhere.
    pub strays: u32,
    /// Zero.
    pub _pad: u32,
}

/// The pin at a place: a cache line. Written by whoever claimed the place.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketPin {
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
    /// 1: it counts in its client's binding; the client is the node, 0.0.0.0 or `::`.
    pub bound: u8,
    /// 1: until the socket is closed or connected to something else; 0: unconnected UDP, until it has been silent for too long.
    pub connected: u8,
    /// Zero.
    pub _pad: [u32; 3],
}

/// "Let go of this pin, if nothing has happened since I looked." 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketRequest {
    /// What the agent saw.
    pub state: u64,
    /// At which place.
    pub at: u32,
    /// Likewise. Not looked at if it is to go in any case ([`sweep::RESET`](super::sweep::RESET)).
    pub last_seen: u32,
}
