//! Source NAT: an address and port of ours for a flow, such that no other flow has it towards the same backend's address and port; or another port of
//! the client's own.
//!
//! What decides is the reply entry: it is made under (backend, ours), and there is one entry a key. So two flows can't have the same port
//! whatever happens here. That a free one is found at once, also when few are left, is for a bitmap per backend and address of ours. When none is, the
//! port of a flow is used again, among some that of the one that gives way first: that is closed and only lingers, or else has waited for
//! its handshake for longest.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_jiffies64};
use lb_common::{
    abi::{Flow, FlowKey, MAX_SOURCES, PortBe, SourceKey, SourcePorts},
    flow_state::Phase,
    hash,
};

use crate::{
    atomic::{add_u64, fetch_and_u64, fetch_or_u64},
    conntrack::{
        Unlink, is_over,
        room::{OVER, Rank},
        waiting::is_overdue,
    },
    family::global_functions,
    maps::{Maps, NO_PORTS},
    packet::{copy, opaque},
    table::{self, Claim, EXISTS, Entry, Locate, REPLY, exchange, visit, visit_twin},
};

/// Ports tried when another flow has one that passed for free.
const TRIES: usize = 4;
/// Words of a bitmap.
const WORDS: u32 = (lb_common::abi::MAX_SOURCE_PORTS / 64) as u32;
/// Ports looked at for a closed flow when none is free.
const LOOKED_AT: u32 = 64;
/// No port of ours is left. Not an outcome of [`table::claim`].
pub const NONE_LEFT: u32 = table::NOWHERE + 5;

global_functions! {
    /// Ports of ours, as global functions.
    pub trait Ports: Maps {
        /// Takes a port for the second scratch entry, of one address of ours, counted from one by lot. 0: there is none.
        fn take_port(; lot: u32, address: u32) = take;
        /// Frees the port of a reply entry's key, whose entry is gone.
        fn free_port(reply: FlowKey;) = free;
    }
}

global_functions! {
    /// Finding a closed flow by its port, as a global function.
    pub trait Lingering: Locate {
        /// Where the forward entry lies of the flow whose reply entry has the second scratch entry's key, if it is over and only lingers.
        fn lingering_at(spare: FlowKey;) = lingering_at;
    }
}

global_functions! {
    /// Using ports again, as global functions.
    pub trait Reuse: Ports, Lingering, Rank, Unlink {
        /// Where an entry lies of the flow that gives way first, among some that have a port of the second scratch entry's address.
        /// [`table::NOWHERE`]: there is none.
        fn yielding_port(spare: FlowKey;) = yielding;
        /// Removes the flow whose forward entry lies there, if it is over and only lingers. 0: it isn't.
        fn dismiss_at(spare: FlowKey; forward: u32) = dismiss_at;
    }
}

/// Claims a lane for the reply entry of a flow, which is complete but for where replies go to: that is an address and port of ours, chosen here.
/// As [`table::claim`], or [`NONE_LEFT`]. `forward`: where the forward entry will be.
#[inline(always)]
pub fn claim<V: Ports + Claim>(lot: u32, forward: u32) -> u32 {
    let (mut lot, mut address, mut tries) = (lot, 0, 0);
    for _ in 0..opaque(MAX_SOURCES + TRIES) {
        if address >= MAX_SOURCES as u32 {
            return NONE_LEFT;
        }
        if V::take_port(lot, address) == 0 {
            address += 1;
            continue;
        }
        let place = table::claim::<V>(REPLY, forward);
        if place != EXISTS {
            if place & table::NOWHERE != 0
                && let Some(scratch) = table::scratch::<V>(REPLY)
            {
                V::free_port(Flow::key_in_place(scratch).cast_mut());
            }
            return place;
        }
        // Whose it is gives it back.
        lot = hash::mix(lot);
        tries += 1;
        if tries >= TRIES {
            break;
        }
    }
    table::BUSY
}

/// The first port that is put in place of a client's, and how many there are: below those that systems give to their clients by themselves
/// (`net.ipv4.ip_local_port_range`, and Kubernetes' node ports from 30,000 on).
const OTHER_PORTS: (u16, u32) = (1024, 28_976);
/// Tries at that.
const OTHER_PORT_TRIES: usize = 16;

/// The same, but the address is the client's own, and only the port is another.
#[inline(always)]
pub fn claim_another_port<V: Claim>(lot: u32, forward: u32) -> u32 {
    let mut lot = lot;
    for _ in 0..opaque(OTHER_PORT_TRIES) {
        let Some(scratch) = table::scratch::<V>(REPLY) else { return table::BUSY };
        lot = hash::mix(lot);
        let port = OTHER_PORTS.0.wrapping_add(hash::reduce(lot, OTHER_PORTS.1) as u16);
        // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
        unsafe { (*scratch).dport = PortBe::new(port) };
        let place = table::claim::<V>(REPLY, forward);
        if place != EXISTS {
            return place;
        }
    }
    EXISTS
}

/// Gives back the port of a reply entry's key, whose entry is gone.
#[inline(always)]
pub fn give_back<V: Ports>(reply: &mut FlowKey<V::Addr>) {
    V::free_port(reply);
}

/// The forward entry of the flow whose reply entry has this key, if it is over and only lingers.
#[inline(always)]
fn lingering<V: Locate>(reply: &FlowKey<V::Addr>, spare: &mut FlowKey<V::Addr>) -> Option<Entry<V::Addr>> {
    let reply = visit::<V>(reply)?;
    // SAFETY: the pointer comes from a search in this run.
    if unsafe { (*reply.at()).direction }.is_forward() {
        return None;
    }
    // Without its other half a flow is being made or removed at this instant.
    let forward = visit_twin::<V>(reply.at(), spare)?;
    if is_over(forward.seen) && forward.seen.tag() == reply.seen.tag() { Some(forward) } else { None }
}

/// Removes a flow that is over and only lingers, given its forward entry. True if this call did.
#[inline(always)]
fn dismiss<V: Unlink>(forward: Entry<V::Addr>, spare: &mut FlowKey<V::Addr>) -> bool {
    // It doesn't count any more: nothing follows from its removal.
    exchange(forward, forward.seen, forward.seen.with(Phase::GONE)).is_ok()
        && V::unlink(spare, forward.place, forward.seen.0) != 0
}

/// Removes the flow whose reply entry has the second scratch entry's key, if it is over and only lingers.
#[inline(always)]
pub fn dismiss_lingering<V: Reuse>(spare: &mut FlowKey<V::Addr>) {
    let place = V::lingering_at(spare);
    if place & table::NOWHERE == 0 {
        V::dismiss_at(spare, place);
    }
}

/// See [`Reuse`].
#[inline(always)]
fn lingering_at<V: Locate>(spare: *mut FlowKey<V::Addr>) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(spare) = (unsafe { spare.as_mut() }) else { return table::NOWHERE };
    let Some(scratch) = table::scratch::<V>(REPLY) else { return table::NOWHERE };
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    lingering::<V>(unsafe { &*Flow::key_in_place(scratch) }, spare)
        .map_or(table::NOWHERE, |forward| forward.place)
}

/// See [`Reuse`].
#[inline(always)]
fn dismiss_at<V: Unlink>(spare: *mut FlowKey<V::Addr>, place: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(spare) = (unsafe { spare.as_mut() }) else { return 0 };
    let Some(forward) = table::entry_at::<V>(place) else { return 0 };
    (is_over(forward.seen) && dismiss::<V>(forward, spare)) as u32
}

/// See [`Reuse`].
#[inline(always)]
fn yielding<V: Ports + Rank>(spare: *mut FlowKey<V::Addr>) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(spare) = (unsafe { spare.as_mut() }) else { return table::NOWHERE };
    let (Some(scratch), Some(sources), Some(taken)) =
        (table::scratch::<V>(REPLY), V::sources().get(0), bitmap::<V>())
    else {
        return table::NOWHERE;
    };
    let (first, ports) = (sources.first, sources.ports as u32);
    // SAFETY: a word of a map's value; a replaced or removed element lives on until the program is done.
    let next = unsafe { &raw mut (*taken).next };
    // SAFETY: as above. Volatile: others write meanwhile, with atomics.
    let from = unsafe { next.read_volatile() } as u32 % ports.max(1);
    // SAFETY: as above.
    unsafe { add_u64(next, LOOKED_AT as u64) };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let (mut victim, mut best) = (table::NOWHERE, 0);
    for i in 0..opaque(LOOKED_AT as usize) as u32 {
        let at = if from + i < ports { from + i } else { (from + i).wrapping_sub(ports) };
        // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
        unsafe { (*scratch).dport = PortBe::new(first.wrapping_add(at as u16)) };
        // SAFETY: as above.
        let Some(reply) = visit::<V>(unsafe { &*Flow::key_in_place(scratch) }) else { continue };
        let rank = V::rank(spare, reply.place, now as u32);
        // SAFETY: the pointer comes from a search in this run.
        let (created, proto) = unsafe { ((*reply.at()).created, (*reply.at()).proto) };
        // Handshakes take a moment, and may finish theirs.
        if rank > best && (rank & OVER != 0 || is_overdue(now, created, rank, proto)) {
            (victim, best) = (reply.place, rank);
        }
    }
    victim
}

/// Whose bitmap it is that ports for the second scratch entry are in. Its key lies in this CPU's slot, since the stack has no room for it.
#[inline(always)]
fn bitmap<V: Maps>() -> Option<*mut SourcePorts> {
    let (scratch, key) = (table::scratch::<V>(REPLY)?, V::source_key().get_ptr_mut(0)?);
    // SAFETY: this CPU's own entry and slot; programs on it don't preempt each other in softirq.
    let key = unsafe {
        copy(&raw mut (*key).backend, &raw const (*scratch).src);
        copy(&raw mut (*key).source, &raw const (*scratch).dst);
        ((*key).port, (*key).proto) = ((*scratch).sport, (*scratch).proto);
        &*key
    };
    if let Some(taken) = V::ports().get_ptr_mut(key) {
        return Some(taken);
    }
    // Another CPU may have been first.
    let _ = V::ports().insert(key, NO_PORTS.get(0)?, BPF_NOEXIST as u64);
    V::ports().get_ptr_mut(key)
}

/// See [`Ports`].
#[inline(always)]
fn take<V: Maps>(lot: u32, address: u32) -> u32 {
    let (Some(sources), Some(scratch)) = (V::sources().get(0), table::scratch::<V>(REPLY)) else { return 0 };
    let (count, ports) = (sources.count, sources.ports as u32);
    if address >= count {
        return 0;
    }
    let first = hash::reduce(lot, count);
    let which = if first + address < count { first + address } else { (first + address).wrapping_sub(count) };
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    unsafe { copy(&raw mut (*scratch).dst, &raw const sources.addr[which as usize & (MAX_SOURCES - 1)]) };
    let Some(taken) = bitmap::<V>() else { return 0 };
    let words = ports.div_ceil(64);
    let from = hash::reduce(hash::mix(lot), words);
    for word in 0..opaque(WORDS as usize) as u32 {
        // Out of the optimiser's sight, which would count something else, of which the verifier knows nothing.
        if opaque(word as usize) as u32 >= words {
            break;
        }
        let found = flowpin_take_bit(taken, from.wrapping_add(word), ports, lot);
        if found < ports {
            // SAFETY: as above.
            unsafe { (*scratch).dport = PortBe::new(sources.first.wrapping_add(found as u16)) };
            return 1;
        }
    }
    0
}

/// Takes a bit of a word of a bitmap of `ports` bits, if one is free, the first from one by lot on: which; beyond them: none is. From the last word on it
/// is counted from the first again. As a global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_take_bit(bitmap: *mut SourcePorts, word: u32, ports: u32, lot: u32) -> u32 {
    let words = ports.div_ceil(64);
    let word = if word < words { word } else { word.wrapping_sub(words) };
    // One value, checked and used as it is, so that the verifier sees the bound where it matters.
    let at = opaque(word as usize);
    if bitmap.is_null() || at >= WORDS as usize {
        return u32::MAX;
    }
    // SAFETY: within the bitmap; a replaced or removed element lives on until the program is done.
    let at = unsafe { bitmap.cast::<u64>().add(at) };
    let last = word == ports / 64;
    let usable = if last { (1u64 << (ports & 63)) - 1 } else { u64::MAX };
    // SAFETY: as above; volatile: other CPUs write meanwhile.
    let free = !unsafe { at.read_volatile() } & usable;
    let turned = free.rotate_right(lot);
    let bit = (turned & turned.wrapping_neg()).rotate_left(lot);
    // SAFETY: as above; all writers use atomics.
    if bit == 0 || unsafe { fetch_or_u64(at, bit) } & bit != 0 {
        return u32::MAX;
    }
    word * 64 + number(bit)
}

/// Which bit it is: how many there are below it. Arithmetic only, which has one way through; counting zeros has many, and the verifier would
/// go them all.
#[inline(always)]
const fn number(bit: u64) -> u32 {
    let below = bit - 1;
    let pairs = below - (below >> 1 & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

/// See [`Ports`].
#[inline(always)]
fn free<V: Maps>(reply: *mut FlowKey<V::Addr>) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let (Some(reply), Some(sources)) = (unsafe { reply.as_ref() }, V::sources().get(0)) else { return 0 };
    let key =
        SourceKey { backend: reply.src, source: reply.dst, port: reply.sport, proto: reply.proto, _pad: 0 };
    let port = reply.dport.get().wrapping_sub(sources.first) as u32;
    let Some(taken) = V::ports().get_ptr_mut(key) else { return 0 };
    // One value, checked and used as it is, so that the verifier sees the bound where it matters.
    let word = opaque(port as usize / 64);
    if word < WORDS as usize {
        // SAFETY: within the bitmap; all writers use atomics.
        unsafe { fetch_and_u64(taken.cast::<u64>().add(word), !(1 << (port & 63))) };
    }
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_bit_has_its_number() {
        for n in 0..64 {
            assert_eq!(super::number(1 << n), n);
        }
    }
}
