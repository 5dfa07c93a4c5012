//! A new flow's entries: lanes are claimed, then filled, then published together. What makes it safe is said in [`super`].

use lb_common::{
    abi::{Addr, Flow, FlowKey},
    flow_state::Word,
    flow_table::{LANES, claimed, free, leaving_out, lowest, prefers_second, rest, with_tag},
};

use super::{
    BUSY, EXISTS, FORWARD, FULL, NOWHERE, REPLY, afresh, at, free_lane, head, is, lane,
    memory::{others_may_go_first, scratch},
    places, read, state, swap,
};
use crate::{
    atomic::compare_exchange_u64,
    family::global_functions,
    maps::Maps,
    packet::{copy, opaque},
};

/// Tries at an insertion. Each failure means that another CPU has just come to or gone from one of the two buckets.
const TRIES: u32 = 8;

/// Others were at it: try again. Not an outcome of [`claim`].
const AGAIN: u32 = NOWHERE + 4;

/// What the lanes of a set hold.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Lanes {
    /// Other keys.
    Others = 0,
    /// This key.
    This = 1,
    /// Something that isn't readable yet.
    Unknown = 2,
}

/// `own`: where the entry lies, or [`NOWHERE`], that this run has claimed already. It isn't readable yet, and has another key.
#[inline(never)]
fn look<V: Maps>(key: &FlowKey<V::Addr>, bucket: u32, set: u64, own: u32) -> Lanes {
    let mut set = if own >> 3 == bucket { leaving_out(set, own as usize & 7) } else { set };
    // Not unrolled, for the sake of the stack.
    for _ in 0..opaque(LANES) {
        if set == 0 {
            break;
        }
        let Some(flow) = lane::<V>(bucket, lowest(set)) else { break };
        if state(flow).0 == 0 {
            return Lanes::Unknown;
        }
        if is(flow, afresh(key)) {
            return Lanes::This;
        }
        set = rest(set);
    }
    Lanes::Others
}

global_functions! {
    /// Claiming, as a global function.
    pub trait Claim: Maps {
        /// One try at claiming a lane for a scratch entry.
        fn try_claim(; which: u32, own: u32) = attempt;
    }
}

/// Claims a lane for a scratch entry, if there is no entry with its key. Where it is, or [`EXISTS`], [`FULL`] or [`BUSY`].
///
/// Until it is [published](publish) nobody sees the entry. Who tries to make another one with this key is told `BUSY`.
///
/// `own`: what this run has claimed already, or [`NOWHERE`]. A flow's two keys may have the same tag and a bucket in common.
#[inline(always)]
pub fn claim<V: Claim>(which: u32, own: u32) -> u32 {
    for _ in 0..opaque(TRIES as usize) {
        let outcome = V::try_claim(which, own);
        if outcome != AGAIN {
            return outcome;
        }
    }
    BUSY
}

#[inline(always)]
fn attempt<V: Maps>(which: u32, mine: u32) -> u32 {
    let Some(scratch) = scratch::<V>(which) else { return BUSY };
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    let key = unsafe { &*Flow::key_in_place(scratch) };
    let place = places::<V>(key);
    let (Some(first), Some(second)) = (head::<V>(place.first), head::<V>(place.second)) else {
        return BUSY;
    };
    let (here, there) = (read(first), read(second));
    let mut seen = look::<V>(key, place.first, with_tag(here, place.tag), mine);
    if seen == Lanes::Others {
        seen = look::<V>(key, place.second, with_tag(there, place.tag), mine);
    }
    match seen {
        Lanes::Unknown => return AGAIN,
        Lanes::This => return EXISTS,
        Lanes::Others => {}
    }
    let elsewhere = prefers_second(here, there);
    let (bucket, besides) = if elsewhere { (place.second, place.first) } else { (place.first, place.second) };
    let before = if elsewhere { there } else { here };
    let set = free(before);
    if set == 0 {
        return FULL;
    }
    let number = lowest(set);
    let Some(own) = head::<V>(bucket) else { return BUSY };
    others_may_go_first();
    // SAFETY: a word of an array map; all writers use atomics.
    if unsafe { compare_exchange_u64(own, before, claimed(before, number, place.tag)) } != before {
        return AGAIN;
    }
    if let Some(other) = head::<V>(besides)
        && bucket != besides
        && look::<V>(key, besides, with_tag(read(other), place.tag), mine) != Lanes::Others
    {
        free_lane(own, number);
        return BUSY;
    }
    bucket << 3 | number as u32
}

/// Makes the two scratch entries the entries of a new flow, in lanes that were claimed for them: for others they appear whole,
/// the reply entry first. If both have the same place there is only the forward entry. False: there are no such lanes.
#[inline(always)]
pub fn publish<V: Maps>(forward: u32, reply: u32) -> bool {
    let (Some(to), Some(back)) = (at::<V>(forward), at::<V>(reply)) else { return false };
    let (Some(first), Some(second)) = (scratch::<V>(FORWARD), scratch::<V>(REPLY)) else { return false };
    // SAFETY: this CPU's own entries; programs on it don't preempt each other in softirq.
    if unsafe { (*first).direction }.is_full() {
        // Each says where the other lies.
        // SAFETY: as above.
        unsafe {
            (*first).nat_addr = V::Addr::from_place(reply);
            (*second).nat_addr = V::Addr::from_place(forward);
        }
    }
    let word = fill(to, first);
    if forward == reply {
        let _ = swap(to, Word(0), word);
        return true;
    }
    let other = fill(back, second);
    // A full barrier: whoever sees either state sees all that was written before. One is enough, and after it the lanes' lines
    // are here, which are seldom so before: that's what takes time.
    let _ = swap(back, Word(0), other);
    others_may_go_first();
    // SAFETY: a lane that this run has claimed. Volatile: a whole word.
    unsafe { (&raw mut (*to).state).write_volatile(word.0) };
    true
}

/// Copies a scratch entry into a lane that this run has claimed, except for the state, which is returned.
#[inline(always)]
fn fill<A: Addr>(entry: *mut Flow<A>, scratch: *const Flow<A>) -> Word {
    // SAFETY: this CPU's own entry, and a lane that nobody else reads or writes while its state is 0.
    unsafe {
        let flow = &*scratch;
        copy(&raw mut (*entry).src, &raw const flow.src);
        others_may_go_first();
        copy(&raw mut (*entry).dst, &raw const flow.dst);
        copy(&raw mut (*entry).nat_addr, &raw const flow.nat_addr);
        (*entry).sport = flow.sport;
        (*entry).dport = flow.dport;
        (*entry).proto = flow.proto;
        (*entry).direction = flow.direction;
        (*entry).asked_at = flow.asked_at;
        (*entry).mark = flow.mark;
        (*entry).nat_port = flow.nat_port;
        (*entry).packets_high = 0;
        (*entry).packets_low = 0;
        (*entry).bytes = 0;
        (*entry).last_seen = flow.last_seen;
        (*entry).created = flow.created;
        (*entry).backend = flow.backend;
        (*entry).fin = flow.fin;
        Word(flow.state)
    }
}

/// Gives a lane back that was claimed and not published.
#[inline(always)]
pub fn give_back<V: Maps>(place: u32) {
    if let Some(head) = head::<V>(place >> 3) {
        free_lane(head, place as usize & 7);
    }
}
