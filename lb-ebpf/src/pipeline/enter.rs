//! A packet comes in. What nearly all of them need, and no more.

use lb_common::abi::{Proto, V4, V6};

use super::{Family, carry, go_on, parsed};
use crate::{
    conntrack,
    maps::PAST,
    packet::{Hook, Packet, Step},
    parse::{self, Layer3},
    service,
    table::NOWHERE,
};

/// See the module.
#[inline(always)]
pub fn enter<P: Packet>(packet: P) -> P::Verdict {
    match parse::ethernet(&packet) {
        Layer3::V4(at) => ip::<V4, P>(packet, at),
        Layer3::V6(at) => ip::<V6, P>(packet, at),
        Layer3::Other => packet.pass(),
    }
}

#[inline(always)]
fn ip<V: Family, P: Packet>(packet: P, l3: usize) -> P::Verdict {
    let Some(ip) = packet.bytes(l3, V::LEN) else { return packet.pass() };
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    let dst = unsafe { V::stands(ip, V::DST) };
    // Answers go to clients, and are seen to where they leave: so nobody else's address matters.
    let hook = packet.hook();
    let besides = hook == Hook::BESIDES;
    let ours = (hook != Hook::IN && !besides) || service::may_be_destination(dst);
    if !ours && (besides || !service::may_be_backend(dst)) {
        return packet.pass();
    }
    let Some(parsed) = parsed::<V>() else { return packet.pass() };
    (parsed.hook, parsed.again) = (packet.hook().0, 0);
    // A flow past us has a backend for its destination; seldom is there any.
    let known = ours || PAST.get(0).is_some_and(|past| *past != 0);
    if let Err(why) = V::parse(&packet, l3, parsed) {
        parsed.because = why as u32;
        parsed.place = NOWHERE;
        return if known { go_on::<V, P>(packet, Step::Aside) } else { packet.pass() };
    }
    let tcp = parsed.key.proto == Proto::TCP;
    let found = if known { conntrack::find::<V>(&parsed.key) } else { None };
    let Some(flow) = found else {
        // Past us to a backend: that the two aren't taken for each other is seen to when it begins.
        let begins = !tcp || parsed.segment.opens();
        // Where answers are left to where they leave, that is all that is ours.
        let destined = if hook == Hook::IN || besides { ours } else { service::may_be_destination(dst) };
        if destined {
            return go_on::<V, P>(packet, Step::Open);
        }
        let translates = hook != Hook::IN && !besides;
        let from_backend = translates && !tcp && service::may_be_backend(parsed.key.src);
        if from_backend || begins && !besides && service::may_be_backend(dst) {
            return go_on::<V, P>(packet, Step::Past);
        }
        return packet.pass();
    };
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    // What goes to a backend that answers past the node is TC's.
    if hook.leaves_alone(direction) || (!P::DIRECT && direction.is_direct()) {
        return packet.pass();
    }
    if tcp && !conntrack::settled(flow, &parsed.segment) {
        parsed.place = flow.place;
        return go_on::<V, P>(packet, Step::Flow);
    }
    carry::simply::<V, P>(packet, parsed, flow)
}
