//! The flow table: find, pin, track, remove. On the kernel's side nothing else touches it.
//!
//! Who may do what when is argued in `lb_common::flow_state`. Here: a flow's place on its backend is taken before the entry
//! is made and given back if it isn't, so that a count is never below the pins; both entries are removed by whoever moved the
//! state to `GONE`, the reply entry first, so that the key under which a successor would be made is free last.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{Addr, Flow, FlowKey, Proto, V4, V6, What},
    flow_state::{Phase, Segment, Word, flags, moves_open, next, next_one_sided},
};

mod pin;

pub use self::pin::{Opening, chance, make_room, pin};
pub use crate::table::{Entry, entry, find, put_key, same, visit, visit_scratch, visit_twin};
use crate::{
    account::{self, Sign},
    affinity, events,
    maps::Tables,
    snat,
    table::{self, exchange},
};

/// Tries at moving a state word on before giving up. Each failure means that another CPU moved it; a connection has a handful of
/// moves in its life.
const MOVES: usize = 8;

/// What a TCP packet's flow entry means for the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// The packet belongs to the flow.
    Belongs = 0,
    /// A port used again: the old flow is gone, a new one is to be made.
    Anew = 1,
    /// The flow is being removed at this instant.
    Busy = 2,
    /// The operator has closed the connection: the sender is to be told.
    Closed = 3,
}

/// Is there nothing to track in a segment? True for nearly every packet of an open connection.
#[inline(always)]
pub fn settled<A: Addr>(flow: Entry<A>, segment: &Segment) -> bool {
    if moves_open(segment.flags) {
        return false;
    }
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    if direction.is_forward() { flow.seen.phase() == Phase::ESTABLISHED } else { !direction.is_tracked() }
}

/// Moves the state on as a TCP segment says. `flow` is the entry that was found; the other direction's is visited.
#[inline(never)]
pub fn track<V: Tables>(flow: Entry<V::Addr>, segment: &Segment) -> Step {
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    if !same(flow) {
        return Step::Busy;
    }
    if direction.is_forward() {
        if flow.seen.phase() == Phase::GONE {
            return Step::Busy;
        }
        if flow.seen.phase() == Phase::RESET && !segment.opens() {
            return closed(flow, true, segment);
        }
        if segment.opens() && !flow.seen.alive() {
            // The old connection is over, for the client at least; the new one is chosen for anew.
            return if remove::<V>(flow, flow.seen) { Step::Anew } else { Step::Busy };
        }
        if segment.opens() && flow.seen.phase() == Phase::SYN_SENT && !flow.seen.answered() {
            // SAFETY: as above; a whole word.
            let (backend, last) = unsafe { ((*flow.at()).backend, (*flow.at()).last_seen) };
            account::asked_again(backend, last);
        }
    }
    if direction.is_direct() {
        one_sided::<V>(flow, segment);
        return Step::Belongs;
    }
    // Without its other half a flow is being made or removed at this instant; the sender will say it again.
    let Some(other) = visit_twin::<V>(flow.at()) else { return Step::Belongs };
    if other.seen.tag() != flow.seen.tag() {
        return Step::Belongs;
    }
    if other.seen.phase() == Phase::RESET {
        return closed(other, false, segment);
    }
    let from_client = direction.is_forward();
    let (forward, reply) = if from_client { (flow, other) } else { (other, flow) };
    if advance::<V>(forward, reply, segment, from_client) {
        // From now on replies visit the forward entry: their acknowledgements matter.
        // SAFETY: the pointer comes from a search in this run; one byte, only ever set.
        unsafe { (*reply.at()).direction = (*reply.at()).direction.tracked() };
    }
    Step::Belongs
}

/// What a segment of a connection is to be answered with that the agent has closed. Who ends it himself is let through; in any case he knows.
#[inline(always)]
fn closed<A: Addr>(forward: Entry<A>, client: bool, segment: &Segment) -> Step {
    // Should the word move at this instant, the sweeper asks once more.
    let _ = exchange(forward, forward.seen, forward.seen.told(client));
    if segment.flags & flags::RST != 0 { Step::Belongs } else { Step::Closed }
}

/// Closes a TCP connection: whoever says something from now on is answered with a RST. `state`: its word, of which only the
/// tag counts. True if this call closed it.
#[inline(never)]
pub fn close<V: Tables>(forward: Entry<V::Addr>, state: u64) -> bool {
    // SAFETY: the pointer comes from a search in this run.
    let proto = unsafe { (*forward.at()).proto };
    if proto != Proto::TCP || forward.seen.tag() != Word(state).tag() || !forward.seen.counted() {
        return false;
    }
    // First, so that no reply is let through unseen once the state says that it is over.
    if let Some(reply) = visit_twin::<V>(forward.at())
        && reply.seen.tag() == forward.seen.tag()
    {
        // SAFETY: the pointer comes from a search in this run; one byte, only ever set.
        unsafe { (*reply.at()).direction = (*reply.at()).direction.tracked() };
    }
    let mut old = forward.seen;
    for _ in 0..MOVES {
        match exchange(forward, old, old.with(Phase::RESET)) {
            Ok(()) => {
                // SAFETY: as above; the stamp is a whole word: it lingers from now on. The helper has no preconditions.
                unsafe { (*forward.at()).last_seen = bpf_jiffies64() as u32 };
                ended::<V>(forward.at(), old.0, What::CLOSED);
                return true;
            }
            Err(now) if now.tag() == old.tag() && now.counted() => old = now,
            Err(_) => return false,
        }
    }
    false
}

/// Moves a forward entry's state on. True if the connection has just begun to close.
#[inline(always)]
fn advance<V: Tables>(
    forward: Entry<V::Addr>,
    reply: Entry<V::Addr>,
    segment: &Segment,
    from_client: bool,
) -> bool {
    if segment.flags & flags::FIN != 0 {
        let from = if from_client { forward } else { reply };
        // Written before the state says that it is valid. Two FINs of one side carry the same number, or the later one counts.
        // SAFETY: the pointer comes from a lookup in this run; a whole word.
        unsafe { (*from.at()).fin = segment.end() };
    }
    let mut old = forward.seen;
    for _ in 0..MOVES {
        // SAFETY: as above.
        let new = unsafe { next(old, from_client, segment, (*forward.at()).fin, (*reply.at()).fin) };
        if new == old {
            return false;
        }
        match exchange(forward, old, new) {
            Ok(()) => {
                let reset = segment.flags & flags::RST != 0;
                if old.phase() == Phase::SYN_SENT && new.phase() != Phase::SYN_SENT && reset != from_client {
                    let sign = if reset { Sign::Refused } else { Sign::Accepted };
                    // SAFETY: as above.
                    account::sign(unsafe { (*forward.at()).backend }, sign);
                }
                if old.counted() && !new.counted() {
                    let what = match (reset, from_client) {
                        (false, _) => What::FINISHED,
                        (true, true) => What::CLIENT_RESET,
                        (true, false) => What::BACKEND_RESET,
                    };
                    ended::<V>(forward.at(), old.0, what);
                }
                return new.phase() == Phase::CLOSING && old.phase() != Phase::CLOSING;
            }
            Err(now) if now.tag() == old.tag() => old = now,
            Err(_) => return false,
        }
    }
    false
}

/// Moves the state on of a flow whose backend answers past the node.
#[inline(always)]
fn one_sided<V: Tables>(forward: Entry<V::Addr>, segment: &Segment) {
    let old = forward.seen;
    let new = next_one_sided(old, segment);
    // Should another packet be at it at this instant: it is the same client's, who says it again if it matters.
    if new == old || exchange(forward, old, new).is_err() {
        return;
    }
    if new.phase() == Phase::ESTABLISHED {
        // SAFETY: the pointer comes from a search in this run.
        account::sign(unsafe { (*forward.at()).backend }, Sign::Accepted);
    }
    if old.counted() && !new.counted() {
        let reset = segment.flags & flags::RST != 0;
        ended::<V>(forward.at(), old.0, if reset { What::CLIENT_RESET } else { What::FINISHED });
    }
}

/// A flow has stopped counting: what follows from it. `forward`: its forward entry, found in this run; `word`: its state until now. Called
/// by whoever moved the state, once.
#[inline(never)]
fn ended<V: Tables>(forward: *const Flow<V::Addr>, word: u64, what: What) {
    // SAFETY: the pointer comes from a search in this run; these are written before the entry is made and never after.
    let (client, backend, created) = unsafe { ((*forward).src, (*forward).backend, (*forward).created) };
    account::ended(backend, created);
    if Word(word).bound() {
        affinity::left(client, backend);
    }
    if events::followed() {
        events::tell::<V>(forward, what);
    }
}

/// Moves the state to `GONE` if it is still `old`, and if so removes both entries. True if this call removed the flow.
#[inline(never)]
pub fn remove<V: Tables>(forward: Entry<V::Addr>, old: Word) -> bool {
    if exchange(forward, old, old.with(Phase::GONE)).is_err() {
        return false;
    }
    if old.counted() {
        ended::<V>(forward.at(), old.0, What::REMOVED);
    }
    unlink::<V>(forward.at());
    true
}

/// Takes a flow's entries out of the table, and gives its port back if it has one of ours. The caller owns them.
#[inline(always)]
fn unlink<V: Tables>(forward: *const Flow<V::Addr>) {
    if table::put_own::<V>(forward).is_some() {
        V::unlink();
    }
}

/// [`unlink`], of the flow whose forward entry has the first scratch entry's key.
#[inline(always)]
fn take_out<V: Tables>() {
    let Some(forward) = visit_scratch::<V>() else { return };
    // SAFETY: the pointer comes from a search in this run.
    let ours =
        unsafe { (*forward.at()).direction }.is_full() && table::note_twin::<V>(forward.at()).is_some();
    table::remove::<V>(forward.at(), forward.seen);
    // Only now: who is given the port next must find no entry with it.
    if ours {
        snat::give_back::<V>();
    }
}

/// [`unlink`], as a global function for the kernel, IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_unlink4() -> u32 {
    take_out::<V4>();
    0
}

/// [`unlink`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_unlink6() -> u32 {
    take_out::<V6>();
    0
}

/// The 5-tuple with which packets of an entry leave; `None`: it is being removed.
#[inline(always)]
pub fn translated<V: Tables>(flow: Entry<V::Addr>) -> Option<FlowKey<V::Addr>> {
    // SAFETY: the pointers come from searches in this run.
    unsafe {
        if !(*flow.at()).direction.is_full() {
            return Some((*flow.at()).translated());
        }
        let twin = table::placed_twin::<V>(flow)?;
        let key = (*twin).key().turned();
        // Whose key it was that was read.
        if table::tagged(twin, flow.seen) { Some(key) } else { None }
    }
}

/// Set in what [`pin`] returns if the rest is a [`Reason`].
pub const REFUSED: u32 = table::NOWHERE;
