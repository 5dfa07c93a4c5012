//! A packet that goes no further: counted, and answered if its sender is waiting for an answer.

use lb_common::{
    abi::{Proto, Reason},
    flow_state::flags,
};

use super::{Family, parsed};
use crate::{account, packet::Packet, parse::Parsed, reset, unreachable};

/// See the module.
#[inline(always)]
pub fn answer<V: Family, P: Packet>(mut packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    account::reason(parsed.because);
    if parsed.l4() == 0 {
        return packet.drop();
    }
    match make::<V, P>(&mut packet, parsed) {
        None => packet.drop(),
        Some(true) => packet.send_back(),
        Some(false) => {
            account::reason(Reason::Unanswered as u32);
            packet.drop()
        }
    }
}

/// Makes the packet its answer. `None`: there is none to be given; false: it can't be made.
#[inline(always)]
fn make<V: Family, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> Option<bool> {
    let is = |reason: Reason| parsed.because == reason as u32;
    let empty = is(Reason::NoBackend) || is(Reason::BackendsFull) || is(Reason::NoService);
    if is(Reason::TooBig) {
        return Some(unreachable::too_big::<V, P>(packet, parsed, parsed.mtu));
    }
    match parsed.key.proto {
        // Never answered (RFC 9293, section 3.10.7.1): two who did would go on for ever.
        Proto::TCP if parsed.segment.flags & flags::RST != 0 => None,
        Proto::TCP
            if empty
                || is(Reason::TableFull)
                || is(Reason::Stray)
                || is(Reason::PortConflict)
                || is(Reason::NoSourcePort)
                || is(Reason::ConnectionClosed) =>
        {
            Some(reset::make::<V, P>(packet, parsed))
        }
        Proto::UDP if empty => Some(unreachable::make::<V, P>(packet, parsed)),
        _ => None,
    }
}
