//! Pins a new flow: a place that was taken on its backend becomes entries, or is given back.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64};
use lb_common::{
    abi::{Backend, BackendId, CREATED_SHIFT, Direction, FlowKey, PortBe, Reason, What},
    flow_state::{Phase, Word, further},
};

use super::{REFUSED, unlink};
use crate::{
    account, affinity, events,
    maps::Tables,
    parse::Parsed,
    snat,
    table::{self, entry, exchange, visit_reply, visit_twin},
};

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
    /// It counts in its client's bond.
    pub bound: bool,
    /// The forward entry's direction, with what is done to packets.
    pub way: Direction,
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
pub fn pin<V: Tables>(parsed: &Parsed<V::Addr>, backend: &Backend, opening: &Opening) -> u32 {
    let key = &parsed.key;
    let addr = V::address(backend);
    let port = if backend.port == PortBe(0) { key.dport } else { backend.port };
    let full = opening.way.is_full();
    let word = Word::new(opening.phase, (opening.chance as u64) << 16 | (opening.hash & 0xffff) as u64)
        .bound_if(opening.bound);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let (Some(to), Some(back)) = (table::scratch::<V>(table::FORWARD), table::scratch::<V>(table::REPLY))
    else {
        back_out::<V>(key, opening);
        return REFUSED | Reason::Internal as u32;
    };
    // SAFETY: this CPU's own entries; programs on it don't preempt each other in softirq.
    let (to, back) = unsafe { (&mut *to, &mut *back) };
    to.state = word.0;
    (to.src, to.dst, to.sport, to.dport) = (key.src, key.dst, key.sport, key.dport);
    (to.proto, to.direction) = (key.proto, opening.way);
    (to.nat_addr, to.nat_port) = (addr, port);
    back.state = Word::new(Phase(0), word.tag()).0;
    (back.src, back.dst, back.sport, back.dport) = (addr, key.src, port, key.sport);
    (back.proto, back.direction) = (key.proto, Direction::REPLY.full_if(full));
    (back.nat_addr, back.nat_port) = (key.dst, key.dport);
    // Pinned in the middle of a connection: it has been asked and answered, as far as anybody knows.
    let asked = if opening.phase == Phase::ESTABLISHED { parsed.segment.ack } else { 0 };
    to.mark = asked;
    back.mark = if asked == 0 { 0 } else { further(asked, asked.wrapping_add(1)) };
    for flow in [to, back] {
        (flow.last_seen, flow.created) = (now as u32, (now >> CREATED_SHIFT) as u32);
        flow.backend = opening.backend;
    }
    let forward = table::claim::<V>(table::FORWARD);
    if forward & REFUSED != 0 {
        back_out::<V>(key, opening);
        // Another CPU was first: its choice stands.
        let found = if forward == table::EXISTS { table::locate_scratch::<V>() } else { forward };
        return if found & REFUSED == 0 { found } else { refusal(found) };
    }
    let reply = if opening.way.is_direct() {
        // There is none.
        forward
    } else if full {
        snat::claim::<V>(opening.hash)
    } else {
        table::claim::<V>(table::REPLY)
    };
    if reply & REFUSED != 0 {
        table::give_back::<V>(forward);
        back_out::<V>(key, opening);
        return refusal(reply);
    }
    let linked = !full || table::link::<V>(forward, reply).is_some();
    if !linked || !table::publish::<V>(forward, reply) {
        back_out::<V>(key, opening);
        return REFUSED | Reason::Internal as u32;
    }
    account::pinned(opening.backend);
    if events::followed()
        && let Some(entry) = entry::<V>(key, forward)
    {
        events::tell::<V>(entry.at(), What::OPENED);
    }
    forward
}

/// Gives back what was taken for a flow that isn't pinned.
#[inline(never)]
fn back_out<V: Tables>(key: &FlowKey<V::Addr>, opening: &Opening) {
    account::release(opening.backend);
    if opening.bound {
        affinity::left(key.src, opening.backend);
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

/// After [`pin`] said `PortConflict`: the client has used this port towards this backend by way of another VIP. If that flow
/// is closed and only lingers, it goes. True if it went, so that pinning may be tried again.
#[inline(never)]
pub fn make_room<V: Tables>(key: &FlowKey<V::Addr>, backend: &Backend) -> bool {
    let port = if backend.port == PortBe(0) { key.dport } else { backend.port };
    let Some(reply) = visit_reply::<V>(key, V::address(backend), port) else { return true };
    // SAFETY: the pointer comes from a lookup in this run.
    if unsafe { (*reply.at()).direction }.is_forward() {
        return false;
    }
    let Some(forward) = visit_twin::<V>(reply.at()) else {
        // A flow that is being made or removed at this instant.
        return false;
    };
    let over = forward.seen.phase() == Phase::CLOSED || forward.seen.phase() == Phase::RESET;
    // It doesn't count any more: nothing follows from its removal.
    if !over || exchange(forward, forward.seen, forward.seen.with(Phase::GONE)).is_err() {
        return false;
    }
    unlink::<V>(forward.at());
    true
}
