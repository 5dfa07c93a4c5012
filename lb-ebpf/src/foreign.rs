//! Packets that come by and aren't for this node, or can't be from where they say. Who opens flows or answers must not be led by them: promiscuous
//! interfaces, ports of bridges and switches that don't know a MAC address yet show packets to more than those whom they are for.

use lb_common::abi::{Addr, Mac};

use crate::{
    maps::MACS,
    packet::{Hook, Packet, get},
};

/// Is a packet that comes in not for this node, or from an address that is nobody's? The stack knows what to do with such ones.
#[inline(always)]
pub fn is_foreign<P: Packet, A: Addr>(packet: &P, src: A) -> bool {
    packet.hook() != Hook::OUT && (src.is_martian() || !is_addressed(packet))
}

/// Is its frame addressed to this node?
#[inline(always)]
fn is_addressed<P: Packet>(packet: &P) -> bool {
    if let Some(known) = packet.is_addressed() {
        return known;
    }
    let Some(frame) = packet.bytes(0, 6) else { return true };
    // SAFETY: the bytes at `frame` were just bounds-checked.
    let (group, first, rest) = unsafe { (get::<u8>(frame, 0) & 1, get(frame, 0), get(frame, 4)) };
    if group != 0 {
        // To many, which no flow's packet is (RFC 1122, section 3.3.6).
        return false;
    }
    // SAFETY: a whole word that only the agent writes, by replacing the element.
    let is_known = |mac| unsafe { MACS.get(mac) }.is_some();
    is_known(Mac::from_parts(first, rest)) || !is_known(Mac::COMPLETE)
}
