//! Where a table's words are: in maps. The tests of [`super::model`] have them elsewhere.

use lb_common::abi::{Bucket, Flow};

use crate::maps::{FLOW_BUCKETS, FLOW_SEED, Maps};

/// A bucket's head. `None`: there is no such bucket.
#[inline(always)]
pub fn head<V: Maps>(bucket: u32) -> Option<*mut u64> {
    V::heads().get_ptr_mut(bucket)
}

/// A bucket's entries. `None`: there is no such bucket.
#[inline(always)]
pub fn entries<V: Maps>(bucket: u32) -> Option<*mut Bucket<V::Addr>> {
    V::flows().get_ptr_mut(bucket)
}

/// This CPU's entry for the forward direction or for replies.
#[inline(always)]
pub fn scratch<V: Maps>(which: u32) -> Option<*mut Flow<V::Addr>> {
    V::scratch().get_ptr_mut(which)
}

/// Seed of the hash, and how many buckets there are.
#[inline(always)]
pub fn shape() -> (u64, u32) {
    (FLOW_SEED.load(), FLOW_BUCKETS.load())
}

/// Before a word is read or written that other CPUs read or write. They need no leave.
#[inline(always)]
pub fn others_may_go_first() {}
