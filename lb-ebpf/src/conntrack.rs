//! The flow table: find, pin, track, remove. On the kernel's side nothing else touches it.
//!
//! Who may do what when is argued in `lb_common::flow_state`. Here: a flow's place on its backend is taken before the entry
//! is made and given back if it isn't, so that a count is never below the pins; both entries are removed by whoever moved the
//! state to `GONE`, the reply entry first, so that the key under which a successor would be made is free last.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64},
};
use lb_common::{
    abi::{Addr, Backend, BackendId, Direction, Flow, FlowKey, PortBe, Reason},
    flow_state::{Phase, Segment, Word, flags, moves_open, next},
};

use crate::{
    account,
    atomic::compare_exchange_u64,
    maps::Tables,
    rewrite::{addr_delta, port_delta},
};

/// Tries at moving a state word on before giving up. Each failure means that another CPU moved it; a connection has a handful of
/// moves in its life.
const MOVES: usize = 8;
/// What the kernel says of `BPF_NOEXIST` on a key that is there (include/uapi/asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// An entry of a flow table, found in this run of the program. Its memory stays readable for the run; it may be given to another
/// flow meanwhile, which the state's tag tells.
pub struct Entry<A: Addr>(pub(crate) *mut Flow<A>);

impl<A: Addr> Clone for Entry<A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<A: Addr> Copy for Entry<A> {}

/// The entry for a packet with this key.
#[inline(always)]
pub fn find<V: Tables>(key: &FlowKey<V::Addr>) -> Option<Entry<V::Addr>> {
    V::flows().get_ptr_mut(key).map(Entry)
}

/// The state of a forward entry.
#[inline(always)]
pub fn word<A: Addr>(flow: Entry<A>) -> Word {
    // SAFETY: the pointer comes from a lookup in this run. Volatile: other CPUs write meanwhile; a whole word is read.
    Word(unsafe { (&raw const (*flow.0).state).read_volatile() })
}

/// Moves the state from `old` to `new`. `Err`: somebody else moved it, to this. Memory that has since been given to another
/// flow is recognised by the word's tag.
#[inline(always)]
fn exchange<A: Addr>(flow: Entry<A>, old: Word, new: Word) -> Result<(), Word> {
    // SAFETY: the pointer comes from a lookup in this run; the field is 8-byte aligned and only written atomically.
    match unsafe { compare_exchange_u64(&raw mut (*flow.0).state, old.0, new.0) } {
        seen if seen == old.0 => Ok(()),
        seen => Err(Word(seen)),
    }
}

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
}

/// Is there nothing to track in a segment? True for nearly every packet of an open connection.
#[inline(always)]
pub fn settled<A: Addr>(flow: Entry<A>, segment: &Segment) -> bool {
    if moves_open(segment.flags) {
        return false;
    }
    // SAFETY: the pointer comes from a lookup in this run.
    let (direction, visit) = unsafe { ((*flow.0).direction, (*flow.0).track) };
    if direction == Direction::FORWARD { word(flow).phase() == Phase::ESTABLISHED } else { visit == 0 }
}

/// Moves the state on as a TCP segment says. `flow` is the entry that was found; a reply visits the forward entry.
#[inline(never)]
pub fn track<V: Tables>(key: &FlowKey<V::Addr>, flow: Entry<V::Addr>, segment: &Segment) -> Step {
    // SAFETY: the pointer comes from a lookup in this run; the entry is read before the next lookup.
    let (direction, twin) = unsafe { ((*flow.0).direction, key.twin(&*flow.0)) };
    if direction == Direction::FORWARD {
        let word = word(flow);
        if word.phase() == Phase::GONE {
            return Step::Busy;
        }
        if segment.opens() && !word.alive() {
            // The old connection is over, for the client at least; the new one is chosen for anew.
            return if remove::<V>(key, &twin, flow, word) { Step::Anew } else { Step::Busy };
        }
        if advance(flow, segment, true)
            && let Some(reply) = find::<V>(&twin)
        {
            watch(reply);
        }
    } else if let Some(forward) = find::<V>(&twin)
        && advance(forward, segment, false)
    {
        watch(flow);
    }
    Step::Belongs
}

/// From now on replies visit the forward entry: their acknowledgements matter.
#[inline(always)]
fn watch<A: Addr>(reply: Entry<A>) {
    // SAFETY: the pointer comes from a lookup in this run; one byte, only ever set.
    unsafe { (*reply.0).track = 1 };
}

/// Moves a forward entry's state on. True if the connection has just begun to close.
#[inline(always)]
fn advance<A: Addr>(forward: Entry<A>, segment: &Segment, from_client: bool) -> bool {
    if segment.flags & flags::FIN != 0 {
        // Written before the state says that it is valid. Two FINs of one side carry the same number, or the later one counts.
        // SAFETY: the pointer comes from a lookup in this run; whole words.
        unsafe {
            if from_client {
                (*forward.0).fin_client = segment.end();
            } else {
                (*forward.0).fin_backend = segment.end();
            }
        }
    }
    let mut old = word(forward);
    for _ in 0..MOVES {
        // SAFETY: as above.
        let new =
            unsafe { next(old, from_client, segment, (*forward.0).fin_client, (*forward.0).fin_backend) };
        if new == old {
            return false;
        }
        match exchange(forward, old, new) {
            Ok(()) => {
                if old.counted() && !new.counted() {
                    // SAFETY: as above; both are written before the entry is made and never after.
                    unsafe { account::ended((*forward.0).backend, (*forward.0).created) };
                }
                return new.phase() == Phase::CLOSING && old.phase() != Phase::CLOSING;
            }
            Err(now) => old = now,
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
        unsafe { account::ended((*forward.0).backend, (*forward.0).created) };
    }
    // The reply entry is ours unless its tag says otherwise (a flow whose reply entry couldn't be made has none).
    if let Some(reply) = find::<V>(reply_key)
        && word(reply).tag() == old.tag()
    {
        let _ = V::flows().remove(reply_key);
    }
    let _ = V::flows().remove(forward_key);
    true
}

/// [`pin`] went well.
pub const PINNED: u32 = u32::MAX;

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

/// Pins a flow. Takes over the place on the backend: whatever the outcome, it is accounted for. After `PINNED` the entry to go
/// by is there: the new one, or that of another CPU which pinned the same flow first.
///
/// Returns [`PINNED`], or a [`Reason`] as a number (a subprogram returns one register).
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value they would be copied to the stack, which is short"
)]
pub fn pin<V: Tables>(key: &FlowKey<V::Addr>, backend: &Backend, opening: &Opening) -> u32 {
    let addr = V::address(backend);
    let port = if backend.port == PortBe(0) { key.dport } else { backend.port };
    let word = Word::new(opening.phase, (opening.chance as u64) << 16 | (opening.hash & 0xffff) as u64);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let Some(scratch) = V::scratch().get_ptr_mut(0) else {
        account::release(opening.backend);
        return Reason::Internal as u32;
    };
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    let flow = unsafe { &mut *scratch };
    *flow = Flow {
        state: word.0,
        packets: 0,
        bytes: 0,
        created: now,
        last_seen: now as u32,
        backend: opening.backend,
        nat_addr: addr,
        nat_port: port,
        direction: Direction::FORWARD,
        track: 0,
        fin_client: 0,
        fin_backend: 0,
        addr_delta: addr_delta(key.dst, addr),
        port_delta: port_delta(key.dport, port),
        _fill: Default::default(),
    };
    let table = V::flows();
    if let Err(error) = table.insert(key, &*flow, BPF_NOEXIST as u64) {
        account::release(opening.backend);
        // Another CPU was first: its choice stands.
        return if error == EEXIST { PINNED } else { Reason::TableFull as u32 };
    }
    let twin = FlowKey::new(addr, key.src, port, key.sport, key.proto);
    flow.state = Word::new(Phase(0), word.tag()).0;
    flow.direction = Direction::REPLY;
    flow.nat_addr = key.dst;
    flow.nat_port = key.dport;
    flow.addr_delta = addr_delta(addr, key.dst);
    flow.port_delta = port_delta(port, key.dport);
    let Err(error) = table.insert(&twin, &*flow, BPF_NOEXIST as u64) else {
        account::pinned(opening.backend);
        return PINNED;
    };
    if let Some(forward) = find::<V>(key)
        && exchange(forward, word, word.with(Phase::GONE)).is_ok()
    {
        let _ = table.remove(key);
        account::release(opening.backend);
    }
    if error == EEXIST { Reason::PortConflict as u32 } else { Reason::TableFull as u32 }
}

/// After [`pin`] said `PortConflict`: the client has used this port towards this backend by way of another VIP. If that flow
/// is closed and only lingers, it goes. True if it went, so that pinning may be tried again.
#[inline(never)]
pub fn make_room<V: Tables>(key: &FlowKey<V::Addr>, backend: &Backend) -> bool {
    let port = if backend.port == PortBe(0) { key.dport } else { backend.port };
    let reply_key = FlowKey::new(V::address(backend), key.src, port, key.sport, key.proto);
    let Some(reply) = find::<V>(&reply_key) else { return true };
    // SAFETY: the pointer comes from a lookup in this run.
    let (direction, forward_key) = unsafe { ((*reply.0).direction, reply_key.twin(&*reply.0)) };
    if direction != Direction::REPLY {
        return false;
    }
    let Some(forward) = find::<V>(&forward_key) else {
        // A reply entry without its forward entry: what a sweep would remove.
        return V::flows().remove(reply_key).is_ok();
    };
    let old = word(forward);
    old.phase() == Phase::CLOSED && remove::<V>(&forward_key, &reply_key, forward, old)
}
