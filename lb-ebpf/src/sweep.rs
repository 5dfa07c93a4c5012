//! The agent's hand in the flow table. It decides what is over; this removes it, if nothing has happened since, by the same
//! compare-and-swap that packets use, so that the counts stay exact whoever else is at it.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{
        Addr, V4, V6,
        affinity::ForgetRequest,
        sweep::{BATCH, HEADER, REMOVE, RESET, Request},
    },
    affinity::Bond,
    flow_state::Word,
};

use crate::{
    affinity,
    conntrack::{self, Entry},
    maps::Tables,
    packet::{Packet, XdpPacket, get},
    table::{put_key, visit_scratch},
};

/// Serves the requests in the "packet"; returns how many flows it removed or closed.
#[inline(always)]
pub fn run<V: Tables>(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false, false>::new(ctx);
    let mut removed = 0;
    let Some(p) = packet.bytes(0, HEADER) else { return 0 };
    // SAFETY: the bytes at `p` were just bounds-checked.
    let what = unsafe { get::<u8>(p, 0) };
    for i in 0..BATCH {
        let Some(p) = packet.bytes(HEADER + i * size_of::<Request<V::Addr>>(), size_of::<Request<V::Addr>>())
        else {
            break;
        };
        // SAFETY: the bytes at `p` were just bounds-checked; any bits are a request.
        let request: Request<V::Addr> = unsafe { get(p, 0) };
        if put_key::<V>(&request.key).is_some() {
            removed += V::serve(what as u32, request.state, request.seen_forward, request.seen_reply);
        }
    }
    removed
}

/// Forgets the clients in the "packet"; returns how many there were.
#[inline(always)]
pub fn forget(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false, false>::new(ctx);
    let mut forgotten = 0;
    let Some(p) = packet.bytes(0, HEADER) else { return 0 };
    // SAFETY: the bytes at `p` were just bounds-checked.
    let force = unsafe { get::<u8>(p, 0) } != 0;
    for i in 0..BATCH {
        let Some(p) = packet.bytes(HEADER + i * size_of::<ForgetRequest>(), size_of::<ForgetRequest>())
        else {
            break;
        };
        // SAFETY: the bytes at `p` were just bounds-checked; any bits are a request.
        let request: ForgetRequest = unsafe { get(p, 0) };
        forgotten += affinity::forget(&request.key, Bond(request.bond), force) as u32;
    }
    forgotten
}

/// Serves one request, about the flow whose forward entry has the first scratch entry's key. Was it done?
#[inline(always)]
fn serve<V: Tables>(what: u32, state: u64, seen_forward: u32, seen_reply: u32) -> bool {
    let Some(forward) = visit_scratch::<V>() else { return false };
    if what != RESET as u32 {
        if stamp(forward) != seen_forward {
            return false;
        }
        if let Some(reply) = conntrack::visit_twin::<V>(forward.at())
            && stamp(reply) != seen_reply
            && reply.seen.tag() == Word(state).tag()
        {
            return false;
        }
    }
    if what == REMOVE as u32 {
        conntrack::remove::<V>(forward, Word(state))
    } else {
        conntrack::close::<V>(forward, state)
    }
}

/// [`serve`], as a global function for the kernel, IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_serve4(what: u32, state: u64, seen_forward: u32, seen_reply: u32) -> u32 {
    serve::<V4>(what, state, seen_forward, seen_reply) as u32
}

/// [`serve`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_serve6(what: u32, state: u64, seen_forward: u32, seen_reply: u32) -> u32 {
    serve::<V6>(what, state, seen_forward, seen_reply) as u32
}

#[inline(always)]
fn stamp<A: Addr>(flow: Entry<A>) -> u32 {
    // SAFETY: the pointer comes from a lookup in this run.
    unsafe { (*flow.at()).last_seen }
}
