//! Where nodes share: the least of the node's own connections, as they are now, and what the agent knows of others. How: `lb_common::ranked`.

use aya_ebpf::{bindings::BPF_RB_FORCE_WAKEUP, helpers::generated::bpf_jiffies64};
use lb_common::{
    abi::{BLOCK_SLOTS, BackendId, BlockId, Reason},
    hash,
    ranked::{self, NOBODY16},
};

use super::{
    AGAIN, FULL, Pick,
    scan::{UNEVEN, active_at, eligible},
};
use crate::{
    account,
    conntrack::REFUSED,
    maps::{ACTIVE, DIRTY, OTHERS, OTHERS_VALID, POOLS, WAKE},
    packet::opaque,
};

/// What others have is compared as far as it is known.
#[inline(always)]
pub fn look_up_others(pick: &mut Pick) {
    let valid = OTHERS_VALID.get_ptr(0);
    // SAFETY: a whole word of a map's value, which the agent writes. The helper has no preconditions.
    let known = valid.is_some_and(|valid| unsafe { bpf_jiffies64() < valid.read_volatile() });
    pick.mask = if known { u32::MAX } else { ranked::ORDER };
}

/// The node has got a connection that others are to hear of.
#[inline(always)]
fn tell_others(pick: &Pick) {
    if let Some(dirty) = DIRTY.get_ptr_mut(pick.service) {
        // SAFETY: a whole word of a map's value, which the agent sets to 0 before it reads the counts.
        unsafe {
            if dirty.read_volatile() == 0 {
                dirty.write_volatile(1);
                // Full: it is awake, or isn't there.
                let _ = WAKE.output(1u32, BPF_RB_FORCE_WAKEUP as u64);
            }
        }
    }
}

/// [`flowpin_take`] where all nodes' connections are compared.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_take_ranked(pick: *mut Pick, any: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return REFUSED | Reason::Internal as u32 };
    let Some((group, slot)) = pick.best.ranked().best() else {
        return if pick.next != 0 { AGAIN } else { pick.nobody() };
    };
    let at = slot as usize & (BLOCK_SLOTS - 1);
    let (Some(block), Some(others)) = (POOLS.get(group), OTHERS.get_ptr(group)) else {
        return REFUSED | Reason::Internal as u32;
    };
    let (id, limit) = (BackendId::new(group, slot), block.limit[at]);
    let own = ranked::active_of(pick.best.ranked().value(), active_at(others, at) & pick.mask);
    if account::reserve_as(id, if any != 0 { limit } else { own }, limit) {
        tell_others(pick);
        return id.0;
    }
    pick.chance = hash::mix(pick.chance);
    AGAIN
}

/// Offers the backends of one block to a choice that compares all nodes' connections, if they are all alike, as in the usual pool: one compare for each.
/// Returns the next block, 0: there is none; or [`UNEVEN`] and those that may take the flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_scan_ranked(pick: *mut Pick, id: BlockId) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return 0 };
    let (Some(block), Some(active), Some(others)) = (POOLS.get(id), ACTIVE.get_ptr(id), OTHERS.get_ptr(id))
    else {
        return 0;
    };
    let (set, mask) = (eligible(pick, block, id), pick.mask);
    if set == 0 {
        return block.next;
    }
    if block.even == 0 {
        return UNEVEN | set;
    }
    let (own, word) = (|slot| active_at(active, slot), |slot| active_at(others, slot) & mask);
    match ranked::least16(set, block.even_limit, own, word) {
        NOBODY16 => pick.list |= FULL,
        least => pick.best.ranked().offer16(id, least, block.even_weight),
    }
    block.next
}

/// The same for a `set` of backends of different weights or limits.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_scan_ranked_each(pick: *mut Pick, id: BlockId, set: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return 0 };
    let (Some(block), Some(active), Some(others)) = (POOLS.get(id), ACTIVE.get_ptr(id), OTHERS.get_ptr(id))
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
        let own = active_at(active, slot);
        if own >= limit {
            pick.list |= FULL;
            continue;
        }
        let value = ranked::value(own, active_at(others, slot) & pick.mask);
        pick.best.ranked().offer(id, slot as u32, value, weight);
    }
    block.next
}
