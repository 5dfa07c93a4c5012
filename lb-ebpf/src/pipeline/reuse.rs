//! A flow couldn't be pinned since another has the port that it was to have. If that one is closed and only lingers, it goes; then the packet tries once more.

use lb_common::abi::Reason;

use super::{Family, go_on, parsed};
use crate::{
    packet::{Packet, Step},
    snat,
};

/// See the module.
#[inline(always)]
pub fn reuse<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    if parsed.because == Reason::NoSourcePort as u32 {
        snat::dismiss_any::<V>(&mut parsed.spare);
    } else {
        snat::dismiss_lingering::<V>(&mut parsed.spare);
    }
    parsed.again += 1;
    go_on::<V, P>(packet, Step::Open)
}
