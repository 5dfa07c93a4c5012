//! A packet that goes no further: counted, and answered if its sender is waiting for an answer.

use lb_common::{
    abi::{Answer, Proto, Reason},
    flow_state::flags,
};

use super::{Family, parsed};
use crate::{account, packet::Packet, parse::Parsed, reset, unreachable};

/// Reasons by their answer, a bit for each.
const RESET: u64 = Reason::answered(Answer::Reset);
const REFUSED: u64 = Reason::answered(Answer::Refused);
const SIZE: u64 = Reason::answered(Answer::Size);

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
    let answered = |by: u64| by & 1 << (parsed.because & 63) != 0;
    if answered(SIZE) {
        return Some(unreachable::too_big::<V, P>(packet, parsed, parsed.mtu));
    }
    match parsed.key.proto {
        // Never answered (RFC 9293, section 3.10.7.1): two who did would go on for ever.
        Proto::TCP if parsed.segment.flags & flags::RST != 0 => None,
        Proto::TCP if answered(RESET | REFUSED) => Some(reset::make::<V, P>(packet, parsed)),
        Proto::UDP if answered(REFUSED) => Some(unreachable::make::<V, P>(packet, parsed)),
        _ => None,
    }
}
