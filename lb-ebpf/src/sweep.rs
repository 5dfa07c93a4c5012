//! The agent's hand in the flow table. It decides what is over; this removes it, if nothing has happened since, by the same
//! compare-and-swap that packets use, so that the counts stay exact whoever else is at it.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{
        Addr, FlowKey,
        sweep::{BATCH, HEADER, RESET, Request},
    },
    flow_state::Word,
};

use crate::{
    conntrack::{self, Entry},
    maps::Tables,
    packet::{Packet, XdpPacket, get},
};

/// Serves the requests in the "packet"; returns how many flows it removed or closed.
#[inline(always)]
pub fn run<V: Tables>(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::<false>::new(ctx);
    let mut removed = 0;
    let Some(p) = packet.bytes(0, HEADER) else { return 0 };
    // SAFETY: the bytes at `p` were just bounds-checked.
    let reset = unsafe { get::<u8>(p, 0) } == RESET;
    for i in 0..BATCH {
        let Some(p) = packet.bytes(HEADER + i * size_of::<Request<V::Addr>>(), size_of::<Request<V::Addr>>())
        else {
            break;
        };
        // SAFETY: the bytes at `p` were just bounds-checked; any bits are a request.
        let request: Request<V::Addr> = unsafe { get(p, 0) };
        removed += if reset { conntrack::close::<V>(&request.key, request.state) } else { one::<V>(&request) }
            as u32;
    }
    removed
}

#[inline(always)]
fn one<V: Tables>(request: &Request<V::Addr>) -> bool {
    let key: FlowKey<V::Addr> = request.key;
    let Some(forward) = conntrack::visit::<V>(&key) else { return false };
    // SAFETY: the pointer comes from a lookup in this run.
    let (seen, twin) = unsafe { ((*forward.at()).last_seen, key.twin(&*forward.at())) };
    if seen != request.seen_forward {
        return false;
    }
    if let Some(reply) = conntrack::visit::<V>(&twin)
        && stamp(reply) != request.seen_reply
        && reply.seen.tag() == Word(request.state).tag()
    {
        return false;
    }
    conntrack::remove::<V>(&key, &twin, forward, Word(request.state))
}

#[inline(always)]
fn stamp<A: Addr>(flow: Entry<A>) -> u32 {
    // SAFETY: the pointer comes from a lookup in this run.
    unsafe { (*flow.at()).last_seen }
}
