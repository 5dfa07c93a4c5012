//! What the datapath tells those who follow: a record for each flow that opens or ends, in a ring buffer. Written only while
//! [`LISTEN`](super::maps::LISTEN) says that somebody wants records of that kind. What finds no room is counted, in
//! [`LOST`](super::maps::LOST).

use super::{BackendId, PortBe, Proto};

/// Values of [`LISTEN`](super::maps::LISTEN), by index.
pub mod listen {
    /// Which records are written: bits.
    pub const WANTED: u32 = 0;
    /// How many lost records of flows that have ended were said so far, low half: the next agent goes on from there.
    pub const SAID: u32 = 1;
    /// How many values there are.
    pub const LENGTH: u32 = 2;
    /// A bit of [`WANTED`]: of flows that open. Whoever wants these waits for them, so that each record wakes him.
    pub const OPENED: u32 = 1;
    /// Likewise: of flows that end. Whoever wants these alone comes by himself.
    pub const ENDED: u32 = 2;
}

/// Values of [`LOST`](super::maps::LOST), by index.
pub mod lost {
    /// Records of flows that opened.
    pub const OPENED: u32 = 0;
    /// Of flows that ended.
    pub const ENDED: u32 = 1;
    /// How many values there are.
    pub const LENGTH: u32 = 2;
}

/// What happened to a flow.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct What(pub u8);

impl What {
    /// It was pinned.
    pub const OPENED: Self = Self(1);
    /// Both sides have said FIN and heard the other's.
    pub const FINISHED: Self = Self(2);
    /// The client has reset it.
    pub const CLIENT_RESET: Self = Self(3);
    /// The backend has.
    pub const BACKEND_RESET: Self = Self(4);
    /// The agent has closed it: a timeout, a deadline, the operator.
    pub const CLOSED: Self = Self(5);
    /// It was silent for too long, or its client has opened another one in its place.
    pub const REMOVED: Self = Self(6);
}

/// One record. 88 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// Bytes, client to backend.
    pub bytes_in: u64,
    /// Bytes, backend to client.
    pub bytes_out: u64,
    /// The client: all words for IPv6, the first for IPv4.
    pub client: [u32; 4],
    /// The VIP.
    pub vip: [u32; 4],
    /// The backend's address.
    pub target: [u32; 4],
    /// The backend.
    pub backend: BackendId,
    /// When the flow was pinned, as in [`Flow::created`](super::Flow::created).
    pub created: u32,
    /// The client's port.
    pub client_port: PortBe,
    /// The VIP's.
    pub vip_port: PortBe,
    /// The backend's.
    pub target_port: PortBe,
    /// Protocol.
    pub proto: Proto,
    /// What happened.
    pub what: What,
    /// 1: IPv6.
    pub v6: u8,
    /// Ticks since [`Self::created`] began at which the flow was pinned, under 16; 0 if nobody knows.
    pub created_low: u8,
    /// Zero.
    pub _pad: u16,
    /// When this happened: low half of jiffies.
    pub at: u32,
}
