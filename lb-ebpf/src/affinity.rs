//! Affinity: the flows of a client go where its others are. What a binding is: `lb_common::affinity`.
//!
//! A binding is made by a client's first flow, and counts the client's flows for as long as they count on their backends. The client's next
//! flow goes to the same host, if that is in the service's pool, may take new flows, has a place, and the client has not more flows than
//! its bound says; otherwise a backend is chosen, and, but for the bound, the client moves there.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_jiffies64};
use lb_common::{
    abi::{
        AffinityEntry, AffinityKey, Algorithm, BLOCK_SLOTS, BackendId, HostKey, PoolBlock, PortBe, Proto,
        Reason, ServiceId,
    },
    affinity::{Binding, group_at, key},
    expiry::idle,
    hash,
};

use crate::{
    account,
    atomic::compare_exchange_u64,
    choose::{self, Pick},
    conntrack::REFUSED,
    maps::{AFFINITY, BACKENDS, HASH_SEED, HOSTS, POOLS, TICK_HZ},
    packet::opaque,
};

/// Set in what [`choose`] returns if the flow counts in its client's binding.
pub const BOUND: u32 = 1 << 30;
/// Set besides if the binding was made for it.
pub const FRESH: u32 = 1 << 29;

/// The backend in what [`choose`] returns.
#[inline(always)]
pub const fn chosen(outcome: u32) -> BackendId {
    BackendId(outcome & (FRESH - 1))
}

/// Tries at moving a binding, or at making one. Each failure means that another CPU was at the same client at the same instant.
const TRIES: usize = 4;

// What else the global functions below return, besides a backend.

/// Another CPU was at it: again, please.
const AGAIN: u32 = u32::MAX;
/// A backend is to be chosen, for the client to be bound to.
const ANEW: u32 = u32::MAX - 1;
/// A backend is to be chosen, for this flow only.
const OVER: u32 = u32::MAX - 2;

/// Who is being bound, and where it knocked. On its maker's stack, as a [`Pick`] is.
#[repr(C)]
pub struct Client {
    entry: AffinityEntry,
    port: PortBe,
    proto: Proto,
    _pad: [u8; 5],
}

impl Client {
    /// `address`: as [`Addr::wide`](lb_common::abi::Addr::wide).
    #[inline(always)]
    pub const fn new((high, low): (u64, u64), port: PortBe, proto: Proto) -> Self {
        let key = AffinityKey { group: 0, high, low };
        Self { entry: AffinityEntry { key, binding: 0, last: 0, _pad: 0 }, port, proto, _pad: [0; 5] }
    }
}

/// A backend with a place taken on it, for a flow of this client. As [`choose::backend`], but [`BOUND`]; or [`Reason::AffinityFull`]: there is no
/// room for another client.
#[inline(always)]
pub fn choose(algorithm: Algorithm, client: &mut Client, pick: &mut Pick, flow_hash: u32) -> u32 {
    for _ in 0..opaque(TRIES) {
        pick.chance = hash::mix(pick.chance);
        let known = flowpin_known(client, pick);
        if known == AGAIN {
            continue;
        }
        if known != ANEW && known != OVER {
            return known;
        }
        let chosen = if known == OVER {
            choose::backend(algorithm, pick, flow_hash)
        } else if algorithm == Algorithm::LEAST_CONNECTIONS {
            choose::backend(Algorithm::LEAST_CLIENTS, pick, 0)
        } else {
            choose::backend(algorithm, pick, hash::client(&client.entry.key, HASH_SEED.load()))
        };
        if chosen & REFUSED != 0 {
            return chosen;
        }
        let outcome = flowpin_bind(client, chosen, (known == OVER) as u32, pick.chance);
        if outcome != AGAIN {
            return outcome;
        }
    }
    // Rather without a binding than not at all.
    choose::backend(algorithm, pick, flow_hash)
}

/// A flow of this client, at this backend, counts no longer. `port`, `proto`: where it knocked. `confirmed`: it was open.
#[inline(always)]
pub fn left((high, low): (u64, u64), port: PortBe, proto: Proto, backend: BackendId, confirmed: bool) {
    let at = (proto.0 as u32) << 16 | port.0 as u32;
    flowpin_left(backend.0, if confirmed { at | CONFIRMED } else { at }, high, low);
}

/// Beside protocol and port: the flow was open.
const CONFIRMED: u32 = 1 << 24;

/// The group in which a pool's clients are bound at a port.
#[inline(always)]
const fn group(block: &PoolBlock, port: PortBe, proto: Proto) -> u64 {
    if block.by_port != 0 { group_at(block.group, port, proto) } else { block.group }
}

/// An entry and its binding. `None`: it isn't this client's, or is being removed.
#[inline(always)]
fn binding(client: &AffinityKey) -> Option<(*mut AffinityEntry, Binding)> {
    // On the stack: up to Linux 6.1 or so a key may not lie where a caller's pointer leads.
    let key = AffinityKey { ..*client };
    let entry = AFFINITY.get_ptr_mut(key)?;
    // SAFETY: the memory of a map's value stays readable while the program runs, whoever has it. Volatile: a whole word that other CPUs
    // write; read before the key, see `lb_common::affinity`.
    let (binding, owner) = unsafe {
        (Binding((&raw const (*entry).binding).read_volatile()), (&raw const (*entry).key).read_volatile())
    };
    let ours = owner.group == client.group && owner.high == client.high && owner.low == client.low;
    if ours && binding.home().0 != 0 { Some((entry, binding)) } else { None }
}

/// Moves a binding. False: another CPU was faster.
#[inline(always)]
fn exchange(entry: *mut AffinityEntry, old: Binding, new: Binding) -> bool {
    // SAFETY: as above; the word is 8-byte aligned, and all writers use compare-and-swap.
    unsafe { compare_exchange_u64(&raw mut (*entry).binding, old.0, new.0) == old.0 }
}

#[inline(always)]
fn stamp(entry: *mut AffinityEntry) {
    // SAFETY: as above; a whole word. The helper has no preconditions.
    unsafe { (&raw mut (*entry).last).write_volatile(bpf_jiffies64() as u32) };
}

/// The backend that a binding's home is in this service's pool; 0: none.
#[inline(always)]
fn here(service: ServiceId, home: BackendId) -> BackendId {
    let Some(record) = BACKENDS.get(home.0) else { return BackendId(0) };
    if record.service == service && !record.is_retired() {
        return home;
    }
    let host = HostKey { service, addr: record.addr };
    // SAFETY: a whole word that only the agent writes, by replacing the element.
    unsafe { HOSTS.get(host) }.copied().unwrap_or_default()
}

/// Takes a place on a backend, if it may take this flow. False: it may not, or is full.
#[inline(always)]
fn place(pick: &Pick, backend: BackendId) -> bool {
    let Some(block) = POOLS.get(backend.block()) else { return false };
    pick.may_take(block, backend)
        && account::reserve(backend, block.limit[backend.slot() & (BLOCK_SLOTS - 1)])
}

/// Where a client's binding leads: a backend with a place taken, and [`BOUND`]; or why to nobody. Notes the client's key and binding (0: none).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_known(client: *mut Client, pick: *const Pick) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let (Some(client), Some(pick)) = (unsafe { (client.as_mut(), pick.as_ref()) }) else {
        return REFUSED | Reason::Internal as u32;
    };
    let Some(block) = POOLS.get(pick.first) else { return REFUSED | Reason::Internal as u32 };
    let own = &mut client.entry;
    own.key = key(group(block, client.port, client.proto), (own.key.high, own.key.low), block.client_bits);
    own.binding = 0;
    if pick.first == 0 {
        return REFUSED | Reason::NoBackend as u32;
    }
    let Some((entry, seen)) = binding(&own.key) else { return ANEW };
    own.binding = seen.0;
    // SAFETY: a whole word of a map's value. The helper has no preconditions.
    let silent = unsafe { idle(bpf_jiffies64() as u32, (&raw const (*entry).last).read_volatile()) };
    let limit = block.remember as u64 * TICK_HZ.load() as u64;
    if seen.open() == 0 && silent as u64 * 1000 > limit {
        return ANEW;
    }
    if seen.open() >= block.bound {
        return OVER;
    }
    let home = here(pick.service, seen.home());
    if home.0 != 0 && pick.passes_over(home) {
        // For this flow only: nothing is wrong with the binding.
        return OVER;
    }
    if home.0 == 0 || !place(pick, home) {
        return ANEW;
    }
    let Some(new) = seen.more(seen.home()) else { return home.0 };
    settle(entry, seen, new, home)
}

/// Binds the client to a chosen backend, unless it is for this flow only (`only`); its place is given back if it comes to nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_bind(client: *mut Client, chosen: u32, only: u32, chance: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(client) = (unsafe { client.as_mut() }) else { return chosen };
    let own = &mut client.entry;
    let backend = BackendId(chosen);
    if own.binding == 0 {
        return first_flow(own, backend, chance);
    }
    let seen = Binding(own.binding);
    match binding(&own.key) {
        Some((entry, now)) if now == seen => {
            let home = if only != 0 { seen.home() } else { backend };
            let Some(new) = seen.more(home) else { return chosen };
            settle(entry, seen, new, backend)
        }
        _ => {
            account::release(backend);
            AGAIN
        }
    }
}

/// Moves a binding for one more flow, at this backend, on which a place is taken.
#[inline(always)]
fn settle(entry: *mut AffinityEntry, seen: Binding, new: Binding, backend: BackendId) -> u32 {
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
    own.binding = Binding::new(home, chance).0;
    // SAFETY: the helper has no preconditions.
    own.last = unsafe { bpf_jiffies64() } as u32;
    // On the stack, as in `binding`.
    let entry = AffinityEntry { ..*own };
    match AFFINITY.insert(entry.key, entry, BPF_NOEXIST as u64) {
        Ok(()) => {
            account::client_came(home);
            home.0 | BOUND | FRESH
        }
        Err(EEXIST) => {
            account::release(home);
            AGAIN
        }
        Err(_) => {
            account::release(home);
            REFUSED | Reason::AffinityFull as u32
        }
    }
}

/// There is one already (include/uapi/asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// [`left`], as a global function. `at`: protocol and port, and [`CONFIRMED`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_left(backend: u32, at: u32, high: u64, low: u64) -> u32 {
    let Some(block) = POOLS.get(BackendId(backend).block()) else { return 0 };
    let own = key(group(block, PortBe(at as u16), Proto((at >> 16) as u8)), (high, low), block.client_bits);
    for _ in 0..opaque(2 * TRIES) {
        let Some((entry, seen)) = binding(&own) else { return 0 };
        let new = seen.less();
        if new == seen {
            return 0;
        }
        let new = if at & CONFIRMED != 0 { new.confirmed() } else { new };
        if exchange(entry, seen, if new.is_void() { new.gone() } else { new }) {
            if new.open() == 0 {
                account::client_went(seen.home());
            }
            if new.is_void() {
                // Ours to remove now, as in `forget`.
                let _ = AFFINITY.remove(own);
            } else {
                stamp(entry);
            }
            return 1;
        }
    }
    0
}

/// Forgets a client, if its binding is as it was seen and has no open flow, or whatever it has if `force`. True if this call did.
#[inline(always)]
pub fn forget(client: &AffinityKey, seen: Binding, force: bool) -> bool {
    let Some((entry, now)) = binding(client) else { return false };
    if now != seen || (now.open() != 0 && !force) || !exchange(entry, now, now.gone()) {
        return false;
    }
    if now.open() != 0 {
        account::client_went(now.home());
    }
    // Ours to remove now: nobody makes another under this key as long as this one is there.
    AFFINITY.remove(client).is_ok()
}
