//! A limit of a whole service: most connections of all its backends together.
//!
//! Nobody keeps that number: it would be one more to be right at each end of a flow, and a word that all CPUs write.
//! It is summed up from the backends' counts where a flow is opened, twice. Once before a backend is chosen, so that
//! who is refused costs no choice. And once more when the flow's place is taken, with that place: if that is one too
//! many, it is given back. So the limit is never exceeded: taking a place is a full barrier, and whoever took the
//! last of all places that are had at one moment has seen all the others (`lb_common::whole` tries it out). Two that
//! take the last one at the same instant may both see one too many, and then both begin again.

use lb_common::{
    abi::{BLOCK_SLOTS, BlockId, LIMIT_BLOCKS, ServiceId},
    whole,
};

use super::scan::active_at;
use crate::{
    maps::{ACTIVE, LIMITS},
    packet::opaque,
};

/// Would a service that has a limit as a whole have too many connections with so many `more`?
#[inline(always)]
pub fn is_beyond(service: ServiceId, more: u32) -> bool {
    flowpin_is_beyond(service, more) != 0
}

/// [`is_beyond`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_is_beyond(service: ServiceId, more: u32) -> u32 {
    // SAFETY: the map isn't preallocated, so that a replaced value lives on until the program is done; nobody writes
    // in place.
    let Some(limit) = (unsafe { LIMITS.get(service) }) else { return 0 };
    let mut all = more;
    for i in 0..opaque(LIMIT_BLOCKS) {
        if i >= LIMIT_BLOCKS || i >= limit.count as usize {
            break;
        }
        all = all.wrapping_add(flowpin_connections(limit.blocks[i]));
        // One that is full already need not be summed up to its end.
        if whole::is_beyond(all, limit.most) {
            return 1;
        }
    }
    0
}

/// Connections of a block's backends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_connections(id: BlockId) -> u32 {
    let Some(active) = ACTIVE.get_ptr(id) else { return 0 };
    (0..BLOCK_SLOTS).fold(0, |sum, slot| sum.wrapping_add(active_at(active, slot)))
}
