//! A packet of no flow and for no service. At a VIP that is nothing else it is refused: passed on, it would come back by the route that led it here. To a
//! backend it goes past us, with another port of its sender's if the backend knows a flow of ours by that port.

use lb_common::{
    abi::{Addr as _, BackendId, Direction, Proto, Reason, Stray},
    hash,
};

use super::{Family, go_on, open::phase, parsed, refuse};
use crate::{
    account,
    conntrack::{self, Opening, REFUSED},
    foreign,
    maps::{HASH_SEED, PAST},
    packet::{Hook, Packet, Step},
    parse::Parsed,
    service,
};

/// See the module.
#[inline(always)]
pub fn past<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    if foreign::is_foreign(&packet, parsed.key.src) {
        return packet.pass();
    }
    if service::vip::<V>(parsed.key.dst).is_some_and(|vip| vip.is_owned()) {
        return refuse::<V, P>(packet, parsed, Reason::NoService as u32);
    }
    let begins = parsed.key.proto != Proto::TCP || parsed.segment.opens();
    if !begins
        || !service::may_be_backend(parsed.key.dst)
        || packet.hook() == Hook::BESIDES
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

/// Pins a flow that is no service's, and counts nowhere, so that it gets another port of its sender's.
#[inline(always)]
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
        hash: hash::flow(&parsed.key, HASH_SEED.load()),
        bound: false,
        port: parsed.key.dport,
        again: true,
        way: Direction::FORWARD.ported(),
    })
}
