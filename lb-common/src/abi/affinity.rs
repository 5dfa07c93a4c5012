//! Affinity: which backend a client is bound to, and where a host is found in a service's pool.

use super::ServiceId;

/// A client as affinity sees it. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AffinityKey {
    /// Services with the same group share their clients. Never 0.
    pub group: u64,
    /// First half of the address, masked, as a number. IPv4 as ::ffff:a.b.c.d.
    pub high: u64,
    /// Second half.
    pub low: u64,
}

/// What is known of a client. 40 bytes. Made and changed by the datapath only, removed by its `forget` program at the agent's request;
/// see [`affinity`](crate::affinity).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AffinityEntry {
    /// Its key. Before the word, so that memory that has been given to another client is told by it.
    pub key: AffinityKey,
    /// [`Binding`](crate::affinity::Binding).
    pub binding: u64,
    /// Low half of jiffies when a flow of the client was last opened or ended.
    pub last: u32,
    /// Zero.
    pub _pad: u32,
}

/// "Forget this client, if nothing has happened since I looked." 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForgetRequest {
    /// Whom.
    pub key: AffinityKey,
    /// The binding that the agent saw.
    pub binding: u64,
}

/// A host in a service's pool. 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HostKey {
    /// Whose pool.
    pub service: ServiceId,
    /// The address, as in [`Backend`](super::Backend).
    pub addr: [u32; 4],
}
