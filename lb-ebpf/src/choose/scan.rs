//! Looks along a pool's blocks for who has the least.

use lb_common::{
    abi::{Active, BLOCK_SLOTS, BlockId, PoolBlock, limits::MAX_WALK, pool::STARTS as STARTING_POINTS},
    hash,
    pick::{Least, fewest16, with_fewest16},
    ranked::Ranked,
};

use super::{
    Best, Compared, FULL, Pick,
    all_nodes::{flowpin_scan_ranked, flowpin_scan_ranked_each},
};
use crate::{
    maps::{ACTIVE, CLIENTS, POOLS, STARTS},
    packet::opaque,
};

/// The fewest connections of a `set` of a block's slots, and those that have as few: none, if all have got another one meanwhile.
#[inline(always)]
pub fn fewest_of(set: u32, counts: *const Active) -> (u32, u32) {
    let count = |slot| active_at(counts, slot);
    // With all 16 there is nobody to be left out of account.
    if set == 0xffff {
        let least = fewest16(0xffff, count);
        return (least, with_fewest16(0xffff, least, count));
    }
    let least = fewest16(set, count);
    (least, with_fewest16(set, least, count))
}

// What the global functions below return, besides a backend: it isn't had, again please.
/// Walks along a pool's chain of blocks, and offers the backends of each.
#[inline(always)]
pub fn walk(pick: &mut Pick) {
    pick.best = match pick.compared {
        Compared::OfAllNodes => Best { ranked: Ranked::NONE },
        Compared::Connections | Compared::Clients => Best { least: Least::NONE },
    };
    let clients = (pick.compared == Compared::Clients) as u32;
    let first = pick.first;
    let long = POOLS.get(first).is_some_and(|block| block.starts != 0);
    let mut id = match (long, pick.next) {
        (false, _) => first,
        (true, 0) => start(first, pick.chance),
        (true, next) => next as u32,
    };
    for _ in 0..opaque(MAX_WALK as usize) {
        if id == 0 {
            break;
        }
        id = if pick.compared == Compared::OfAllNodes {
            match flowpin_scan_ranked(pick, id) {
                next if next & UNEVEN != 0 => flowpin_scan_ranked_each(pick, id, next & !UNEVEN),
                next => next,
            }
        } else {
            match flowpin_scan_even(pick, id, clients) {
                next if next & UNEVEN != 0 => flowpin_scan_each(pick, id, clients, next & !UNEVEN),
                next => next,
            }
        };
        if id == 0 && long {
            id = first;
        }
    }
    pick.next = if long { id as u16 } else { 0 };
}

/// Any of a long pool's starting points.
#[inline(always)]
fn start(first: BlockId, chance: u32) -> BlockId {
    // SAFETY: the map isn't preallocated, so that a replaced value lives on until the program is done; nobody writes in place.
    match unsafe { STARTS.get(first) } {
        Some(starts) => starts[hash::mix(chance) as usize & (STARTING_POINTS - 1)],
        None => first,
    }
}

/// With this not a block, but slots: they are to be looked at one by one.
pub const UNEVEN: u32 = 1 << 31;

/// Those of a block's slots that may take the flow, a bit each.
#[inline(always)]
pub fn eligible(pick: &Pick, block: &PoolBlock, id: BlockId) -> u32 {
    let mut set = block.lists[pick.list().index()] as u32;
    if pick.skips != 0 {
        for skip in pick.skip {
            if skip.block() == id {
                set &= !(1 << skip.slot());
            }
        }
    }
    set
}

/// Whose counts are compared.
#[inline(always)]
fn compared(id: BlockId, clients: u32) -> Option<*const Active> {
    if clients != 0 { CLIENTS.get_ptr(id) } else { ACTIVE.get_ptr(id) }
}

/// Offers the backends of one block to a choice, if they are all alike, as in the usual pool: only the counts need be read, and the fewest are the best.
/// Returns the next block, 0: there is none; or [`UNEVEN`] and those that may take the flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_scan_even(pick: *mut Pick, id: BlockId, clients: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return 0 };
    let (Some(block), Some(counts)) = (POOLS.get(id), compared(id, clients)) else { return 0 };
    let set = eligible(pick, block, id);
    if set == 0 {
        return block.next;
    }
    if block.even == 0 || (clients != 0 && block.even_limit != u32::MAX) {
        return UNEVEN | set;
    }
    let count = |slot| active_at(counts, slot);
    // With all 16 there is nobody to be left out of account.
    let least = if set == 0xffff { fewest16(0xffff, count) } else { fewest16(set, count) };
    if least >= block.even_limit {
        pick.list |= FULL;
    } else if pick.best.least().may_win(least, block.even_weight) {
        let tie = if set == 0xffff {
            with_fewest16(0xffff, least, count)
        } else {
            with_fewest16(set, least, count)
        };
        // Others come and go meanwhile: with nobody left who has as few, each is looked at once.
        if tie == 0 {
            return UNEVEN | set;
        }
        pick.best.least().offer(id, tie, least, block.even_weight, pick.chance);
    }
    block.next
}

/// The same for a `set` of backends of different weights or limits.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_scan_each(pick: *mut Pick, id: BlockId, clients: u32, set: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return 0 };
    let (Some(block), Some(active), Some(counts)) =
        (POOLS.get(id), ACTIVE.get_ptr(id), compared(id, clients))
    else {
        return 0;
    };
    for slot in 0..opaque(BLOCK_SLOTS) {
        if slot >= BLOCK_SLOTS {
            break;
        }
        let (weight, limit) = (block.weight[slot], block.limit[slot]);
        if set >> slot & 1 == 0 || weight == 0 {
            continue;
        }
        if active_at(active, slot) >= limit {
            pick.list |= FULL;
            continue;
        }
        pick.best.least().offer(id, 1 << slot, active_at(counts, slot), weight, pick.chance);
    }
    block.next
}

/// A count, or a word, of a block.
#[inline(always)]
pub fn active_at(active: *const Active, slot: usize) -> u32 {
    // SAFETY: the slot is within the block; array maps' values live as long as the map. Volatile: other CPUs write meanwhile; a
    // whole word is read.
    unsafe { (&raw const (*active).count).cast::<u32>().add(slot).read_volatile() }
}
