//! The flow table: find, pin, track, remove. On the kernel's side nothing else touches it.
//!
//! Who may do what when is argued in `lb_common::flow_state`. Here: a flow's place on its backend is taken before the entry
//! is made and given back if it isn't, so that a count is never below the pins; both entries are removed by whoever moved the
//! state to `GONE`, the reply entry first, so that the key under which a successor would be made is free last.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use lb_common::{
    abi::{Addr, Backend, BackendId, CREATED_SHIFT, Direction, FlowKey, PortBe, Proto, Reason},
    flow_state::{Phase, Segment, Word, flags, moves_open, next},
};

pub use crate::table::{Entry, entry, find, same, visit};
use crate::{
    account,
    maps::Tables,
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
    let (direction, visit) = unsafe { ((*flow.at()).direction, (*flow.at()).track) };
    if direction == Direction::FORWARD { flow.seen.phase() == Phase::ESTABLISHED } else { visit == 0 }
}

/// Moves the state on as a TCP segment says. `flow` is the entry that was found; the other direction's is visited.
#[inline(never)]
pub fn track<V: Tables>(key: &FlowKey<V::Addr>, flow: Entry<V::Addr>, segment: &Segment) -> Step {
    // SAFETY: the pointer comes from a search in this run.
    let (direction, twin) = unsafe { ((*flow.at()).direction, key.twin(&*flow.at())) };
    if !same(flow) {
        return Step::Busy;
    }
    if direction == Direction::FORWARD {
        if flow.seen.phase() == Phase::GONE {
            return Step::Busy;
        }
        if flow.seen.phase() == Phase::RESET && !segment.opens() {
            return closed(segment);
        }
        if segment.opens() && !flow.seen.alive() {
            // The old connection is over, for the client at least; the new one is chosen for anew.
            return if remove::<V>(key, &twin, flow, flow.seen) { Step::Anew } else { Step::Busy };
        }
    }
    // Without its other half a flow is being made or removed at this instant; the sender will say it again.
    let Some(other) = visit::<V>(&twin) else { return Step::Belongs };
    if other.seen.tag() != flow.seen.tag() {
        return Step::Belongs;
    }
    if other.seen.phase() == Phase::RESET {
        return closed(segment);
    }
    let from_client = direction == Direction::FORWARD;
    let (forward, reply) = if from_client { (flow, other) } else { (other, flow) };
    if advance(forward, reply, segment, from_client) {
        // From now on replies visit the forward entry: their acknowledgements matter.
        // SAFETY: the pointer comes from a search in this run; one byte, only ever set.
        unsafe { (*reply.at()).track = 1 };
    }
    Step::Belongs
}

/// What a segment of a connection is to be answered with that the operator has closed. Who ends it himself is let through.
#[inline(always)]
fn closed(segment: &Segment) -> Step {
    if segment.flags & flags::RST != 0 { Step::Belongs } else { Step::Closed }
}

/// Closes a TCP connection: whoever says something from now on is answered with a RST. `state`: its word, of which only the
/// tag counts. True if this call closed it.
#[inline(never)]
pub fn close<V: Tables>(key: &FlowKey<V::Addr>, state: u64) -> bool {
    let Some(forward) = visit::<V>(key) else { return false };
    // SAFETY: the pointer comes from a search in this run.
    let twin = unsafe { key.twin(&*forward.at()) };
    if key.proto != Proto::TCP || forward.seen.tag() != Word(state).tag() || !forward.seen.counted() {
        return false;
    }
    // First, so that no reply is let through unseen once the state says that it is over.
    if let Some(reply) = visit::<V>(&twin)
        && reply.seen.tag() == forward.seen.tag()
    {
        // SAFETY: as above; one byte, only ever set.
        unsafe { (*reply.at()).track = 1 };
    }
    let mut old = forward.seen;
    for _ in 0..MOVES {
        match exchange(forward, old, old.with(Phase::RESET)) {
            Ok(()) => {
                // SAFETY: as above; the stamp is a whole word: it lingers from now on. The helper has no preconditions.
                unsafe {
                    (*forward.at()).last_seen = bpf_jiffies64() as u32;
                    account::ended((*forward.at()).backend, (*forward.at()).created);
                }
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
fn advance<A: Addr>(forward: Entry<A>, reply: Entry<A>, segment: &Segment, from_client: bool) -> bool {
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
                if old.counted() && !new.counted() {
                    // SAFETY: as above; both are written before the entry is made and never after.
                    unsafe { account::ended((*forward.at()).backend, (*forward.at()).created) };
                }
                return new.phase() == Phase::CLOSING && old.phase() != Phase::CLOSING;
            }
            Err(now) if now.tag() == old.tag() => old = now,
            Err(_) => return false,
        }
    }
    false
}

/// Moves the state to `GONE` if it is still `old`, and if so removes both entries. True if this call removed the flow.
#[inline(never)]
pub fn remove<V: Tables>(
    forward_key: &FlowKey<V::Addr>,
    reply_key: &FlowKey<V::Addr>,
    forward: Entry<V::Addr>,
    old: Word,
) -> bool {
    if exchange(forward, old, old.with(Phase::GONE)).is_err() {
        return false;
    }
    if old.counted() {
        // SAFETY: the pointer comes from a lookup in this run, and nobody else deletes the entry now.
        unsafe { account::ended((*forward.at()).backend, (*forward.at()).created) };
    }
    // The reply entry is ours unless its tag says otherwise (a flow whose reply entry couldn't be made has none).
    if let Some(reply) = visit::<V>(reply_key)
        && reply.seen.tag() == old.tag()
    {
        table::remove::<V>(reply_key);
    }
    table::remove::<V>(forward_key);
    true
}

/// Set in what [`pin`] returns if the rest is a [`Reason`].
pub const REFUSED: u32 = table::NOWHERE;

/// What a new flow starts as.
pub struct Opening {
    /// First phase.
    pub phase: Phase,
    /// The backend, with a place taken on it.
    pub backend: BackendId,
    /// Random bits.
    pub chance: u32,
    /// The flow's hash.
    pub hash: u32,
}

/// Random bits for a new flow.
#[inline(always)]
pub fn chance() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// Pins a flow. Takes over the place on the backend: whatever the outcome, it is accounted for.
///
/// Returns where the forward entry to go by is (see [`table`]): the new one, or that of another CPU which pinned the same flow
/// first; or a [`Reason`] with [`REFUSED`] set (a subprogram returns one register).
#[inline(never)]
pub fn pin<V: Tables>(key: &FlowKey<V::Addr>, backend: &Backend, opening: &Opening) -> u32 {
    let addr = V::address(backend);
    let port = if backend.port == PortBe(0) { key.dport } else { backend.port };
    let word = Word::new(opening.phase, (opening.chance as u64) << 16 | (opening.hash & 0xffff) as u64);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let (Some(to), Some(back)) = (table::scratch::<V>(table::FORWARD), table::scratch::<V>(table::REPLY))
    else {
        account::release(opening.backend);
        return REFUSED | Reason::Internal as u32;
    };
    // SAFETY: this CPU's own entries; programs on it don't preempt each other in softirq.
    let (to, back) = unsafe { (&mut *to, &mut *back) };
    to.state = word.0;
    (to.src, to.dst, to.sport, to.dport) = (key.src, key.dst, key.sport, key.dport);
    (to.proto, to.direction) = (key.proto, Direction::FORWARD);
    (to.nat_addr, to.nat_port) = (addr, port);
    back.state = Word::new(Phase(0), word.tag()).0;
    (back.src, back.dst, back.sport, back.dport) = (addr, key.src, port, key.sport);
    (back.proto, back.direction) = (key.proto, Direction::REPLY);
    (back.nat_addr, back.nat_port) = (key.dst, key.dport);
    for flow in [to, back] {
        (flow.last_seen, flow.created) = (now as u32, (now >> CREATED_SHIFT) as u32);
        flow.backend = opening.backend;
    }
    let forward = table::claim::<V>(table::FORWARD);
    if forward & REFUSED != 0 {
        account::release(opening.backend);
        // Another CPU was first: its choice stands.
        let found = if forward == table::EXISTS { table::locate_scratch::<V>() } else { forward };
        return if found & REFUSED == 0 { found } else { refusal(found) };
    }
    let reply = table::claim::<V>(table::REPLY);
    if reply & REFUSED != 0 {
        table::give_back::<V>(forward);
        account::release(opening.backend);
        return if reply == table::EXISTS { REFUSED | Reason::PortConflict as u32 } else { refusal(reply) };
    }
    if !table::publish::<V>(forward, reply) {
        account::release(opening.backend);
        return REFUSED | Reason::Internal as u32;
    }
    account::pinned(opening.backend);
    forward
}

/// Why an entry couldn't be made, as what [`pin`] returns.
#[inline(always)]
fn refusal(why: u32) -> u32 {
    REFUSED | if why == table::FULL { Reason::TableFull } else { Reason::FlowBusy } as u32
}

/// After [`pin`] said `PortConflict`: the client has used this port towards this backend by way of another VIP. If that flow
/// is closed and only lingers, it goes. True if it went, so that pinning may be tried again.
#[inline(never)]
pub fn make_room<V: Tables>(key: &FlowKey<V::Addr>, backend: &Backend) -> bool {
    let port = if backend.port == PortBe(0) { key.dport } else { backend.port };
    let reply_key = FlowKey::new(V::address(backend), key.src, port, key.sport, key.proto);
    let Some(reply) = visit::<V>(&reply_key) else { return true };
    // SAFETY: the pointer comes from a lookup in this run.
    let (direction, forward_key) = unsafe { ((*reply.at()).direction, reply_key.twin(&*reply.at())) };
    if direction != Direction::REPLY {
        return false;
    }
    let Some(forward) = visit::<V>(&forward_key) else {
        // A flow that is being made or removed at this instant.
        return false;
    };
    let over = forward.seen.phase() == Phase::CLOSED || forward.seen.phase() == Phase::RESET;
    over && remove::<V>(&forward_key, &reply_key, forward, forward.seen)
}
