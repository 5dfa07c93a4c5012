//! Where flows lie: a set-associative table in two array maps. Pure arithmetic; who moves what when is `lb_ebpf::table`.
//!
//! ```text
//! heads    [ v t t t t t t t ][ v t t t t t t t ] ...      8 bytes a bucket: version, 7 tags (0: the lane is free)
//! buckets  [ flow × 7       ][ flow × 7       ] ...      an entry a lane, whole cache lines
//! ```
//!
//! A flow's key hashes to two buckets and a tag. It lies in either bucket, in a lane that bears its tag, so that a search reads
//! one word and, nearly always, one entry; and a packet of no flow reads two words and no entry at all. A new flow goes to the
//! first bucket, or to the second if that is emptier (Azar, Broder, Karlin, Upfal, "Balanced allocations", 1999): at the load
//! that tables are made for, both are full for fewer than one flow in a million.

use crate::{
    abi::{Addr, FlowKey, limits},
    hash,
};

/// Entries of a bucket. The head's eighth byte is a version.
pub const LANES: usize = 7;
/// Entries a hundred lanes are made for, when a table holds as many flows as it was asked for.
const LOAD_PERCENT: u64 = 60;

const ONES: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
/// High bits of the lanes, not of the version.
const LANE_BITS: u64 = 0x0080_8080_8080_8080;
const VERSION: u64 = 1 << 56;

/// Buckets of a table for so many flows, two entries each.
pub const fn buckets(flows: u32) -> u32 {
    let lanes = flows as u64 * 2 * 100 / LOAD_PERCENT;
    (lanes / LANES as u64 + 1) as u32
}

/// How many flows a table is made for unless the configuration says: by how many CPUs the machine has.
pub const fn default_flows(cpus: u32) -> u32 {
    let flows = limits::DEFAULT_FLOWS_OF_A_CPU.saturating_mul(cpus);
    if flows < limits::LEAST_DEFAULT_FLOWS {
        limits::LEAST_DEFAULT_FLOWS
    } else if flows > limits::MOST_DEFAULT_FLOWS {
        limits::MOST_DEFAULT_FLOWS
    } else {
        flows
    }
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first bucket.
    pub first: u32,
    /// Its second bucket; may be the same.
    pub second: u32,
    /// What marks its lane, not 0.
    pub tag: u8,
}

/// Where a key belongs in a table of `buckets` buckets. `seed`: the table's own, so that who doesn't know it can't choose keys
/// that meet.
#[inline(always)]
pub fn place<A: Addr>(key: &FlowKey<A>, seed: u64, buckets: u32) -> Place {
    let h = hash::keyed(key, seed);
    let reduce = |bits: u64| ((bits as u32 as u64 * buckets as u64) >> 32) as u32;
    // Products are good at the top: tag from bits 57.., buckets from 24.. and from the two halves together.
    Place { first: reduce(h ^ (h >> 32)), second: reduce(h >> 24), tag: (h >> 57) as u8 + 1 }
}

/// Lanes whose tag is `tag`, as a set: one bit for each, to be taken by [`lowest`] and [`rest`].
#[inline(always)]
pub const fn with_tag(head: u64, tag: u8) -> u64 {
    zero_bytes(head ^ (tag as u64).wrapping_mul(ONES))
}

/// Lanes that are free, as a set.
#[inline(always)]
pub const fn free(head: u64) -> u64 {
    zero_bytes(head)
}

/// Bytes that are zero: exact, also beside each other (Warren, "Hacker's Delight", section 6-1).
#[inline(always)]
const fn zero_bytes(word: u64) -> u64 {
    !((word & LOW).wrapping_add(LOW) | word) & LANE_BITS
}

/// The first lane of a set that isn't empty.
#[inline(always)]
pub const fn lowest(set: u64) -> usize {
    let lane = (set & set.wrapping_neg()) >> 7;
    // Shifts the byte that says which lane it is to the top.
    (lane.wrapping_mul(0x0001_0203_0405_0607) >> 56) as usize
}

/// A set without its first lane.
#[inline(always)]
pub const fn rest(set: u64) -> u64 {
    set & set.wrapping_sub(1)
}

/// A set without this lane.
#[inline(always)]
pub const fn leaving_out(set: u64, lane: usize) -> u64 {
    set & without(lane)
}

/// Lanes in a set.
#[inline(always)]
pub const fn count(set: u64) -> u64 {
    (set >> 7).wrapping_mul(ONES) >> 56
}

/// The head after a free lane was given a tag. The version goes up, so that whoever looked before sees that somebody came.
#[inline(always)]
pub const fn claimed(head: u64, lane: usize, tag: u8) -> u64 {
    (head | (tag as u64) << (8 * lane)).wrapping_add(VERSION)
}

/// What to AND a head with to free a lane.
#[inline(always)]
pub const fn without(lane: usize) -> u64 {
    !(0xff << (8 * lane))
}

/// Should a new flow go to its second bucket? Not while the first has room to spare: what lies in the first is found sooner.
#[inline(always)]
pub const fn prefers_second(first: u64, second: u64) -> bool {
    let (here, there) = (count(free(first)), count(free(second)));
    here < 4 && there > here
}

#[cfg(test)]
mod tests;
