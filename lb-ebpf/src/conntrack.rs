//! The flow table: find, pin, track, remove. On the kernel's side nothing else touches it.
//!
//! Who may do what when is argued in `lb_common::flow_state`. Here: a flow's place on its backend is taken before the entry
//! is made and given back if it isn't, so that a count is never below the pins; both entries are removed by whoever moved the
//! state to `GONE`, the reply entry first, so that the key under which a successor would be made is free last.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{Addr, CREATED_SHIFT, Direction, FlowKey, Proto, What, event::listen},
    flow_state::{Phase, Segment, Word, flags, moves_open},
};

mod moves;
mod numbers;
mod pin;
pub mod room;
pub mod waiting;

pub use self::pin::{Opening, Pin, chance, pin, tell_opened};
use self::{
    moves::{advance, follow, one_sided},
    numbers::{Believe, is_deserted},
    room::Room,
    waiting::Overdue,
};
pub use crate::table::{Entry, entry, entry_of, find, same, visit, visit_twin};
use crate::{
    account, affinity,
    events::{self, Tell},
    family::global_functions,
    maps::TICK_HZ,
    packet::copy,
    snat::{self, Ports, Reuse},
    spoken,
    table::{self, Claim, Locate, exchange},
};

/// What following flows stands on, of an IP version.
pub trait Tracked: Locate + Claim + Ports + Reuse + Tell + Unlink + Believe + Room + Overdue {}
impl<V: Locate + Claim + Ports + Reuse + Tell + Unlink + Believe + Room + Overdue> Tracked for V {}

global_functions! {
    /// Removing flows, as a global function.
    pub trait Unlink: Locate, Ports {
        /// Takes both entries of a flow out of the table, which the caller owns; gives its port back if it has one of ours. `forward`: where its forward
        /// entry lies; `state`: a word of the flow's; `spare`: room for a key.
        fn unlink(spare: FlowKey; forward: u32, state: u64) = take_out;
    }
}

/// Tries at moving a state word on before giving up. Each failure means that another CPU moved it; a connection has a handful of
/// moves in its life.
const MOVES: usize = 8;

/// What a TCP packet's flow entry means for the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// The packet belongs to the flow.
    Belongs = 0,
    /// A port used again: the old flow is to go, and a new one to be made.
    Anew = 1,
    /// The flow is being removed at this instant.
    Busy = 2,
    /// The operator has closed the connection: the sender is to be told.
    Closed = 3,
    /// The backend knows another connection by this 5-tuple, one past us: the flow is to be made anew, with another port of the client's.
    AnotherPort = 4,
    /// That connection would be ended by the packet, a RST: it goes no further.
    AnothersEnd = 5,
}

/// A flow that has stopped counting and is to be told of, by whoever calls [`tell`]: not where it is found out, deep down in the stack.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Ending {
    /// Its state until then; 0: there is none.
    word: u64,
    /// Where its forward entry lies.
    place: u32,
    /// What became of it: [`What`].
    what: u32,
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

/// Moves the state on as a TCP segment says. `flow` is the entry that was found; the other direction's is visited. `spare`: room for its key. Who
/// calls this [tells](tell) of what is `ending`.
#[inline(never)]
pub fn track<V: Tracked>(
    flow: Entry<V::Addr>,
    segment: &Segment,
    spare: &mut FlowKey<V::Addr>,
    ending: &mut Ending,
) -> Step {
    ending.word = 0;
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
            return Step::Anew;
        }
    }
    let waits = direction.is_forward() && flow.seen.phase() == Phase::SYN_SENT && !flow.seen.answered();
    if direction.is_direct() {
        if waits && segment.opens() {
            asked_again(flow);
        }
        one_sided::<V>(flow, segment, ending);
        return Step::Belongs;
    }
    // Without its other half a flow is being made or removed at this instant; the sender will say it again.
    let Some(other) = visit_twin::<V>(flow.at(), spare) else { return Step::Belongs };
    if other.seen.tag() != flow.seen.tag() {
        return Step::Belongs;
    }
    if other.seen.phase() == Phase::RESET {
        return closed(other, false, segment);
    }
    if waits {
        // The backend knows a connection by the port: another's (one past us, or with a port of the same address that a masquerade gave it), or an
        // earlier one of ours. When that comes again and again it is the latter, and the client's RST is to end it.
        if direction.tried() < Direction::TRIED_MAX && has_spoken(other) {
            if segment.opens() {
                return Step::AnotherPort;
            }
            if segment.flags & flags::RST != 0 {
                return Step::AnothersEnd;
            }
        }
        if segment.opens() {
            asked_again(flow);
        }
    }
    let from_client = direction.is_forward();
    if from_client
        && segment.opens()
        && flow.seen.phase() != Phase::SYN_SENT
        && is_deserted(flow, other, segment)
    {
        return Step::Anew;
    }
    let (forward, reply) = if from_client { (flow, other) } else { (other, flow) };
    if advance::<V>(forward, reply, segment, from_client, ending) {
        follow(reply, true);
    }
    Step::Belongs
}

/// Does a flow with this word only linger?
#[inline(always)]
pub fn is_over(word: Word) -> bool {
    word.phase() == Phase::CLOSED || word.phase() == Phase::RESET
}

/// Has the backend said anything on a flow? Before it has answered the SYN, that is about another connection, which it knows by the same 5-tuple: it
/// answers a SYN on such a one with a bare ACK (RFC 9293, section 3.10.7.4; RFC 5961, section 4).
#[inline(always)]
fn has_spoken<A: Addr>(reply: Entry<A>) -> bool {
    // SAFETY: the pointer comes from a search in this run; a whole word.
    unsafe { (*reply.at()).packets_low != 0 }
}

/// A client has said its SYN again, which the backend hasn't answered.
#[inline(always)]
fn asked_again<A: Addr>(forward: Entry<A>) {
    // SAFETY: the pointer comes from a search in this run; whole words.
    let (backend, last) = unsafe { ((*forward.at()).backend, (*forward.at()).last_seen) };
    account::asked_again(backend, last);
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
pub fn close<V: Tracked>(
    forward: Entry<V::Addr>,
    state: u64,
    spare: &mut FlowKey<V::Addr>,
    ending: &mut Ending,
) -> bool {
    // SAFETY: the pointer comes from a search in this run.
    let proto = unsafe { (*forward.at()).proto };
    if proto != Proto::TCP || forward.seen.tag() != Word(state).tag() || !forward.seen.counted() {
        return false;
    }
    // First, so that no reply is let through unseen once the state says that it is over.
    if let Some(reply) = visit_twin::<V>(forward.at(), spare)
        && reply.seen.tag() == forward.seen.tag()
    {
        follow(reply, true);
    }
    let mut old = forward.seen;
    for _ in 0..MOVES {
        match exchange(forward, old, old.with(Phase::RESET)) {
            Ok(()) => {
                // SAFETY: as above; the stamp is a whole word: it lingers from now on. The helper has no preconditions.
                unsafe { (*forward.at()).last_seen = bpf_jiffies64() as u32 };
                *ending = ended(forward, old.0, What::CLOSED, !old.phase().is_unconfirmed());
                return true;
            }
            Err(now) if now.tag() == old.tag() && now.counted() => old = now,
            Err(_) => return false,
        }
    }
    false
}

/// A flow has stopped counting: its place, and what its client's binding counts, are given back. Called by whoever moved the state, once. `word`: its state
/// until then; `confirmed`: somebody else than its client has said that it is there.
#[inline(always)]
fn ended<A: Addr>(forward: Entry<A>, word: u64, what: What, confirmed: bool) -> Ending {
    // SAFETY: the pointer comes from a search in this run; these are written before the entry is made and never after.
    unsafe {
        let flow = forward.at();
        account::ended((*flow).backend, (*flow).created);
        if Word(word).bound() {
            affinity::left((*flow).src.wide(), (*flow).dport, (*flow).proto, (*flow).backend, confirmed);
        }
    }
    Ending { word, place: forward.place, what: what.0 as u32 }
}

/// Tells of a flow that has stopped counting, if anybody wants to know. `spare`: room for a key.
#[inline(always)]
pub fn tell<V: Tracked>(ending: &Ending, spare: &mut FlowKey<V::Addr>) {
    if ending.word != 0 && events::followed(listen::ENDED) {
        V::tell(spare, ending.place, ending.word, ending.what);
    }
}

/// Has a client of a UDP flow said several things over more than a second? Many a server answers none of them.
#[inline(always)]
fn has_stayed<A: Addr>(forward: Entry<A>) -> bool {
    // SAFETY: the pointer comes from a search in this run; whole words.
    let (packets, last, created) =
        unsafe { ((*forward.at()).packets_low, (*forward.at()).last_seen, (*forward.at()).created) };
    let lasted = (last >> CREATED_SHIFT).wrapping_sub(created) & u32::MAX >> CREATED_SHIFT;
    packets > 2 && lasted > TICK_HZ.load() >> CREATED_SHIFT
}

/// Moves the state to `GONE` if it is still `old`, and if so removes both entries. True if this call removed the flow.
#[inline(always)]
pub fn remove<V: Tracked>(forward: Entry<V::Addr>, old: Word, spare: &mut FlowKey<V::Addr>) -> bool {
    // Only asked where it matters.
    let confirmed = match old.phase() {
        Phase::UDP => !old.bound() || V::rank(spare, forward.place, 0) == 0 || has_stayed(forward),
        phase => !phase.is_unconfirmed(),
    };
    if exchange(forward, old, old.with(Phase::GONE)).is_err() {
        return false;
    }
    if old.counted() {
        tell::<V>(&ended(forward, old.0, What::REMOVED, confirmed), spare);
    }
    V::unlink(spare, forward.place, old.0);
    true
}

#[inline(always)]
fn take_out<V: Locate + Ports>(spare: *mut FlowKey<V::Addr>, place: u32, state: u64) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(reply) = (unsafe { spare.as_mut() }) else { return 0 };
    let Some(forward) = entry_of::<V>(place, Word(state)) else { return 0 };
    // The reply entry is this flow's unless its tag says otherwise.
    let twin = visit_twin::<V>(forward.at(), reply).filter(|twin| twin.seen.tag() == forward.seen.tag());
    if let Some(twin) = twin {
        // SAFETY: the pointer comes from a search in this run. Whom a backend has never answered it isn't likely to tell anything.
        if unsafe { (*twin.at()).packets_low } != 0 {
            spoken::remember::<V>(reply, forward.at());
        }
        table::take_out::<V>(twin.place);
    }
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*forward.at()).direction };
    table::take_out::<V>(place);
    // Only now: who is given the port next must find no entry with it.
    if twin.is_some() && direction.is_full() && !direction.is_ported() {
        snat::give_back::<V>(reply);
    }
    1
}

/// Writes the 5-tuple with which packets of an entry leave. False: it is being removed.
#[inline(always)]
pub fn translated<V: Locate>(flow: Entry<V::Addr>, key: &mut FlowKey<V::Addr>) -> bool {
    // SAFETY: the pointers come from searches in this run.
    unsafe {
        if (*flow.at()).direction.is_full() {
            let Some(twin) = table::placed_twin::<V>(flow) else { return false };
            copy(&raw mut key.src, &raw const (*twin).dst);
            copy(&raw mut key.dst, &raw const (*twin).src);
            (key.sport, key.dport, key.proto) = ((*twin).dport, (*twin).sport, (*twin).proto);
            // Whose key it was that was read.
            return table::tagged(twin, flow.seen);
        }
        let forward = (*flow.at()).direction.is_forward();
        key.src = if forward { (*flow.at()).src } else { (*flow.at()).nat_addr };
        key.dst = if forward { (*flow.at()).nat_addr } else { (*flow.at()).dst };
        key.sport = if forward { (*flow.at()).sport } else { (*flow.at()).nat_port };
        key.dport = if forward { (*flow.at()).nat_port } else { (*flow.at()).dport };
        key.proto = (*flow.at()).proto;
    }
    true
}

/// Would answers to a packet with this 5-tuple be taken for those of a flow of ours, which it doesn't belong to?
#[inline(always)]
pub fn answers_to<V: Locate>(key: &FlowKey<V::Addr>, spare: &mut FlowKey<V::Addr>) -> bool {
    // SAFETY: two keys.
    unsafe {
        copy(&raw mut spare.src, &raw const key.dst);
        copy(&raw mut spare.dst, &raw const key.src);
    }
    (spare.sport, spare.dport, spare.proto) = (key.dport, key.sport, key.proto);
    // SAFETY: the pointer comes from a search in this run.
    visit::<V>(spare).is_some_and(|flow| !unsafe { (*flow.at()).direction }.is_forward())
}

/// Set in what [`pin`] returns if the rest is a [`Reason`].
pub const REFUSED: u32 = table::NOWHERE;
