//! Chooses a backend for a new flow and takes a place on it.

mod all_nodes;
mod scan;
mod tables;
mod whole;

use lb_common::{
    abi::{
        Algorithm, BLOCK_SLOTS, BackendId, BlockId, List, PoolBlock, Reason, Service, ServiceId,
        limits::{MAX_BLOCKS, MAX_CHAIN, MAX_WALK},
    },
    hash,
    pick::{Least, any16},
    ranked::Ranked,
};

use all_nodes::{flowpin_take_ranked, look_up_others};
use scan::{eligible, fewest_of, walk};
use tables::{Order, by_table};
pub use whole::is_beyond;

use crate::{
    account,
    conntrack::REFUSED,
    maps::{ACTIVE, CLUSTER, POOLS},
    packet::opaque,
};

/// Choices made anew when the chosen backend got another connection in the meantime, or when nobody in a part of a long pool takes the flow: as many
/// as it has parts, and one.
const ATTEMPTS: usize = (MAX_CHAIN / MAX_WALK) as usize + 1;
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
    best: Best,
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
    /// What counts of the words in [`OTHERS`]; 0: the node counts by itself.
    mask: u32,
    compared: Compared,
}

/// The best so far.
union Best {
    /// Of the node's connections or clients.
    least: Least,
    /// Of all nodes' connections.
    ranked: Ranked,
}

impl Best {
    #[inline(always)]
    fn least(&mut self) -> &mut Least {
        // SAFETY: numbers, as are those of the other; whatever they are is good.
        unsafe { &mut self.least }
    }

    #[inline(always)]
    fn ranked(&mut self) -> &mut Ranked {
        // SAFETY: as above.
        unsafe { &mut self.ranked }
    }
}

impl Pick {
    /// Among a service's backends on a list.
    #[inline(always)]
    pub fn new(service: &Service, list: List, chance: u32) -> Self {
        let mut pick = Self {
            best: Best { least: Least::NONE },
            service: service.id,
            first: service.first_block,
            chance: 0,
            next: 0,
            list: 0,
            skips: 0,
            skip: [NOBODY; SKIPS],
            mask: 0,
            compared: Compared::Connections,
        };
        pick.begin(service, list, chance);
        pick
    }

    /// The same where another choice was made before: whoever chooses begins with the best anew.
    #[inline(always)]
    pub fn begin(&mut self, service: &Service, list: List, chance: u32) {
        (self.service, self.first, self.chance) = (service.id, service.first_block, chance);
        (self.next, self.list, self.skips, self.mask) = (0, list.0 as u8, 0, CLUSTER.load());
        self.skip = [NOBODY; SKIPS];
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

/// A backend with a place taken on it. `flow_hash`: the flow's, or with affinity the client's, for consistent hashing.
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
    let algorithm = Algorithm(algorithm as u8);
    let order = match algorithm {
        Algorithm::CONSISTENT_HASH => Some(Order::Hash(flow_hash)),
        Algorithm::WEIGHTED_RANDOM => Some(Order::Hash(hash::mix(pick.chance))),
        Algorithm::ROUND_ROBIN => Some(Order::Turn),
        _ => None,
    };
    if let Some(order) = order {
        let taken = by_table(pick, order);
        if taken & REFUSED == 0 || algorithm == Algorithm::CONSISTENT_HASH {
            return taken;
        }
    }
    pick.compared = match algorithm {
        // Those whose slots were looked at are full: whoever isn't takes it.
        Algorithm::ROUND_ROBIN | Algorithm::WEIGHTED_RANDOM => Compared::Connections,
        Algorithm::LEAST_CLIENTS => Compared::Clients,
        _ if pick.mask != 0 => {
            look_up_others(pick);
            Compared::OfAllNodes
        }
        _ => {
            let taken = of_one_block(pick);
            if taken != AGAIN {
                return taken;
            }
            Compared::Connections
        }
    };
    least(pick)
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

const AGAIN: u32 = u32::MAX;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Compared {
    /// The node's connections.
    Connections = 0,
    /// Clients that are bound.
    Clients = 1,
    /// All nodes' connections.
    OfAllNodes = 2,
}

/// The fewest active connections, or clients, per weight among the eligible: exactly, if the pool has up to [`MAX_WALK`] blocks; else among as many,
/// starting anywhere.
#[inline(always)]
fn least(pick: &mut Pick) -> u32 {
    for attempt in 0..opaque(ATTEMPTS) {
        walk(pick);
        // At last whoever it is will do; and how many clients there are is not what is taken here.
        let any = pick.compared == Compared::Clients || attempt == ATTEMPTS - 1;
        let taken = if pick.compared == Compared::OfAllNodes {
            flowpin_take_ranked(pick, any as u32)
        } else {
            flowpin_take(pick, any as u32)
        };
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
    let Some((group, slot)) = pick.best.least().best(pick.chance) else {
        // A long pool goes on where the walk has ended.
        return if pick.next != 0 { AGAIN } else { pick.nobody() };
    };
    let Some(block) = POOLS.get(group) else { return REFUSED | Reason::Internal as u32 };
    let (id, limit) = (BackendId::new(group, slot), block.limit[slot as usize & (BLOCK_SLOTS - 1)]);
    if account::reserve_as(id, if any != 0 { limit } else { pick.best.least().count() }, limit) {
        return id.0;
    }
    pick.chance = hash::mix(pick.chance);
    AGAIN
}
