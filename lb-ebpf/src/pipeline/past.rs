//! A packet of no flow and for no service. At a VIP that is nothing else it is refused: passed on, it would come back by the route that led it here. To a
//! backend it goes past us, with another port of its sender's if the backend knows a flow of ours by that port.

use lb_common::abi::{Addr as _, BackendId, Direction, Proto, Reason, ServiceId, Stray};

use super::{
    Family, go_on,
    open::{hashed, phase},
    parsed, refuse, speak,
};
use crate::{
    account,
    conntrack::{self, Opening, REFUSED},
    foreign,
    maps::PAST,
    packet::{Hook, Packet, Step},
    parse::Parsed,
    service,
    table::NOWHERE,
};

/// See the module.
#[inline(always)]
pub fn past<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    let hook = packet.hook();
    if hook != Hook::OUT && foreign::is_foreign(&packet, parsed.key.src) {
        return packet.pass();
    }
    // Where answers are translated.
    if hook != Hook::IN && hook != Hook::BESIDES {
        let place = speak::speak::<V>(parsed);
        if place != NOWHERE {
            if place & REFUSED != 0 {
                return refuse::<V, P>(packet, parsed, place & !REFUSED);
            }
            parsed.place = place;
            return go_on::<V, P>(packet, Step::Carry);
        }
        if hook == Hook::OUT {
            return packet.pass();
        }
    }
    if service::vip::<V>(parsed.key.dst).is_some_and(|vip| vip.is_owned()) {
        return refuse::<V, P>(packet, parsed, Reason::NoService as u32);
    }
    let begins = parsed.key.proto != Proto::TCP || parsed.segment.opens();
    if !begins
        || !service::may_be_backend(parsed.key.dst)
        || hook == Hook::BESIDES
        || !conntrack::answers_to::<V>(&parsed.key, &mut parsed.spare)
    {
        return packet.pass();
    }
    let opened = pin::<V>(parsed);
    if opened & REFUSED != 0 {
        return refuse::<V, P>(packet, parsed, opened & !REFUSED);
    }
    conntrack::tell_opened::<V>(opened, &mut parsed.spare);
    parsed.place = opened;
    go_on::<V, P>(packet, Step::Carry)
}

/// Pins a flow that is no service's, and counts nowhere, so that it gets another port of its sender's. By itself for the
/// sake of the stack.
#[inline(never)]
fn pin<V: Family>(parsed: &Parsed<V::Addr>) -> u32 {
    let phase = match phase(parsed, Stray::RESET) {
        Ok(phase) => phase,
        Err(why) => return why,
    };
    if let Some(past) = PAST.get_ptr_mut(0) {
        // SAFETY: a whole word of a map's value, to which nobody writes anything else.
        unsafe { past.write_volatile(1) };
    }
    let backend = BackendId(0);
    // Block 0 is nobody's: what is taken there is given back like anybody's.
    if !account::reserve(backend, u32::MAX) {
        return REFUSED | Reason::Internal as u32;
    }
    conntrack::pin::<V>(Opening {
        addr: parsed.key.dst.words(),
        phase,
        backend,
        chance: conntrack::chance(),
        hash: hashed::<V>(parsed),
        bound: false,
        port: parsed.key.dport,
        again: true,
        way: Direction::FORWARD.ported(),
        limited: ServiceId::MAX,
    })
}
