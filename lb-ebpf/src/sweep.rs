//! The agent's hand in the flow table. It decides what is over; this removes it, if nothing has happened since, by the same
//! compare-and-swap that packets use, so that the counts stay exact whoever else is at it.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{
        Addr, FlowKey,
        affinity::ForgetRequest,
        sweep::{BATCH, HEADER, REMOVE, RESET, Request},
    },
    affinity::Binding,
    flow_state::Word,
};

use crate::{
    affinity,
    conntrack::{self, Ending, Entry, Tracked},
    family::global_functions,
    packet::{Packet, XdpPacket, get},
    table::visit,
};

global_functions! {
    /// Serving a request, as a global function.
    pub trait Serve: Tracked {
        /// Serves a request about the flow whose forward entry has this key, in whose place others are put then. 1: it was done.
        fn serve(forward: FlowKey; what: u32, state: u64, seen_forward: u32, seen_reply: u32) = serve;
    }
}

/// Serves the requests in the "packet"; returns how many flows it removed or closed.
#[inline(always)]
pub fn run<V: Serve>(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false>::bare(ctx);
    let mut removed = 0;
    let Some(p) = packet.bytes(0, HEADER) else { return 0 };
    // SAFETY: the bytes at `p` were just bounds-checked.
    let what = unsafe { get::<u8>(p, 0) };
    for i in 0..BATCH {
        let Some(p) = packet.bytes(HEADER + i * size_of::<Request<V::Addr>>(), size_of::<Request<V::Addr>>())
        else {
            break;
        };
        let request = p.cast::<Request<V::Addr>>();
        // SAFETY: the bytes at `p` were just bounds-checked; any bits are a request. Field by field: the stack has no room for it.
        removed += unsafe {
            let key = &raw mut (*request).key;
            V::serve(key, what as u32, (*request).state, (*request).seen_forward, (*request).seen_reply)
        };
    }
    removed
}

/// Forgets the clients in the "packet"; returns how many there were.
#[inline(always)]
pub fn forget(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false>::bare(ctx);
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
        forgotten += affinity::forget(&request.key, Binding(request.binding), force) as u32;
    }
    forgotten
}

#[inline(always)]
fn serve<V: Tracked>(
    key: *mut FlowKey<V::Addr>,
    what: u32,
    state: u64,
    seen_forward: u32,
    seen_reply: u32,
) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(key) = (unsafe { key.as_mut() }) else { return 0 };
    let Some(forward) = visit::<V>(key) else { return 0 };
    if what != RESET as u32 {
        if stamp(forward) != seen_forward {
            return 0;
        }
        if let Some(reply) = conntrack::visit_twin::<V>(forward.at(), key)
            && stamp(reply) != seen_reply
            && reply.seen.tag() == Word(state).tag()
        {
            return 0;
        }
    }
    let done = if what == REMOVE as u32 {
        conntrack::remove::<V>(forward, Word(state), key)
    } else {
        let mut ending = Ending::default();
        let closed = conntrack::close::<V>(forward, state, key, &mut ending);
        conntrack::tell::<V>(&ending, key);
        closed
    };
    done as u32
}

#[inline(always)]
fn stamp<A: Addr>(flow: Entry<A>) -> u32 {
    // SAFETY: the pointer comes from a lookup in this run.
    unsafe { (*flow.at()).last_seen }
}
