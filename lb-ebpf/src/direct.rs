//! Direct server return: the packet goes to its backend as it is, which has the VIP itself and answers the client past the node. On a segment
//! of the node's only the MAC address says to whom; through routers it is put in a packet of the node's (RFC 2003, RFC 2473).

use lb_common::abi::Reason;

use crate::{
    account,
    conntrack::{self, Entry},
    maps::Tables,
    packet::{Packet, get},
    parse::{Header, Parsed},
    reset::Answer,
    rewrite::Rewrite,
    unreachable,
};

/// Where a packet is to go that stays as it is.
pub struct Direct<A> {
    /// The backend.
    pub to: A,
    /// Put it in another packet?
    pub tunnel: bool,
    /// Offset of the IP header.
    pub l3: usize,
    /// Bytes from there to the payload.
    pub headers: usize,
    /// Bytes from there to the end.
    pub bytes: usize,
}

/// Sends a packet of such a flow.
#[inline(never)]
pub fn send<V: Tables + Answer + Header, P: Packet>(
    mut packet: P,
    parsed: &Parsed<V::Addr>,
    flow: Entry<V::Addr>,
) -> P::Verdict {
    if !P::DIRECT {
        // TC sees to it.
        return packet.pass();
    }
    let Some(ip) = packet.bytes(parsed.l3(), V::LEN) else { return packet.drop() };
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    if unsafe { get::<u8>(ip, <V as Rewrite>::HOPS) } <= 1 {
        // The stack tells the sender.
        return packet.pass();
    }
    // SAFETY: the pointer comes from a search in this run.
    let (to, tunnel) = unsafe { ((*flow.at()).nat_addr, (*flow.at()).direction.is_tunnel()) };
    if !conntrack::same(flow) {
        account::reason(Reason::FlowBusy as u32);
        return packet.drop();
    }
    account::packet(flow, packet.segments(), parsed.bytes as u64, &parsed.segment);
    let direct =
        Direct { to, tunnel, l3: parsed.l3(), headers: parsed.headers(), bytes: parsed.bytes as usize };
    match packet.direct::<V>(&direct) {
        Ok(verdict) => verdict,
        Err(0) => {
            account::reason(Reason::NoWay as u32);
            packet.drop()
        }
        Err(mtu) => {
            account::reason(Reason::TooBig as u32);
            if parsed.l4() != 0 && unreachable::too_big::<V, P>(&mut packet, parsed, mtu) {
                return packet.send_back();
            }
            account::reason(Reason::Unanswered as u32);
            packet.drop()
        }
    }
}
