//! Chooses a backend for a new flow and takes a place on it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use lb_common::{
    abi::{
        Active, Algorithm, BLOCK_SLOTS, BackendId, BlockId, Reason, Service, ServiceId, limits::MAX_CHAIN,
        table::CHUNK_WORDS,
    },
    hash,
    pick::{Least, any16},
};

use crate::{
    account,
    conntrack::REFUSED,
    maps::{ACTIVE, CLIENTS, POOLS, TABLES},
    packet::opaque,
};

/// Choices made anew when the chosen backend got another connection in the meantime.
const ATTEMPTS: u32 = 6;
/// Slots of a Maglev table tried when backends are full or just ceased to be eligible.
const PROBES: u32 = 16;

/// A backend with a place taken on it. `flow_hash`: the flow's, for consistent hashing; `chance`: random, to break ties.
///
/// Returns a [`BackendId`], or a [`Reason`] with [`REFUSED`] set.
#[inline(always)]
pub fn backend(service: &Service, flow_hash: u32, chance: u32) -> u32 {
    flowpin_choose(service.algorithm.0 as u32, service.first_block, service.id, flow_hash, chance)
}

/// [`backend`], with nothing but numbers in and out and its name kept: a global function for the kernel (Linux 5.6), which is
/// verified once by itself. As a part of its callers it would be verified anew for each way that leads there, which is
/// beyond the verifier's limit.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_choose(
    algorithm: u32,
    first: BlockId,
    service: ServiceId,
    flow_hash: u32,
    chance: u32,
) -> u32 {
    if Algorithm(algorithm as u8) == Algorithm::CONSISTENT_HASH {
        return consistent_hash(service, flow_hash);
    }
    if Algorithm(algorithm as u8) == Algorithm::LEAST_CLIENTS {
        return least::<true>(first, chance);
    }
    match fewest(first, chance) {
        UNEVEN => least::<false>(first, chance),
        chosen => chosen,
    }
}

/// Not an outcome of [`backend`]: look at the backends' weights and limits.
const UNEVEN: u32 = u32::MAX;

/// Least-connections among backends that are all alike, which is the usual pool: then only the counts need be read, and the
/// fewest are the best. [`UNEVEN`] if they aren't alike, or if another CPU was faster.
///
/// Ties are broken by lot between blocks and again within the block.
#[inline(always)]
fn fewest(first: BlockId, chance: u32) -> u32 {
    let Some(head) = POOLS.get(first) else { return UNEVEN };
    let (weight, limit) = (head.even_weight, head.even_limit);
    let (mut best, mut winner, mut id) = (u64::MAX, 0, first);
    for _ in 0..MAX_CHAIN {
        let (Some(block), Some(active)) = (POOLS.get(id), ACTIVE.get_ptr(id)) else { return UNEVEN };
        if block.even == 0 || block.even_weight != weight || block.even_limit != limit {
            return UNEVEN;
        }
        let mut least = u32::MAX;
        if block.even == BLOCK_SLOTS as u32 {
            let mut slot = 0;
            while slot < BLOCK_SLOTS {
                let count = active_at(active, slot);
                if count < least {
                    least = count;
                }
                slot += 1;
            }
        } else {
            for slot in 0..opaque(BLOCK_SLOTS) {
                if slot >= BLOCK_SLOTS || slot as u32 >= block.even {
                    break;
                }
                let count = active_at(active, slot);
                if count < least {
                    least = count;
                }
            }
        }
        let lot = hash::mix(chance.wrapping_add(id));
        let rank = (least as u64) << 32 | lot as u64;
        if rank < best {
            (best, winner) = (rank, id);
        }
        id = block.next;
        if id == 0 {
            break;
        }
    }
    let least = best >> 32;
    if least >= limit as u64 {
        return REFUSED | Reason::BackendsFull as u32;
    }
    let (Some(block), Some(active)) = (POOLS.get(winner), ACTIVE.get_ptr(winner)) else { return UNEVEN };
    let mut set = 0u32;
    let mut slot = 0;
    while slot < BLOCK_SLOTS {
        // The sign of count - least - 1.
        let fewer = (active_at(active, slot) as u64).wrapping_sub(least + 1) >> 63;
        set |= (fewer as u32) << slot;
        slot += 1;
    }
    set &= (1 << (block.even & 0x1f)) - 1;
    let id = BackendId::new(winner, any16(set, hash::mix(chance)));
    if set != 0 && account::reserve_as(id, least as u32, limit) { id.0 } else { UNEVEN }
}

/// A count of a block.
#[inline(always)]
fn active_at(active: *const Active, slot: usize) -> u32 {
    // SAFETY: the slot is within the block; array maps' values live as long as the map. Volatile: other CPUs write meanwhile; a
    // whole word is read.
    unsafe { (&raw const (*active).count).cast::<u32>().add(slot).read_volatile() }
}

/// Fewest active connections, or clients (`C`), per weight among the eligible, exactly: the whole pool is scanned.
#[inline(always)]
fn least<const C: bool>(first: BlockId, chance: u32) -> u32 {
    let mut choice = Choice { first, chance, chosen: REFUSED | Reason::BackendsFull as u32 };
    // SAFETY: the callback has the signature that the helper wants, and the context outlives the call.
    unsafe {
        let attempt = attempt::<C> as unsafe extern "C" fn(u64, *mut Choice) -> i64;
        bpf_loop(ATTEMPTS, attempt as *mut c_void, (&raw mut choice).cast(), 0);
    }
    choice.chosen
}

/// A choice by the least.
#[repr(C)]
struct Choice {
    first: BlockId,
    chance: u32,
    chosen: u32,
}

/// Finds the minimum and takes a place there. Returns 0 if somebody was faster: again, please.
unsafe extern "C" fn attempt<const C: bool>(index: u64, choice: *mut Choice) -> i64 {
    // SAFETY: the helper hands over what `least` gave it.
    let choice = unsafe { &mut *choice };
    let (winner, count, full) = scan::<C>(choice.first, choice.chance);
    if winner == 0 {
        choice.chosen = REFUSED | if full != 0 { Reason::BackendsFull } else { Reason::NoBackend } as u32;
        return 1;
    }
    let id = BackendId(winner);
    let Some(block) = POOLS.get(id.block()) else { return 1 };
    let limit = block.limit[id.slot() & (BLOCK_SLOTS - 1)];
    // At last whoever it is will do; and how many clients there are is not what is taken here.
    let any = C || index as u32 == ATTEMPTS - 1;
    if account::reserve_as(id, if any { limit } else { count }, limit) {
        choice.chosen = winner;
        return 1;
    }
    choice.chance = hash::mix(choice.chance);
    0
}

/// A walk along a pool's chain of blocks.
#[repr(C)]
struct Scan {
    least: Least,
    block: BlockId,
    /// Somebody was passed over only for being full.
    full: u32,
}

/// The winner (0: none), what it has, and whether somebody was passed over only for being full.
///
/// A helper does the walking (`bpf_loop`, Linux 5.17), so that the verifier looks at one block instead of the longest chain,
/// which is beyond its limit.
#[inline(always)]
fn scan<const C: bool>(first: BlockId, chance: u32) -> (u32, u32, u32) {
    let mut scan = Scan { least: Least::new(chance), block: first, full: 0 };
    // SAFETY: the callback has the signature that the helper wants, and the context outlives the call.
    unsafe {
        bpf_loop(
            MAX_CHAIN,
            scan_block::<C> as unsafe extern "C" fn(u64, *mut Scan) -> i64 as *mut c_void,
            (&raw mut scan).cast(),
            0,
        );
    }
    (scan.least.best().unwrap_or(0), scan.least.count(), scan.full)
}

/// Offers the backends of one block. Returns 1 at the end of the chain.
unsafe extern "C" fn scan_block<const C: bool>(_index: u64, scan: *mut Scan) -> i64 {
    // SAFETY: the helper hands over what `scan` gave it.
    let scan = unsafe { &mut *scan };
    let id = scan.block;
    if id == 0 {
        return 1;
    }
    let (Some(block), Some(active)) = (POOLS.get(id), ACTIVE.get_ptr(id)) else { return 1 };
    let Some(compared) = (if C { CLIENTS.get_ptr(id) } else { Some(active) }) else { return 1 };
    let mut least = scan.least;
    let mut full = 0;
    let mut slot = 0;
    while slot < BLOCK_SLOTS {
        let (count, weight) = (active_at(active, slot), block.weight[slot]);
        // 1 if it has a place; without a branch, which the verifier would follow both ways for each slot.
        let fits = ((count as u64).wrapping_sub(block.limit[slot] as u64) >> 63) as u32;
        full |= weight * (1 - fits);
        least.offer(id * BLOCK_SLOTS as u32 + slot as u32, active_at(compared, slot), weight * fits);
        slot += 1;
    }
    scan.least = least;
    scan.full |= full;
    scan.block = block.next;
    0
}

/// A walk along a Maglev table.
#[repr(C)]
struct Probe {
    service: ServiceId,
    slots: u32,
    slot: u32,
    chosen: u32,
}

/// The flow's slot in the service's Maglev table, or the next whose backend takes it.
#[inline(always)]
fn consistent_hash(service: ServiceId, flow_hash: u32) -> u32 {
    let slots = match TABLES.get(service) {
        Some(table) => table.get(0).map_or(0, |head| head.0[0]),
        None => 0,
    };
    let slot = hash::reduce(flow_hash, slots);
    let mut walk = Probe { service, slots, slot, chosen: REFUSED | Reason::NoBackend as u32 };
    if slots != 0 {
        // SAFETY: the callback has the signature that the helper wants, and the context outlives the call.
        unsafe {
            let probe = probe as unsafe extern "C" fn(u64, *mut Probe) -> i64;
            bpf_loop(PROBES, probe as *mut c_void, (&raw mut walk).cast(), 0);
        }
    }
    walk.chosen
}

/// Tries one slot. Returns 0 if its backend takes nothing: the next, please.
unsafe extern "C" fn probe(_index: u64, walk: *mut Probe) -> i64 {
    // SAFETY: the helper hands over what `consistent_hash` gave it.
    let walk = unsafe { &mut *walk };
    let Some(table) = TABLES.get(walk.service) else { return 1 };
    let word = walk.slot + 1;
    // A table published in the meantime may be shorter: then there is no such chunk, or the slot is empty.
    let Some(chunk) = table.get(word / CHUNK_WORDS as u32) else { return 1 };
    let id = BackendId(chunk.0[word as usize & (CHUNK_WORDS - 1)]);
    let Some(block) = POOLS.get(id.block()) else { return 1 };
    let slot = id.slot() & (BLOCK_SLOTS - 1);
    // A backend that has just been drained is still in the table for the instant until the next one is published.
    if block.weight[slot] != 0 {
        if account::reserve(id, block.limit[slot]) {
            walk.chosen = id.0;
            return 1;
        }
        walk.chosen = REFUSED | Reason::BackendsFull as u32;
    }
    walk.slot = if walk.slot + 1 < walk.slots { walk.slot + 1 } else { 0 };
    0
}
