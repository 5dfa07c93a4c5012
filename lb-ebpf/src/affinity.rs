//! Affinity: the flows of a client go where its others are. What a bond is: `lb_common::affinity`.
//!
//! A bond is made by a client's first flow, and counts the client's flows for as long as they count on their backends. The client's next
//! flow goes to the same host, if that is in the service's pool, may take new flows, has a place, and the client has not more flows than
//! its bound says; otherwise a backend is chosen, and, but for the bound, the client moves there.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_jiffies64};
use lb_common::{
    abi::{
        Addr, AffinityEntry, AffinityKey, Algorithm, BLOCK_SLOTS, BackendId, HostKey, Reason, Service,
        ServiceId,
    },
    affinity::{Bond, key},
    expiry::idle,
    hash,
};

use crate::{
    account,
    atomic::compare_exchange_u64,
    choose::{self, flowpin_choose},
    conntrack::REFUSED,
    maps::{AFFINITY, BACKENDS, BINDING, HOSTS, POOLS, TICK_HZ},
    packet::opaque,
};

/// Set in what [`choose`] returns if the flow counts in its client's bond.
pub const BOUND: u32 = 1 << 30;

/// Tries at moving a bond, or at making one. Each failure means that another CPU was at the same client at the same instant.
const TRIES: usize = 4;

// What else the global functions below return, besides a backend.

/// Another CPU was at it: again, please.
const AGAIN: u32 = u32::MAX;
/// A backend is to be chosen, for the client to be bound to.
const ANEW: u32 = u32::MAX - 1;
/// A backend is to be chosen, for this flow only.
const OVER: u32 = u32::MAX - 2;

/// A backend with a place taken on it, for a flow of this client. As [`choose::backend`](crate::choose::backend), but [`BOUND`].
#[inline(always)]
pub fn choose<A: Addr>(service: &Service, client: A, flow_hash: u32, chance: u32) -> u32 {
    let (high, low) = client.wide();
    choose_for(service, high, low, flow_hash, chance)
}

/// [`choose`]. Not inlined, for the sake of the stack.
#[inline(never)]
fn choose_for(service: &Service, high: u64, low: u64, flow_hash: u32, chance: u32) -> u32 {
    rounds(&mut OfCpu, service, (high, low), flow_hash, chance)
}

/// The same for a socket of a process's, whom packets may interrupt.
#[inline(always)]
pub fn choose_for_process(service: &Service, client: (u64, u64), flow_hash: u32, chance: u32) -> u32 {
    rounds(&mut AffinityEntry::default(), service, client, flow_hash, chance)
}

/// Where a client that is being bound is noted meanwhile.
trait Desk {
    /// As [`known`].
    fn known(&mut self, service: ServiceId, first: u32, client: (u64, u64)) -> u32;
    /// The client's hash.
    fn hash(&self) -> u32;
    /// As [`bind`].
    fn bind(&mut self, chosen: u32, only: bool, chance: u32) -> u32;
}

/// This CPU's slot of `BINDING`, and global functions.
struct OfCpu;

impl Desk for OfCpu {
    #[inline(always)]
    fn known(&mut self, service: ServiceId, first: u32, (high, low): (u64, u64)) -> u32 {
        flowpin_known(service, first, high, low)
    }
    #[inline(always)]
    fn hash(&self) -> u32 {
        let Some(own) = BINDING.get_ptr(0) else { return 0 };
        // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
        hash::client(unsafe { &(*own).key })
    }
    #[inline(always)]
    fn bind(&mut self, chosen: u32, only: bool, chance: u32) -> u32 {
        flowpin_bind(chosen, only as u32, chance)
    }
}

impl Desk for AffinityEntry {
    #[inline(always)]
    fn known(&mut self, service: ServiceId, first: u32, (high, low): (u64, u64)) -> u32 {
        known_process(self, service, first, high, low)
    }
    #[inline(always)]
    fn hash(&self) -> u32 {
        hash::client(&self.key)
    }
    #[inline(always)]
    fn bind(&mut self, chosen: u32, only: bool, chance: u32) -> u32 {
        bind_process(self, chosen, only as u32, chance)
    }
}

/// [`known`], with a frame of its own: there are 512 bytes of stack for a program and whom it calls.
#[inline(never)]
fn known_process(own: &mut AffinityEntry, service: ServiceId, first: u32, high: u64, low: u64) -> u32 {
    known(own, service, first, (high, low))
}

/// [`bind`], likewise.
#[inline(never)]
fn bind_process(own: &mut AffinityEntry, chosen: u32, only: u32, chance: u32) -> u32 {
    bind(own, chosen, only != 0, chance)
}

#[inline(always)]
fn rounds<D: Desk>(desk: &mut D, service: &Service, client: (u64, u64), flow_hash: u32, chance: u32) -> u32 {
    let mut lot = chance;
    for _ in 0..opaque(TRIES) {
        lot = hash::mix(lot);
        let known = desk.known(service.id, service.first_block, client);
        if known == AGAIN {
            continue;
        }
        if known != ANEW && known != OVER {
            return known;
        }
        let chosen = if known == OVER {
            choose::backend(service, flow_hash, lot)
        } else {
            spread(service, desk.hash(), lot)
        };
        if chosen & REFUSED != 0 {
            return chosen;
        }
        let outcome = desk.bind(chosen, known == OVER, lot);
        if outcome != AGAIN {
            return outcome;
        }
    }
    // Rather without a bond than not at all.
    choose::backend(service, flow_hash, lot)
}

/// A backend for a client, other than for a flow: by how many clients there are, or by the client's hash.
#[inline(always)]
fn spread(service: &Service, hash: u32, chance: u32) -> u32 {
    let algorithm = if service.algorithm == Algorithm::LEAST_CONNECTIONS {
        Algorithm::LEAST_CLIENTS
    } else {
        service.algorithm
    };
    flowpin_choose(algorithm.0 as u32, service.first_block, service.id, hash, chance)
}

/// A flow of this client, at this backend, counts no longer.
#[inline(always)]
pub fn left<A: Addr>(client: A, backend: BackendId) {
    let (high, low) = client.wide();
    flowpin_left(backend.0, high, low);
}

/// The same of a process's socket, whom packets may interrupt.
#[inline(always)]
pub fn left_by_process(client: (u64, u64), backend: BackendId) {
    loosen(&mut AffinityKey::default(), backend.0, client);
}

/// An entry and its bond. `None`: it isn't this client's, or is being removed.
#[inline(always)]
fn bond(client: &AffinityKey) -> Option<(*mut AffinityEntry, Bond)> {
    let entry = AFFINITY.get_ptr_mut(client)?;
    // SAFETY: the memory of a map's value stays readable while the program runs, whoever has it. Volatile: a whole word that other CPUs
    // write; read before the key, see `lb_common::affinity`.
    let (bond, owner) = unsafe {
        (Bond((&raw const (*entry).bond).read_volatile()), (&raw const (*entry).key).read_volatile())
    };
    let ours = owner.group == client.group && owner.high == client.high && owner.low == client.low;
    if ours && bond.home().0 != 0 { Some((entry, bond)) } else { None }
}

/// Moves a bond. False: another CPU was faster.
#[inline(always)]
fn exchange(entry: *mut AffinityEntry, old: Bond, new: Bond) -> bool {
    // SAFETY: as above; the word is 8-byte aligned, and all writers use compare-and-swap.
    unsafe { compare_exchange_u64(&raw mut (*entry).bond, old.0, new.0) == old.0 }
}

#[inline(always)]
fn stamp(entry: *mut AffinityEntry) {
    // SAFETY: as above; a whole word. The helper has no preconditions.
    unsafe { (&raw mut (*entry).last).write_volatile(bpf_jiffies64() as u32) };
}

/// The backend that a bond's home is in this service's pool; 0: none.
#[inline(always)]
fn here(service: ServiceId, home: BackendId) -> BackendId {
    let Some(record) = BACKENDS.get(home.0) else { return BackendId(0) };
    if record.service == service && record.retired == 0 {
        return home;
    }
    let host = HostKey { service, addr: record.addr };
    // SAFETY: a whole word that only the agent writes, by replacing the element.
    unsafe { HOSTS.get(host) }.copied().unwrap_or_default()
}

/// Takes a place on a backend, if it may take new flows. False: it may not, or is full.
#[inline(always)]
fn place(backend: BackendId) -> bool {
    let Some(block) = POOLS.get(backend.block()) else { return false };
    let slot = backend.slot() & (BLOCK_SLOTS - 1);
    block.weight[slot] != 0 && account::reserve(backend, block.limit[slot])
}

// Global functions for the kernel: nothing but numbers in and out, so that the verifier looks at each once. Whom they are about lies in
// this CPU's slot of `BINDING`.

/// Where a client's bond leads: a backend with a place taken, and [`BOUND`]; or why to nobody. Notes client and bond (0: none).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_known(service: ServiceId, first: u32, high: u64, low: u64) -> u32 {
    let Some(own) = BINDING.get_ptr_mut(0) else { return REFUSED | Reason::Internal as u32 };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    known(unsafe { &mut *own }, service, first, (high, low))
}

/// [`flowpin_known`], noted in `own`.
#[inline(always)]
fn known(own: &mut AffinityEntry, service: ServiceId, first: u32, client: (u64, u64)) -> u32 {
    let Some(block) = POOLS.get(first) else { return REFUSED | Reason::Internal as u32 };
    own.key = key(block.group, client, block.client_bits);
    own.bond = 0;
    if first == 0 {
        return REFUSED | Reason::NoBackend as u32;
    }
    let Some((entry, seen)) = bond(&own.key) else { return ANEW };
    own.bond = seen.0;
    // SAFETY: a whole word of a map's value. The helper has no preconditions.
    let silent = unsafe { idle(bpf_jiffies64() as u32, (&raw const (*entry).last).read_volatile()) };
    let limit = block.remember as u64 * TICK_HZ.load() as u64;
    if seen.open() == 0 && silent as u64 * 1000 > limit {
        return ANEW;
    }
    if seen.open() >= block.bound {
        return OVER;
    }
    let home = here(service, seen.home());
    if home.0 == 0 || !place(home) {
        return ANEW;
    }
    let Some(new) = seen.more(seen.home()) else { return home.0 };
    settle(entry, seen, new, home)
}

/// Binds the client to a chosen backend, unless it is for this flow only; its place is given back if it comes to nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_bind(chosen: u32, only: u32, chance: u32) -> u32 {
    let Some(own) = BINDING.get_ptr_mut(0) else { return chosen };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    bind(unsafe { &mut *own }, chosen, only != 0, chance)
}

/// [`flowpin_bind`], of whom is noted in `own`.
#[inline(always)]
fn bind(own: &mut AffinityEntry, chosen: u32, only: bool, chance: u32) -> u32 {
    let backend = BackendId(chosen);
    if own.bond == 0 {
        return first_flow(own, backend, chance);
    }
    let seen = Bond(own.bond);
    match bond(&own.key) {
        Some((entry, now)) if now == seen => {
            let home = if only { seen.home() } else { backend };
            let Some(new) = seen.more(home) else { return chosen };
            settle(entry, seen, new, backend)
        }
        _ => {
            account::release(backend);
            AGAIN
        }
    }
}

/// Moves a bond for one more flow, at this backend, on which a place is taken.
#[inline(always)]
fn settle(entry: *mut AffinityEntry, seen: Bond, new: Bond, backend: BackendId) -> u32 {
    if !exchange(entry, seen, new) {
        account::release(backend);
        return AGAIN;
    }
    stamp(entry);
    if seen.open() == 0 || new.home().0 != seen.home().0 {
        account::client_came(new.home());
        if seen.open() != 0 {
            account::client_went(seen.home());
        }
    }
    backend.0 | BOUND
}

/// The first flow of a client.
#[inline(always)]
fn first_flow(own: &mut AffinityEntry, home: BackendId, chance: u32) -> u32 {
    own.bond = Bond::new(home, chance).0;
    // SAFETY: the helper has no preconditions.
    own.last = unsafe { bpf_jiffies64() } as u32;
    // By reference: the stack has no room for copies.
    let (client, entry): (&AffinityKey, &AffinityEntry) = (&own.key, own);
    match AFFINITY.insert(client, entry, BPF_NOEXIST as u64) {
        Ok(()) => {
            account::client_came(home);
            home.0 | BOUND
        }
        Err(EEXIST) => {
            account::release(home);
            AGAIN
        }
        Err(_) => {
            account::reason(Reason::AffinityFull as u32);
            home.0
        }
    }
}

/// There is one already (include/uapi/asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// [`left`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_left(backend: u32, high: u64, low: u64) -> u32 {
    let Some(own) = BINDING.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    loosen(unsafe { &mut (*own).key }, backend, (high, low))
}

/// [`flowpin_left`], the key put together in `own`.
#[inline(always)]
fn loosen(own: &mut AffinityKey, backend: u32, client: (u64, u64)) -> u32 {
    let Some(block) = POOLS.get(BackendId(backend).block()) else { return 0 };
    *own = key(block.group, client, block.client_bits);
    for _ in 0..opaque(2 * TRIES) {
        let Some((entry, seen)) = bond(own) else { return 0 };
        let new = seen.less();
        if new == seen {
            return 0;
        }
        if exchange(entry, seen, new) {
            stamp(entry);
            if new.open() == 0 {
                account::client_went(seen.home());
            }
            return 1;
        }
    }
    0
}

/// Forgets a client, if its bond is as it was seen and has no open flow, or whatever it has if `force`. True if this call did.
#[inline(always)]
pub fn forget(client: &AffinityKey, seen: Bond, force: bool) -> bool {
    let Some((entry, now)) = bond(client) else { return false };
    if now != seen || (now.open() != 0 && !force) || !exchange(entry, now, now.gone()) {
        return false;
    }
    if now.open() != 0 {
        account::client_went(now.home());
    }
    // Ours to remove now: nobody makes another under this key as long as this one is there.
    AFFINITY.remove(client).is_ok()
}
