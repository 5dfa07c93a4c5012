//! Pins a new flow: a place that was taken on its backend becomes entries, or is given back.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use lb_common::{
    abi::{
        Addr as _, BackendId, CREATED_SHIFT, Direction, FlowKey, PortBe, Reason, ServiceId, What,
        event::listen,
    },
    flow_state::{Phase, Segment, Word, flags, further},
};

use super::{REFUSED, Tracked};
use crate::{
    account, affinity, choose, events, family::global_functions, maps::OPENING, packet::copy, snat, table,
};

/// What a new flow starts as.
#[repr(C)]
pub struct Opening {
    /// The backend's address, as [`Addr::words`](lb_common::abi::Addr::words).
    pub addr: [u32; 4],
    /// First phase.
    pub phase: Phase,
    /// The backend, with a place taken on it.
    pub backend: BackendId,
    /// Random bits.
    pub chance: u32,
    /// The flow's hash.
    pub hash: u32,
    /// It counts in its client's binding.
    pub bound: bool,
    /// Port of the backend.
    pub port: PortBe,
    /// What may be in the way and only lingers has been removed.
    pub again: bool,
    /// The forward entry's direction, with what is done to packets.
    pub way: Direction,
    /// The service, if it has a limit as a whole; or else [`ServiceId::MAX`].
    pub limited: ServiceId,
}

/// Random bits for a new flow.
#[inline(always)]
pub fn chance() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

global_functions! {
    /// Pinning, as a global function.
    pub trait Pin: Tracked {
        /// See [`pin`].
        fn pin(;) = make;
    }
}

/// Pins a flow: that of the packet at hand, as [`OPENING`] says. Takes over the place on the backend: whatever the outcome, it is accounted for.
///
/// Returns where the forward entry to go by is (see [`table`]): the new one, or that of another CPU which pinned the same flow
/// first; or a [`Reason`] with [`REFUSED`] set (a subprogram returns one register).
#[inline(always)]
pub fn pin<V: Pin>(opening: Opening) -> u32 {
    let Some(own) = OPENING.get_ptr_mut(0) else { return REFUSED | Reason::Internal as u32 };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    unsafe { *own = opening };
    V::pin()
}

#[inline(always)]
fn make<V: Tracked>() -> u32 {
    let (Some(parsed), Some(opening)) = (V::parsed().get_ptr_mut(0), OPENING.get_ptr(0)) else {
        return REFUSED | Reason::Internal as u32;
    };
    // SAFETY: this CPU's own slots; programs on it don't preempt each other in softirq.
    let (parsed, opening) = unsafe { (&mut *parsed, &*opening) };
    let key = &parsed.key;
    if opening.limited != ServiceId::MAX && choose::is_beyond(opening.limited, 0) {
        back_out::<V>(key, opening);
        return REFUSED | Reason::BackendsFull as u32;
    }
    if !put_together::<V>(key, &parsed.segment, opening) {
        back_out::<V>(key, opening);
        return REFUSED | Reason::Internal as u32;
    }
    let forward = table::claim::<V>(table::FORWARD, table::NOWHERE);
    if forward & REFUSED != 0 {
        back_out::<V>(key, opening);
        // Another CPU was first: its choice stands.
        let found = if forward == table::EXISTS { V::locate((&raw const *key).cast_mut()) } else { forward };
        return if found & REFUSED == 0 { found } else { refusal(found) };
    }
    // Who answers past the node has no other entry.
    let reply = if opening.way.is_direct() { forward } else { claim_reply::<V>(opening, forward) };
    if reply & REFUSED != 0 {
        table::give_back::<V>(forward);
        back_out::<V>(key, opening);
        return refusal(reply);
    }
    if !table::publish::<V>(forward, reply) {
        back_out::<V>(key, opening);
        return REFUSED | Reason::Internal as u32;
    }
    account::pinned(opening.backend);
    forward
}

/// Tells of a flow that was just pinned, if anybody follows. `place`: what [`pin`] has returned.
#[inline(always)]
pub fn tell_opened<V: Tracked>(place: u32, spare: &mut FlowKey<V::Addr>) {
    if events::followed(listen::OPENED)
        && let Some(scratch) = table::scratch::<V>(table::FORWARD)
    {
        // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
        V::tell(spare, place, unsafe { (*scratch).state }, What::OPENED.0 as u32);
    }
}

/// Puts a flow's entries together in the scratch entries. `segment`: what the packet that opens it says, if it is TCP. False: there are none.
#[inline(never)]
fn put_together<V: Tracked>(key: &FlowKey<V::Addr>, segment: &Segment, opening: &Opening) -> bool {
    let (Some(to), Some(back)) = (table::scratch::<V>(table::FORWARD), table::scratch::<V>(table::REPLY))
    else {
        return false;
    };
    // SAFETY: this CPU's own entries; programs on it don't preempt each other in softirq.
    let (to, back) = unsafe { (&mut *to, &mut *back) };
    let (addr, port) = (V::Addr::from_words(opening.addr), opening.port);
    let provisional = opening.phase == Phase::PROVISIONAL;
    let word = Word::new(opening.phase, (opening.chance as u64) << 16 | (opening.hash & 0xffff) as u64)
        .bound_if(opening.bound)
        .finished_if(provisional && segment.flags & flags::FIN != 0);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    to.state = word.0;
    // SAFETY: the entries, the key and what is to be opened lie in different maps.
    unsafe {
        copy(&raw mut to.src, &raw const key.src);
        copy(&raw mut to.dst, &raw const key.dst);
        copy(&raw mut back.dst, &raw const key.src);
        copy(&raw mut back.nat_addr, &raw const key.dst);
    }
    (to.sport, to.dport) = (key.sport, key.dport);
    (to.proto, to.direction) = (key.proto, opening.way);
    (to.nat_addr, to.nat_port) = (addr, port);
    back.state = Word::new(Phase(0), word.tag()).0;
    (back.src, back.sport, back.dport) = (addr, port, key.sport);
    (back.proto, back.direction) = (key.proto, opening.way.reversed().tracked_if(provisional));
    back.nat_port = key.dport;
    // Pinned in the middle of a connection: it has been asked and answered, as far as anybody knows.
    let asked = if provisional { segment.ack } else { 0 };
    to.mark = asked;
    back.mark = if asked == 0 { 0 } else { further(asked, asked.wrapping_add(1)) };
    // Of a connection whose begin wasn't seen the backend will say how far its numbers have got.
    to.fin = match opening.phase {
        Phase::SYN_SENT => segment.after_syn(),
        Phase::PROVISIONAL if word.finished(true) => segment.end(),
        Phase::PROVISIONAL => segment.seq,
        _ => 0,
    };
    back.fin = 0;
    (to.asked_at, back.asked_at) = (0, now as u16);
    for flow in [to, back] {
        (flow.last_seen, flow.created) = (now as u32, (now >> CREATED_SHIFT) as u32);
        flow.backend = opening.backend;
    }
    true
}

/// Claims a lane for the reply entry. As [`table::claim`], or [`snat::NONE_LEFT`]. `forward`: where the forward entry will be.
#[inline(always)]
fn claim_reply<V: Tracked>(opening: &Opening, forward: u32) -> u32 {
    if opening.way.is_full() && !opening.way.is_ported() {
        // By lot the second time, so that it isn't the same.
        return snat::claim::<V>(if opening.again { opening.chance } else { opening.hash }, forward);
    }
    if !opening.way.is_ported() {
        let place = table::claim::<V>(table::REPLY, forward);
        if place != table::EXISTS || !opening.again {
            return place;
        }
    }
    // The backend knows a flow of the client's by this port: by another one then.
    let (Some(to), Some(back)) = (table::scratch::<V>(table::FORWARD), table::scratch::<V>(table::REPLY))
    else {
        return table::BUSY;
    };
    // SAFETY: this CPU's own entries; programs on it don't preempt each other in softirq.
    unsafe {
        (*to).direction = opening.way.ported();
        (*back).direction = Direction::REPLY.ported().tracked_if(opening.phase == Phase::PROVISIONAL);
    }
    snat::claim_another_port::<V>(opening.chance, forward)
}

/// Gives back what was taken for a flow that isn't pinned.
#[inline(never)]
fn back_out<V: Tracked>(key: &FlowKey<V::Addr>, opening: &Opening) {
    account::release(opening.backend);
    if opening.bound {
        affinity::left(key.src.wide(), key.dport, key.proto, opening.backend, false);
    }
}

/// Why an entry couldn't be made, as what [`pin`] returns.
#[inline(always)]
fn refusal(why: u32) -> u32 {
    let reason = match why {
        table::FULL => Reason::TableFull,
        table::EXISTS => Reason::PortConflict,
        snat::NONE_LEFT => Reason::NoSourcePort,
        _ => Reason::FlowBusy,
    };
    REFUSED | reason as u32
}
