//! Chooses a backend for a new flow and takes a place on it.

use lb_common::{
    abi::{
        Active, Algorithm, BLOCK_SLOTS, BackendId, BlockId, List, PoolBlock, Reason, Service, ServiceId,
        limits::{MAX_BLOCKS, MAX_CHAIN, MAX_WALK},
        pool::STARTS as STARTING_POINTS,
        table::{self, CHUNK_WORDS},
    },
    hash,
    pick::{Least, any16, fewest16, with_fewest16},
};

use crate::{
    account,
    conntrack::REFUSED,
    maps::{ACTIVE, CLIENTS, POOLS, STARTS, TABLES, Table},
    packet::opaque,
};

/// Choices made anew when the chosen backend got another connection in the meantime, or when nobody in a part of a long pool takes the flow: as many
/// as it has parts, and one.
const ATTEMPTS: usize = (MAX_CHAIN / MAX_WALK) as usize + 1;
/// Slots of a Maglev table tried when backends are full or just ceased to be eligible.
const PROBES: usize = 16;
/// With a pick's list: somebody was passed over only for being full.
const FULL: u8 = 0x80;
/// Every block's number fits.
const _: () = assert!(MAX_BLOCKS <= 1 << 16);
/// Backends passed over at most, since they can't take a flow.
pub const SKIPS: usize = 4;
/// No backend has this number. Not all of its bytes are the same: those of an array would be set one by one.
const NOBODY: BackendId = BackendId(1 << 31);

/// A choice: among whom, and how far it has got. It lies on its maker's stack, whoever that is, a packet or a process, and is handed to global functions
/// by pointer: the verifier then knows nothing of what is in it, and looks at each function once.
#[repr(C)]
pub struct Pick {
    least: Least,
    /// Whose pool.
    pub service: ServiceId,
    /// Its first block.
    pub first: BlockId,
    /// Random bits.
    pub chance: u32,
    /// Where a walk along a long pool has ended; 0: it went along all of it.
    next: u16,
    /// A [`List`], and [`FULL`].
    list: u8,
    skips: u8,
    skip: [BackendId; SKIPS],
}

impl Pick {
    /// Among a service's backends on a list.
    #[inline(always)]
    pub const fn new(service: &Service, list: List, chance: u32) -> Self {
        Self {
            least: Least::NONE,
            service: service.id,
            first: service.first_block,
            chance,
            next: 0,
            list: list.0 as u8,
            skips: 0,
            skip: [NOBODY; SKIPS],
        }
    }

    /// Which of its backends.
    #[inline(always)]
    const fn list(&self) -> List {
        List((self.list & !FULL) as u32)
    }

    /// Not this one, whatever it has: it can't take the flow. False: too many are passed over already.
    #[inline(always)]
    pub fn pass_over(&mut self, backend: BackendId) -> bool {
        let at = self.skips as usize;
        if at >= SKIPS {
            return false;
        }
        self.skip[at & (SKIPS - 1)] = backend;
        self.skips += 1;
        self.chance = hash::mix(self.chance);
        true
    }

    /// Is this one passed over?
    #[inline(always)]
    pub fn passes_over(&self, backend: BackendId) -> bool {
        self.skips != 0 && self.skip.iter().any(|skip| skip.0 == backend.0)
    }

    /// May this one take new flows of the choice?
    #[inline(always)]
    pub fn may_take(&self, block: &PoolBlock, backend: BackendId) -> bool {
        block.lists[self.list().index()] >> (backend.slot() & (BLOCK_SLOTS - 1)) & 1 != 0
            && !self.passes_over(backend)
    }

    /// Nobody, and why.
    #[inline(always)]
    fn nobody(&self) -> u32 {
        let reason = match (self.list & FULL, self.list().is_local()) {
            (0, true) => Reason::NoLocalBackend,
            (0, false) => Reason::NoBackend,
            _ => Reason::BackendsFull,
        };
        REFUSED | reason as u32
    }
}

/// A backend with a place taken on it. `flow_hash`: the flow's, for consistent hashing.
///
/// Returns a [`BackendId`], or a [`Reason`] with [`REFUSED`] set.
#[inline(always)]
pub fn backend(algorithm: Algorithm, pick: &mut Pick, flow_hash: u32) -> u32 {
    flowpin_choose(pick, algorithm.0 as u32, flow_hash)
}

/// [`backend`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_choose(pick: *mut Pick, algorithm: u32, flow_hash: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return REFUSED | Reason::Internal as u32 };
    pick.list &= !FULL;
    match Algorithm(algorithm as u8) {
        Algorithm::CONSISTENT_HASH => consistent_hash(pick, flow_hash),
        Algorithm::LEAST_CLIENTS => least(pick, true),
        _ => match of_one_block(pick) {
            AGAIN => least(pick, false),
            taken => taken,
        },
    }
}

/// [`least`] in the usual pool, up to 16 backends that are all alike; or [`AGAIN`], if it is another, or somebody else was quicker.
#[inline(always)]
fn of_one_block(pick: &mut Pick) -> u32 {
    let id = pick.first;
    let (Some(block), Some(counts)) = (POOLS.get(id), ACTIVE.get_ptr(id)) else { return AGAIN };
    let set = eligible(pick, block, id);
    if block.next != 0 || block.even == 0 || set == 0 {
        return AGAIN;
    }
    let (least, tie) = fewest_of(set, counts);
    if least >= block.even_limit || tie == 0 {
        return AGAIN;
    }
    let backend = BackendId::new(id, any16(tie, hash::mix(pick.chance)));
    if account::reserve_as(backend, least, block.even_limit) {
        return backend.0;
    }
    pick.chance = hash::mix(pick.chance);
    AGAIN
}

/// The fewest connections of a `set` of a block's slots, and those that have as few: none, if all have got another one meanwhile.
#[inline(always)]
fn fewest_of(set: u32, counts: *const Active) -> (u32, u32) {
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
const AGAIN: u32 = u32::MAX;

/// The fewest active connections, or clients, per weight among the eligible: exactly, if the pool has up to [`MAX_WALK`] blocks; else among as many,
/// starting anywhere.
#[inline(always)]
fn least(pick: &mut Pick, clients: bool) -> u32 {
    for attempt in 0..opaque(ATTEMPTS) {
        walk(pick, clients as u32);
        // At last whoever it is will do; and how many clients there are is not what is taken here.
        let any = clients || attempt == ATTEMPTS - 1;
        let taken = flowpin_take(pick, any as u32);
        if taken != AGAIN {
            return taken;
        }
    }
    pick.nobody()
}

/// Takes a place on the backend that a walk has found, unless it has got another connection since; or, if it may be `any`, unless it is full. A backend,
/// or [`AGAIN`], or why it is nobody.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_take(pick: *mut Pick, any: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return REFUSED | Reason::Internal as u32 };
    let Some((group, slot)) = pick.least.best(pick.chance) else {
        // A long pool goes on where the walk has ended.
        return if pick.next != 0 { AGAIN } else { pick.nobody() };
    };
    let Some(block) = POOLS.get(group) else { return REFUSED | Reason::Internal as u32 };
    let (id, limit) = (BackendId::new(group, slot), block.limit[slot as usize & (BLOCK_SLOTS - 1)]);
    if account::reserve_as(id, if any != 0 { limit } else { pick.least.count() }, limit) {
        return id.0;
    }
    pick.chance = hash::mix(pick.chance);
    AGAIN
}

/// Walks along a pool's chain of blocks, and offers the backends of each.
#[inline(always)]
fn walk(pick: &mut Pick, clients: u32) {
    pick.least = Least::NONE;
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
        let next = flowpin_scan_even(pick, id, clients);
        id = if next & UNEVEN != 0 { flowpin_scan_each(pick, id, clients, next & !UNEVEN) } else { next };
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
const UNEVEN: u32 = 1 << 31;

/// Those of a block's slots that may take the flow, a bit each.
#[inline(always)]
fn eligible(pick: &Pick, block: &PoolBlock, id: BlockId) -> u32 {
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
    } else if pick.least.may_win(least, block.even_weight) {
        let tie = if set == 0xffff {
            with_fewest16(0xffff, least, count)
        } else {
            with_fewest16(set, least, count)
        };
        // Others come and go meanwhile: with nobody left who has as few, each is looked at once.
        if tie == 0 {
            return UNEVEN | set;
        }
        pick.least.offer(id, tie, least, block.even_weight, pick.chance);
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
        pick.least.offer(id, 1 << slot, active_at(counts, slot), weight, pick.chance);
    }
    block.next
}

/// A count of a block.
#[inline(always)]
fn active_at(active: *const Active, slot: usize) -> u32 {
    // SAFETY: the slot is within the block; array maps' values live as long as the map. Volatile: other CPUs write meanwhile; a
    // whole word is read.
    unsafe { (&raw const (*active).count).cast::<u32>().add(slot).read_volatile() }
}

/// The flow's slot in the Maglev table of the service's list, or the next whose backend takes it.
#[inline(always)]
fn consistent_hash(pick: &mut Pick, flow_hash: u32) -> u32 {
    let index = table::index(pick.service, pick.list());
    let Some(table) = TABLES.get(index) else { return pick.nobody() };
    let slots = table.get(0).map_or(0, |head| head[0]);
    if slots == 0 {
        return pick.nobody();
    }
    let mut slot = hash::reduce(flow_hash, slots);
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

/// [`probe`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_probe(pick: *mut Pick, index: u32, slot: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(pick) = (unsafe { pick.as_mut() }) else { return REFUSED | Reason::Internal as u32 };
    let Some(table) = TABLES.get(index) else { return pick.nobody() };
    probe(pick, table, slot)
}

/// Takes a place on the backend of a slot of a Maglev table. A backend, or [`AGAIN`], or why it is nobody.
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
