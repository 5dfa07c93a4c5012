//! A packet that may change its flow's state, or had to be looked at more closely before its flow could be found.

use lb_common::abi::{Proto, Reason};

use super::{Family, carry::with_place, go_on, parsed, refuse};
use crate::{
    conntrack::{self, Step as Track},
    packet::{Hook, Packet, Step},
    parse::ANOTHER_PORT,
};

/// See the module.
#[inline(always)]
pub fn flow<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    let out = packet.hook() == Hook::OUT;
    // After a step aside nobody has looked yet.
    let mut found = conntrack::entry::<V>(&parsed.key, parsed.place);
    if found.is_none() {
        found = conntrack::visit::<V>(&parsed.key);
    }
    let Some(flow) = found else {
        return if out { packet.pass() } else { go_on::<V, P>(packet, Step::Open) };
    };
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    // What goes to a backend that answers past the node is TC's.
    if packet.hook().leaves_alone(direction) || (!P::DIRECT && direction.is_direct()) {
        return packet.pass();
    }
    if parsed.key.proto == Proto::TCP && !conntrack::settled(flow, &parsed.segment) {
        let step = conntrack::track::<V>(flow, &parsed.segment, &mut parsed.spare, &mut parsed.ending);
        conntrack::tell::<V>(&parsed.ending, &mut parsed.spare);
        match step {
            // What a SYN brings along is no question on the connection that it comes over.
            Track::Belongs if parsed.segment.opens() => parsed.segment.len = 0,
            Track::Belongs => {}
            Track::Anew | Track::AnotherPort
                if conntrack::remove::<V>(flow, flow.seen, &mut parsed.spare) =>
            {
                if step == Track::AnotherPort {
                    parsed.again = ANOTHER_PORT | (direction.tried() as u32 + 1);
                }
                return go_on::<V, P>(packet, Step::Open);
            }
            Track::AnothersEnd => return refuse::<V, P>(packet, parsed, Reason::StrayReset as u32),
            Track::Anew | Track::AnotherPort => {
                return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32);
            }
            Track::Busy => return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32),
            Track::Closed => return refuse::<V, P>(packet, parsed, Reason::ConnectionClosed as u32),
        }
    }
    with_place::<V, P>(packet, parsed, flow)
}
