//! Proof that what crosses the boundary is plain data. The only `unsafe` of this crate.
//!
//! Sizes are asserted as the sum of the fields, so that there is no padding anywhere for the kernel to find uninitialised.

use core::mem::{align_of, size_of};

use super::*;

const fn exact<T>(bytes: usize, align: usize) {
    assert!(size_of::<T>() == bytes);
    assert!(align_of::<T>() == align);
}

const _: () = {
    exact::<FlowKey<Addr4>>(4 + 4 + 2 + 2 + 1 + 3, 4);
    exact::<FlowKey<Addr6>>(16 + 16 + 2 + 2 + 1 + 3, 4);
    // A word more for the tests of upgrades.
    const NEXT: usize = cfg!(feature = "next") as usize;
    exact::<Flow<Addr4>>(8 + 4 + 4 + 8 + 4 + 2 + 2 + 4 + 4 + 8 + 4 * 4 + 8 * NEXT, 8);
    exact::<Flow<Addr6>>(8 + 16 + 16 + 8 + 16 + 2 + 2 + 4 + 4 + 8 + 4 * 4 + 4 + 8 * NEXT, 8);
    exact::<Bucket<Addr4>>(7 * (64 + 8 * NEXT), 8);
    exact::<Bucket<Addr6>>(7 * (104 + 8 * NEXT), 8);
    exact::<Sources<Addr4>>(4 + 2 + 2 + 4 * MAX_SOURCES, 4);
    exact::<Sources<Addr6>>(4 + 2 + 2 + 16 * MAX_SOURCES, 4);
    exact::<SourceKey<Addr4>>(4 + 4 + 2 + 1 + 1, 4);
    exact::<SourceKey<Addr6>>(16 + 16 + 2 + 1 + 1, 4);
    exact::<SourcePorts>(4096 + 8, 8);
    exact::<FragmentKey<Addr4>>(4 + 4 + 4 + 1 + 3, 4);
    exact::<FragmentKey<Addr6>>(16 + 16 + 4 + 1 + 3, 4);
    exact::<FirstFragment>(4 + 2 + 2 + 1 + 3, 4);
    exact::<Spoken<Addr4>>(4 + 4 + 4 + 2 + 2, 4);
    exact::<Spoken<Addr6>>(16 + 4 + 4 + 2 + 2, 4);
    exact::<ServiceKey<Addr4>>(8, 4);
    exact::<ServiceKey<Addr6>>(20, 4);
    exact::<Service>(24 + 4 * NEXT, 4);
    exact::<Client<Addr4>>(4 + 4, 4);
    exact::<Client<Addr6>>(4 + 16, 4);
    exact::<ServiceName>(256, 1);
    exact::<PoolBlock>(64 + 64 + 4 + 4 + 12 + 4 + 8 + 4 + 4 + 8 + 4 + 4, 8);
    exact::<ServiceLimit>(4 + 4 + 4 * LIMIT_BLOCKS, 4);
    exact::<AffinityKey>(24, 8);
    exact::<AffinityEntry>(24 + 8 + 4 + 4, 8);
    exact::<affinity::ForgetRequest>(24 + 8, 8);
    exact::<HostKey>(4 + 16, 4);
    exact::<Mac>(8, 8);
    exact::<Event>(16 + 48 + 8 + 6 + 2 + 4 + 4, 8);
    exact::<Active>(64, 8);
    exact::<Backend>(24, 4);
    exact::<BackendCounters>(64, 8);
    exact::<DurationHistogram>(8 + 8 * DURATION_BUCKETS, 8);
    exact::<Settings>(24, 8);
    exact::<table::Chunk>(2048, 4);
    exact::<SocketPlace>(8 + 4 + 4, 8);
    exact::<SocketPin>(16 + 16 + 2 + 2 + 4 + 4 + 4 + 4 + 12, 4);
    exact::<socket::SocketRequest>(8 + 4 + 4, 8);
    exact::<sweep::Request<Addr4>>(8 + 16 + 8, 8);
    exact::<sweep::Request<Addr6>>(8 + 40 + 8, 8);
};

#[cfg(feature = "user")]
macro_rules! pod {
    ($($t:ty),* $(,)?) => {$(
        // SAFETY: repr(C), asserted above to have no padding, and every bit pattern is valid: integers and arrays of them only.
        unsafe impl aya::Pod for $t {}
    )*};
}

#[cfg(feature = "user")]
pod!(
    Addr4,
    Addr6,
    FlowKey<Addr4>,
    FlowKey<Addr6>,
    Flow<Addr4>,
    Flow<Addr6>,
    Bucket<Addr4>,
    Bucket<Addr6>,
    FragmentKey<Addr4>,
    FragmentKey<Addr6>,
    FirstFragment,
    Spoken<Addr4>,
    Spoken<Addr6>,
    Sources<Addr4>,
    Sources<Addr6>,
    SourceKey<Addr4>,
    SourceKey<Addr6>,
    SourcePorts,
    ServiceKey<Addr4>,
    ServiceKey<Addr6>,
    Service,
    Interface,
    Mac,
    Vip,
    Client<Addr4>,
    Client<Addr6>,
    ServiceName,
    PoolBlock,
    ServiceLimit,
    AffinityKey,
    AffinityEntry,
    HostKey,
    BackendId,
    Event,
    Active,
    Backend,
    BackendCounters,
    DurationHistogram,
    Settings,
    table::Chunk,
);
