//! How the agent asks for flows to be removed, or closed. The sweep programs get an array of [`Request`]s as the packet of a
//! `BPF_PROG_TEST_RUN`, and return with how many they did it.

use super::FlowKey;

/// Requests in one run. 32 requests of 56 bytes and the header stay well below a page less head- and tailroom.
pub const BATCH: usize = 32;

/// Bytes of filling before the first request: a test run wants at least an Ethernet header, and 16 keeps the requests aligned.
pub const HEADER: usize = 16;

/// First byte of the filling: remove flows.
pub const REMOVE: u8 = 0;
/// First byte of the filling: close connections, TCP, whatever has happened since they were looked at. From then on either side
/// hears a RST when it says something. The stamps of the request are not looked at.
pub const RESET: u8 = 1;
/// First byte of the filling: close connections, TCP, if nothing has happened since they were looked at.
pub const EXPIRE: u8 = 2;

/// "Remove this flow, if nothing has happened since I looked." 32 bytes for IPv4, 56 for IPv6.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Request<A> {
    /// State the agent saw in the forward entry, tag included. A flow whose state has changed is left alone.
    pub state: u64,
    /// Key of the forward entry.
    pub key: FlowKey<A>,
    /// `last_seen` of the forward entry. Left alone if it has changed.
    pub seen_forward: u32,
    /// `last_seen` of the reply entry; ignored if there is none.
    pub seen_reply: u32,
}
