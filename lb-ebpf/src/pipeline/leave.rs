//! A packet leaves: one that the node forwards, or one of its own. An answer of a backend is translated here, after the stack has seen it as the
//! backend's; so is an error about a packet that was translated when it came in.

use lb_common::abi::{Proto, V4, V6};

use super::{Family, carry, go_on, parsed};
use crate::{
    conntrack,
    packet::{Packet, Step, get},
    parse::{self, Header, Layer3, ParseError},
    service,
    table::NOWHERE,
};

/// See the module.
#[inline(always)]
pub fn leave<P: Packet>(packet: P) -> P::Verdict {
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
    let (src, proto) = unsafe { (V::stands(ip, V::SRC), get::<u8>(ip, V::PROTO)) };
    // Nearly everything is nobody's, and told by an address and a byte.
    if !service::may_be_backend(src) && proto != <V as Header>::ICMP.0 {
        return packet.pass();
    }
    let Some(parsed) = parsed::<V>() else { return packet.pass() };
    (parsed.hook, parsed.again) = (packet.hook().0, 0);
    if let Err(why) = V::parse(&packet, l3, parsed) {
        parsed.because = why as u32;
        parsed.place = NOWHERE;
        let aside = matches!(why, ParseError::Icmp | ParseError::Fragment | ParseError::FirstFragment);
        return if aside { go_on::<V, P>(packet, Step::Aside) } else { packet.pass() };
    }
    let Some(flow) = conntrack::find::<V>(&parsed.key) else {
        let unasked = parsed.key.proto == Proto::UDP;
        return if unasked { go_on::<V, P>(packet, Step::Past) } else { packet.pass() };
    };
    // SAFETY: the pointer comes from a search in this run.
    if unsafe { (*flow.at()).direction }.is_forward() {
        return packet.pass();
    }
    if parsed.key.proto == Proto::TCP && !conntrack::settled(flow, &parsed.segment) {
        parsed.place = flow.place;
        return go_on::<V, P>(packet, Step::Flow);
    }
    carry::simply::<V, P>(packet, parsed, flow)
}
