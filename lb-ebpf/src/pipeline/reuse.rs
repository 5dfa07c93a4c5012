//! A flow couldn't be pinned: another has the port, the place or the binding that it was to have, or the table is full. If one that gives way is
//! there, it goes; then the packet tries once more.

use lb_common::abi::{FlowKey, Reason, ServiceId};

use super::{Family, go_on, open::ROOMS, parsed, refuse};
use crate::{
    account,
    conntrack::{
        room,
        waiting::{MORE, Scarce},
    },
    packet::{Packet, Step},
    parse::ROOM,
    service, snat,
    table::NOWHERE,
};

/// See the module.
#[inline(always)]
pub fn reuse<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    let reason = parsed.because;
    if reason == Reason::TableFull as u32 {
        room::make::<V>(&mut parsed.spare);
        parsed.again += ROOM;
        return go_on::<V, P>(packet, Step::Open);
    }
    if reason == Reason::PortConflict as u32 {
        snat::dismiss_lingering::<V>(&mut parsed.spare);
        parsed.again += 1;
        return go_on::<V, P>(packet, Step::Open);
    }
    let place = if reason == Reason::NoSourcePort as u32 {
        V::yielding_port(&mut parsed.spare)
    } else {
        let what = if reason == Reason::AffinityFull as u32 { Scarce::Bindings } else { Scarce::Places };
        V::overdue(&mut parsed.spare, service::<V>(&parsed.key), what as u32)
    };
    // If it has gone of itself, or another CPU was faster, there may be another.
    let found = place != NOWHERE;
    if found && place != MORE {
        room::dismiss::<V>(place, &mut parsed.spare);
    }
    match reason {
        _ if reason == Reason::NoSourcePort as u32 => parsed.again += 1,
        _ if found => parsed.again += ROOM,
        _ if reason == Reason::AffinityFull as u32 => {
            account::reason(reason);
            parsed.again += ROOMS * ROOM;
        }
        _ => return refuse::<V, P>(packet, parsed, reason),
    }
    go_on::<V, P>(packet, Step::Open)
}

/// The service that it is for; one that isn't, if there is none any more. By itself for the sake of the stack.
#[inline(never)]
fn service<V: Family>(key: &FlowKey<V::Addr>) -> ServiceId {
    service::lookup::<V>(key).map_or(ServiceId::MAX, |service| service.id)
}
