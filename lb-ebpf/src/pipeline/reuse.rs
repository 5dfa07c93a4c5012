//! A flow couldn't be pinned: another has the port that it was to have, or the table is full. If one that gives way is there, it goes; then the packet
//! tries once more.

use lb_common::abi::Reason;

use super::{Family, go_on, parsed};
use crate::{
    conntrack::room,
    packet::{Packet, Step},
    parse::ROOM,
    snat,
};

/// See the module.
#[inline(always)]
pub fn reuse<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    if parsed.because == Reason::TableFull as u32 {
        room::make::<V>(&mut parsed.spare);
        parsed.again += ROOM;
        return go_on::<V, P>(packet, Step::Open);
    }
    if parsed.because == Reason::NoSourcePort as u32 {
        snat::dismiss_any::<V>(&mut parsed.spare);
    } else {
        snat::dismiss_lingering::<V>(&mut parsed.spare);
    }
    parsed.again += 1;
    go_on::<V, P>(packet, Step::Open)
}
