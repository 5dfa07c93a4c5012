//! Room in a full table, also when no agent sweeps it: a new flow takes the place of one that is over and only lingers, or, where there is
//! none, of one that its client has only begun. Open connections never give way.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{Addr, Flow, FlowKey},
    expiry::idle,
    flow_state::Phase,
    flow_table::{LANES, count, free},
};

use super::{Entry, Tracked, is_over, remove};
use crate::{
    family::global_functions,
    maps::TICK_HZ,
    packet::opaque,
    table::{self, Locate, NOWHERE, entry_at, visit_twin},
};

/// What goes first, whatever its age.
pub const OVER: u32 = 1 << 31;
/// Seconds after which a client is taken to be gone that has closed its side of a connection whose other side isn't seen.
const LISTENING: u32 = 10;

global_functions! {
    /// Looking at who could make room, as a global function.
    pub trait Rank: Locate {
        /// How much sooner than others the flow gives way whose entry lies there: 0, not at all.
        fn rank(spare: FlowKey; place: u32, now: u32) = rank;
    }
}

global_functions! {
    /// Looking for room, as a global function.
    pub trait Room: Rank {
        /// Of the flows in the two buckets that the key of a scratch entry belongs in: where an entry lies of the one to give way.
        /// [`NOWHERE`]: there is none, or there is room.
        fn giving_way(spare: FlowKey; which: u32) = giving_way;
    }
}

/// See [`Room`].
#[inline(always)]
fn giving_way<V: Rank>(spare: *mut FlowKey<V::Addr>, which: u32) -> u32 {
    let Some(scratch) = table::scratch::<V>(which) else { return NOWHERE };
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    let place = table::places::<V>(unsafe { &*Flow::key_in_place(scratch) });
    let (Some(first), Some(second)) = (table::head_of::<V>(place.first), table::head_of::<V>(place.second))
    else {
        return NOWHERE;
    };
    let beside = if place.first == place.second { 0 } else { count(free(second)) };
    // The reply entry may belong in the forward entry's buckets, where one place is that one's.
    if count(free(first)) + beside > (which == table::REPLY) as u64 {
        return NOWHERE;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() } as u32;
    let (mut victim, mut best) = (NOWHERE, 0);
    for i in 0..opaque(2 * LANES) as u32 {
        let (bucket, lane) =
            if i < LANES as u32 { (place.first, i) } else { (place.second, i - LANES as u32) };
        let at = bucket << 3 | lane;
        let rank = V::rank(spare, at, now);
        if rank > best {
            (victim, best) = (at, rank);
        }
    }
    victim
}

/// The entries of a flow; one whose replies go past the node has no second.
struct Entries<A: Addr> {
    forward: Entry<A>,
    reply: Option<Entry<A>>,
}

/// Those of an entry's flow. `None`: it is being made or removed at this instant.
#[inline(always)]
fn both<V: Locate>(entry: Entry<V::Addr>, spare: &mut FlowKey<V::Addr>) -> Option<Entries<V::Addr>> {
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*entry.at()).direction };
    if direction.is_direct() {
        return Some(Entries { forward: entry, reply: None });
    }
    let twin = visit_twin::<V>(entry.at(), spare).filter(|twin| twin.seen.tag() == entry.seen.tag())?;
    let (forward, reply) = if direction.is_forward() { (entry, twin) } else { (twin, entry) };
    Some(Entries { forward, reply: Some(reply) })
}

/// See [`Rank`].
#[inline(always)]
fn rank<V: Locate>(spare: *mut FlowKey<V::Addr>, place: u32, now: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(spare) = (unsafe { spare.as_mut() }) else { return 0 };
    let Some(Entries { forward, reply }) = entry_at::<V>(place).and_then(|entry| both::<V>(entry, spare))
    else {
        return 0;
    };
    // SAFETY: the pointer comes from a search in this run; whole words.
    let (silent, direct) =
        unsafe { (idle(now, (*forward.at()).last_seen), (*forward.at()).direction.is_direct()) };
    let age = silent & (OVER - 1) | 1;
    match forward.seen.phase() {
        // Its client may have closed its own side only, and go on listening.
        Phase::CLOSED if direct && silent < TICK_HZ.load() * LISTENING => 0,
        Phase::CLOSED if direct => age,
        _ if is_over(forward.seen) => OVER | age,
        phase if phase.is_unconfirmed() => age,
        Phase::UDP if unanswered(forward, reply) => age,
        _ => 0,
    }
}

/// Has a UDP flow no answer yet? Where answers go past the node, who says a second thing is taken to have had one.
#[inline(always)]
fn unanswered<A: Addr>(forward: Entry<A>, reply: Option<Entry<A>>) -> bool {
    // SAFETY: the pointers come from searches in this run; whole words.
    unsafe { reply.map_or((*forward.at()).packets_low <= 1, |reply| (*reply.at()).packets_low == 0) }
}

/// Removes the flow that an entry there is of, if it gives way.
#[inline(always)]
pub fn dismiss<V: Tracked>(place: u32, spare: &mut FlowKey<V::Addr>) {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() } as u32;
    let found = entry_at::<V>(place).and_then(|entry| both::<V>(entry, spare));
    // Once more: it may have been answered meanwhile. Asked of a function by itself, where older verifiers keep sight of the pointers.
    if let Some(Entries { forward, .. }) = found
        && V::rank(spare, forward.place, now) != 0
    {
        remove::<V>(forward, forward.seen, spare);
    }
}

/// Makes room for the two scratch entries.
#[inline(always)]
pub fn make<V: Tracked>(spare: &mut FlowKey<V::Addr>) {
    for which in 0..opaque(2) as u32 {
        let place = V::giving_way(spare, which);
        dismiss::<V>(place, spare);
        // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
        if table::scratch::<V>(table::FORWARD).is_none_or(|flow| unsafe { (*flow).direction }.is_direct()) {
            return;
        }
    }
}
