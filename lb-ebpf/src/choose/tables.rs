//! By a slot of a table: by consistent hashing, by lot, or in turn.

use lb_common::{
    abi::{
        BLOCK_SLOTS, BackendId, Reason,
        table::{self, CHUNK_WORDS},
    },
    hash,
};

use super::{AGAIN, FULL, Pick};
use crate::{
    account,
    atomic::fetch_add_u32,
    conntrack::REFUSED,
    maps::{POOLS, TABLES, TURNS, Table},
    packet::opaque,
};

/// Slots of a table tried when backends are full or just ceased to be eligible.
const PROBES: usize = 16;

/// Which slot is a flow's.
#[derive(Clone, Copy)]
pub enum Order {
    /// Where a hash, or random bits, lead.
    Hash(u32),
    /// The next.
    Turn,
}

/// The flow's slot in the table of the service's list, or the next whose backend takes it.
#[inline(always)]
pub fn by_table(pick: &mut Pick, order: Order) -> u32 {
    let index = table::index(pick.service, pick.list());
    let Some(table) = TABLES.get(index) else { return pick.nobody() };
    let slots = table.get(0).map_or(0, |head| head[0]);
    if slots == 0 {
        return pick.nobody();
    }
    let mut slot = match order {
        Order::Hash(hash) => hash::reduce(hash, slots),
        Order::Turn => turn(index) % slots,
    };
    // Hardly any flow needs another one.
    let taken = probe(pick, table, slot);
    if taken != AGAIN {
        return taken;
    }
    for _ in 1..opaque(PROBES) {
        slot = if slot + 1 < slots { slot + 1 } else { 0 };
        let taken = flowpin_probe(pick, index, slot);
        if taken != AGAIN {
            return taken;
        }
    }
    pick.nobody()
}

/// How many were given before.
#[inline(always)]
fn turn(index: u32) -> u32 {
    // SAFETY: an aligned word of a map's value, which lives as long as the map; all writers use atomics.
    TURNS.get_ptr_mut(index).map_or(0, |turns| unsafe { fetch_add_u32(turns, 1) })
}

/// [`probe`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_probe(pick: *mut Pick, index: u32, slot: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return REFUSED | Reason::Internal as u32 };
    let Some(table) = TABLES.get(index) else { return pick.nobody() };
    probe(pick, table, slot)
}

/// Takes a place on the backend of a slot of a table. A backend, or [`AGAIN`], or why it is nobody.
#[inline(always)]
fn probe(pick: &mut Pick, table: &Table, slot: u32) -> u32 {
    let word = slot + 1;
    // A table published in the meantime may be shorter: then there is no such chunk, or the slot is empty.
    let Some(chunk) = table.get(word / CHUNK_WORDS as u32) else { return pick.nobody() };
    let id = BackendId(chunk[word as usize & (CHUNK_WORDS - 1)]);
    let Some(block) = POOLS.get(id.block()) else { return pick.nobody() };
    // A backend that has just been drained is still in the table for the instant until the next one is published.
    if pick.may_take(block, id) {
        if account::reserve(id, block.limit[id.slot() & (BLOCK_SLOTS - 1)]) {
            return id.0;
        }
        pick.list |= FULL;
    }
    AGAIN
}
