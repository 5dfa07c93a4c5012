//! Counting. Active connections exactly once; packets and bytes on lines that no other CPU writes.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{
        ASKED_SHIFT, Active, Addr, BLOCK_SLOTS, BackendId, CREATED_SHIFT,
        counters::{DURATION_BUCKETS, DURATION_TICK_MS},
    },
    expiry::idle,
    flow_state::{Segment, further},
};

use crate::{
    atomic::{add_u64, fetch_add_u32},
    maps::{ACTIVE, BACKEND_COUNTERS, CLIENTS, DURATIONS, LOST, POOLS, REASONS, TICK_HZ},
    table::Entry,
};

/// The active count of a backend.
#[inline(always)]
fn active(backend: BackendId) -> Option<*mut u32> {
    at(ACTIVE.get_ptr_mut(backend.block())?, backend)
}

/// A backend's count in its block.
#[inline(always)]
fn at(block: *mut Active, backend: BackendId) -> Option<*mut u32> {
    let slot = backend.slot() & (BLOCK_SLOTS - 1);
    // SAFETY: the slot is within the block; array maps' values live as long as the map.
    Some(unsafe { (&raw mut (*block).count).cast::<u32>().add(slot) })
}

/// Takes a place on a backend, unless it has `limit` connections already. Who gets one must pin a flow or [`release`] it.
#[inline(always)]
pub fn reserve(backend: BackendId, limit: u32) -> bool {
    let Some(count) = active(backend) else { return false };
    // SAFETY: an aligned word of a map's value; all writers use atomics.
    if unsafe { fetch_add_u32(count, 1) } < limit {
        return true;
    }
    // SAFETY: as above.
    unsafe { fetch_add_u32(count, u32::MAX) };
    false
}

/// The same on a backend that was chosen for having `expected` connections: if it has got more since, another one may have fewer now.
#[inline(always)]
pub fn reserve_as(backend: BackendId, expected: u32, limit: u32) -> bool {
    reserve(backend, if expected < limit { expected + 1 } else { limit })
}

/// Gives a place back.
#[inline(always)]
pub fn release(backend: BackendId) {
    if let Some(count) = active(backend) {
        // SAFETY: an aligned word of a map's value; all writers use atomics. Adding 2^32 - 1 takes one away.
        unsafe { fetch_add_u32(count, u32::MAX) };
    }
}

/// A client is bound to this backend and has an open flow.
#[inline(always)]
pub fn client_came(backend: BackendId) {
    clients(backend, 1);
}

/// A client that was bound to this backend is bound to another, or has no open flow any more.
#[inline(always)]
pub fn client_went(backend: BackendId) {
    clients(backend, u32::MAX);
}

#[inline(always)]
fn clients(backend: BackendId, change: u32) {
    if let Some(count) = CLIENTS.get_ptr_mut(backend.block()).and_then(|block| at(block, backend)) {
        // SAFETY: an aligned word of a map's value; all writers use atomics.
        unsafe { fetch_add_u32(count, change) };
    }
}

/// What a backend makes of those who want to connect: which of its counters.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Sign {
    /// It accepts, and the client takes it up.
    Accepted = 0,
    /// RST.
    Refused = 1,
    /// Nothing, so that the client has asked again.
    Unanswered = 2,
}

/// Notes what a backend makes of somebody who wants to connect.
#[inline(always)]
pub fn sign(backend: BackendId, sign: Sign) {
    let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend.0) else { return };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    unsafe {
        match sign {
            Sign::Accepted => (*counters).accepted += 1,
            Sign::Refused => (*counters).refused += 1,
            Sign::Unanswered => (*counters).unanswered += 1,
        }
    }
}

/// Somebody who wants to connect has said so again, after `last` (jiffies, low half). A sign only after longer than any network takes: a
/// client's first retransmission comes after a second (RFC 6298, section 2); who repeats himself at once says nothing about the backend.
#[inline(always)]
pub fn asked_again(backend: BackendId, last: u32) {
    // SAFETY: the helper has no preconditions.
    let waited = idle(unsafe { bpf_jiffies64() } as u32, last);
    if waited >= TICK_HZ.load() / 4 * 3 {
        sign(backend, Sign::Unanswered);
    }
}

/// A flow has stopped counting: gives its place back and notes how long it was open. Called by whoever moved the state, once.
#[inline(always)]
pub fn ended(backend: BackendId, created: u32) {
    release(backend);
    flowpin_ended(backend.0, created);
}

/// The second half of [`ended`], as a global function for the kernel: nothing but numbers, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flowpin_ended(backend: u32, created: u32) -> u32 {
    // Flows past us are no service's.
    if BackendId(backend).block() == 0 {
        return 0;
    }
    let Some(block) = POOLS.get(BackendId(backend).block()) else { return 0 };
    let Some(histogram) = DURATIONS.get_ptr_mut(block.service) else { return 0 };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() } >> CREATED_SHIFT;
    let jiffies = ((now as u32).wrapping_sub(created) as u64) << CREATED_SHIFT;
    let mut bucket = 0usize;
    if jiffies != 0 {
        // max: a division that can't be by zero has no panic in it, which the verifier would not take.
        let ticks = jiffies.wrapping_mul(1000) / (TICK_HZ.load() as u64 * DURATION_TICK_MS).max(1);
        while bucket < DURATION_BUCKETS - 1 && ticks >= 1 << bucket {
            bucket += 1;
        }
        // SAFETY: array maps' values live as long as the map; all writers use atomics.
        unsafe { add_u64(&raw mut (*histogram).sum_jiffies, jiffies) };
    }
    // SAFETY: as above; the bucket is within the array.
    unsafe { add_u64((&raw mut (*histogram).buckets).cast::<u64>().add(bucket), 1) };
    0
}

/// A flow, or a process's socket, was pinned. Packets may interrupt who counts.
#[inline(always)]
pub fn pinned(backend: BackendId) {
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend.0) {
        // SAFETY: this CPU's own slot, which only it writes; in one instruction, so that nothing comes between.
        unsafe { add_u64(&raw mut (*counters).connections, 1) };
    }
}

/// A packet of a flow went through.
///
/// The flow's own figures are plain adds: packets of one direction of one flow come in by one queue and so on one CPU. Should
/// a queue move, two CPUs may add at once and one packet is missing from the flow's figures; the backend's, per CPU, have it.
/// `segment`: what it says, if it is TCP.
#[inline(always)]
pub fn packet<A: Addr>(flow: Entry<A>, packets: u64, bytes: u64, segment: &Segment) {
    let flow = flow.at();
    // SAFETY: the pointer comes from a lookup in this run. Stamps and counters are whole words; see above for races.
    let (backend, forward) = unsafe {
        let now = bpf_jiffies64();
        if (*flow).last_seen != now as u32 {
            (*flow).last_seen = now as u32;
        }
        let low = (*flow).packets_low;
        (*flow).packets_low = low.wrapping_add(packets as u32);
        if low > u32::MAX - packets as u32 {
            (*flow).packets_high = (*flow).packets_high.wrapping_add(1);
        }
        (*flow).bytes += bytes;
        let forward = (*flow).direction.is_forward();
        if segment.len != 0 {
            if forward {
                (*flow).mark = if segment.ack == 0 { 1 } else { segment.ack };
                (*flow).asked_at = (now >> ASKED_SHIFT) as u16;
            } else {
                (*flow).mark = further((*flow).mark, segment.seq.wrapping_add(segment.len));
            }
        }
        ((*flow).backend, forward)
    };
    let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend.0) else { return };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    unsafe {
        if forward {
            (*counters).packets_in += packets;
            (*counters).bytes_in += bytes;
        } else {
            (*counters).packets_out += packets;
            (*counters).bytes_out += bytes;
        }
    }
}

/// Counts a record that nobody will read, by which it is: [`lost`](lb_common::abi::event::lost).
#[inline(always)]
pub fn untold(which: u32) {
    if let Some(count) = LOST.get_ptr_mut(which) {
        // SAFETY: this CPU's own slot, which only it writes; in one instruction, since packets may interrupt who counts.
        unsafe { add_u64(count, 1) };
    }
}

/// Counts a refusal, by its [`Reason`](lb_common::abi::Reason) as a number. A failed lookup here changes no verdict.
#[inline(always)]
pub fn reason(reason: u32) {
    if let Some(count) = REASONS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own slot, which only it writes; in one instruction, since packets may interrupt who counts.
        unsafe { add_u64(count, 1) };
    }
}
