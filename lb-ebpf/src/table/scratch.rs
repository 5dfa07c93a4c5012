//! Scratch entries: where a key is put that is to be looked for, since the stack has no room for it and global functions take nothing but
//! numbers; and where a new flow's entries are put together.

use lb_common::abi::{Addr as _, Flow, FlowKey, PortBe};

use super::{Entry, FORWARD, REPLY, alike, at, locate, state};
use crate::maps::Tables;

/// The other direction's entry, given one that was found in this run. Needs no room for a key on the stack.
#[inline(always)]
pub fn visit_twin<V: Tables>(flow: *const Flow<V::Addr>) -> Option<Entry<V::Addr>> {
    put_twin::<V>(flow)?;
    visit_scratch::<V>()
}

/// The entry of replies to a client's flow that comes from this address and port.
#[inline(always)]
pub fn visit_reply<V: Tables>(
    flow: &FlowKey<V::Addr>,
    addr: V::Addr,
    port: PortBe,
) -> Option<Entry<V::Addr>> {
    let scratch = scratch::<V>(FORWARD)?;
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    unsafe {
        (*scratch).src = addr;
        (*scratch).dst = flow.src;
        (*scratch).sport = port;
        (*scratch).dport = flow.sport;
        (*scratch).proto = flow.proto;
    }
    visit_scratch::<V>()
}

/// The entry with the first scratch entry's key.
#[inline(always)]
pub fn visit_scratch<V: Tables>() -> Option<Entry<V::Addr>> {
    lies::<V>(V::locate())
}

/// A flow's entry and that of the other direction, if it is there.
pub type Pair<A> = (Entry<A>, Option<Entry<A>>);

/// An entry and the other direction's, given the first scratch entry's key, which the former has. For a global function: a call less.
#[inline(always)]
pub fn both<V: Tables>() -> Option<Pair<V::Addr>> {
    let own = lies::<V>(locate::<V>())?;
    put_twin::<V>(own.at)?;
    Some((own, lies::<V>(locate::<V>())))
}

/// The entry with the first scratch entry's key, which lies there.
#[inline(always)]
fn lies<V: Tables>(place: u32) -> Option<Entry<V::Addr>> {
    let at = at::<V>(place)?;
    let seen = state(at);
    if seen.0 != 0 && alike(at, scratch::<V>(FORWARD)?) && state(at).tag() == seen.tag() {
        Some(Entry { at, seen })
    } else {
        None
    }
}

/// A scratch entry: [`FORWARD`] or [`REPLY`].
#[inline(always)]
pub fn scratch<V: Tables>(which: u32) -> Option<*mut Flow<V::Addr>> {
    V::scratch().get_ptr_mut(which)
}

/// Makes the key of the other direction's entry the scratch entry's.
#[inline(always)]
pub(super) fn put_twin<V: Tables>(flow: *const Flow<V::Addr>) -> Option<()> {
    // SAFETY: the pointer comes from a search in this run.
    if unsafe { (*flow).direction }.is_full() {
        return put_own::<V>(placed::<V>(flow)?);
    }
    let scratch = scratch::<V>(FORWARD)?;
    // SAFETY: the pointer comes from a search in this run; the scratch entry is this CPU's own.
    unsafe {
        let forward = (*flow).direction.is_forward();
        // As `FlowKey::twin`: the reply comes from where the forward packet goes, and goes to where it comes from.
        (*scratch).src = if forward { (*flow).nat_addr } else { (*flow).dst };
        (*scratch).dst = if forward { (*flow).src } else { (*flow).nat_addr };
        (*scratch).sport = if forward { (*flow).nat_port } else { (*flow).dport };
        (*scratch).dport = if forward { (*flow).sport } else { (*flow).nat_port };
        (*scratch).proto = (*flow).proto;
    }
    Some(())
}

/// The other direction's entry, given a full one that was found in this run, by where it lies. Whether it is (still) the same flow's says its tag.
#[inline(always)]
fn placed<V: Tables>(flow: *const Flow<V::Addr>) -> Option<*mut Flow<V::Addr>> {
    // SAFETY: the pointer comes from a search in this run.
    let twin = at::<V>(unsafe { (*flow).nat_addr }.place())?;
    if state(twin).tag() == state(flow).tag() { Some(twin) } else { None }
}

/// The other direction's entry, given a full one.
#[inline(always)]
pub fn placed_twin<V: Tables>(flow: Entry<V::Addr>) -> Option<*mut Flow<V::Addr>> {
    placed::<V>(flow.at)
}

/// Makes an entry's own key the first scratch entry's.
#[inline(always)]
pub(crate) fn put_own<V: Tables>(flow: *const Flow<V::Addr>) -> Option<()> {
    put_in::<V>(FORWARD, flow)
}

/// Makes the key of the other direction's entry, given a full one, the second scratch entry's.
#[inline(always)]
pub fn note_twin<V: Tables>(flow: *const Flow<V::Addr>) -> Option<()> {
    put_in::<V>(REPLY, placed::<V>(flow)?)
}

/// Makes an entry's own key a scratch entry's.
#[inline(always)]
fn put_in<V: Tables>(which: u32, flow: *const Flow<V::Addr>) -> Option<()> {
    let scratch = scratch::<V>(which)?;
    // SAFETY: the pointer comes from a search in this run; the scratch entry is this CPU's own.
    unsafe {
        (*scratch).src = (*flow).src;
        (*scratch).dst = (*flow).dst;
        (*scratch).sport = (*flow).sport;
        (*scratch).dport = (*flow).dport;
        (*scratch).proto = (*flow).proto;
    }
    Some(())
}

/// Tells the scratch entries of a full flow where each other's will lie.
#[inline(always)]
pub fn link<V: Tables>(forward: u32, reply: u32) -> Option<()> {
    let (to, back) = (scratch::<V>(FORWARD)?, scratch::<V>(REPLY)?);
    // SAFETY: this CPU's own entries; programs on it don't preempt each other in softirq.
    unsafe {
        (*to).nat_addr = V::Addr::from_place(reply);
        (*back).nat_addr = V::Addr::from_place(forward);
    }
    Some(())
}

/// Makes this the scratch entry's key.
#[inline(always)]
pub fn put_key<V: Tables>(key: &FlowKey<V::Addr>) -> Option<()> {
    let scratch = scratch::<V>(FORWARD)?;
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    unsafe {
        (*scratch).src = key.src;
        (*scratch).dst = key.dst;
        (*scratch).sport = key.sport;
        (*scratch).dport = key.dport;
        (*scratch).proto = key.proto;
    }
    Some(())
}
