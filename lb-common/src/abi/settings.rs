//! What the pinned maps were made for, so that an agent checks before it trusts them.

use core::mem::{offset_of, size_of};

use super::*;

/// One record, at index 0. Written once, when the maps are made.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// [`LAYOUT`] of the build that made the maps.
    pub layout: u64,
    /// `conntrack.max_flows` at that time.
    pub max_flows: u32,
    /// Seed of the flow tables' hash.
    pub seed: u32,
    /// `conntrack.max_clients` at that time.
    pub max_clients: u32,
    /// Zero.
    pub _pad: u32,
}

/// Raised by hand when the meaning of a field changes and its layout doesn't.
const EPOCH: u64 = 2;

const fn mix(hash: u64, word: usize) -> u64 {
    // FNV-1a, 64 bits, a word at a time.
    (hash ^ word as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Hash of the sizes and offsets of all that lies in maps. Two builds with the same value read each other's maps.
pub const LAYOUT: u64 = {
    let words = [
        size_of::<FlowKey<Addr4>>(),
        size_of::<FlowKey<Addr6>>(),
        size_of::<Flow<Addr4>>(),
        size_of::<Flow<Addr6>>(),
        offset_of!(Flow<Addr4>, created),
        offset_of!(Flow<Addr4>, last_seen),
        offset_of!(Flow<Addr4>, backend),
        offset_of!(Flow<Addr4>, nat_addr),
        offset_of!(Flow<Addr4>, nat_port),
        offset_of!(Flow<Addr4>, fin),
        offset_of!(Flow<Addr4>, bytes),
        offset_of!(Flow<Addr4>, asked_at),
        offset_of!(Flow<Addr4>, mark),
        size_of::<ServiceKey<Addr4>>(),
        size_of::<ServiceKey<Addr6>>(),
        size_of::<Sources<Addr4>>(),
        size_of::<SourceKey<Addr4>>(),
        size_of::<SourceKey<Addr6>>(),
        size_of::<SourcePorts>(),
        limits::SOCKET_PLACES as usize,
        size_of::<SocketPlace>(),
        size_of::<SocketPin>(),
        offset_of!(SocketPin, backend),
        size_of::<Service>(),
        offset_of!(Service, forward),
        offset_of!(Service, guard),
        offset_of!(Service, target),
        offset_of!(Service, local),
        offset_of!(PoolBlock, lists),
        pool::STARTS,
        size_of::<Client<Addr4>>(),
        size_of::<Client<Addr6>>(),
        offset_of!(Service, first_block),
        offset_of!(Service, algorithm),
        offset_of!(Service, affine),
        size_of::<PoolBlock>(),
        offset_of!(PoolBlock, limit),
        offset_of!(PoolBlock, next),
        offset_of!(PoolBlock, even),
        offset_of!(PoolBlock, group),
        size_of::<AffinityKey>(),
        size_of::<AffinityEntry>(),
        offset_of!(AffinityEntry, bond),
        size_of::<HostKey>(),
        size_of::<Event>(),
        size_of::<Active>(),
        size_of::<Backend>(),
        offset_of!(Backend, port),
        offset_of!(Backend, service),
        size_of::<BackendCounters>(),
        size_of::<DurationHistogram>(),
        size_of::<ServiceName>(),
        size_of::<table::Chunk>(),
        crate::flow_table::buckets(1 << 20) as usize,
        crate::filter::WORDS,
        limits::MAX_SERVICES as usize,
        limits::MAX_BLOCKS as usize,
        Reason::COUNT,
    ];
    let mut hash = mix(0xcbf2_9ce4_8422_2325, EPOCH as usize);
    let mut i = 0;
    while i < words.len() {
        hash = mix(hash, words[i]);
        i += 1;
    }
    hash
};
