//! Direct server return: the packet goes to its backend as it is, which has the VIP itself and answers the client past the node. On a segment
//! of the node's only the MAC address says to whom; through routers it is put in a packet of the node's (RFC 2003, RFC 2473).

use lb_common::abi::Reason;

use crate::{
    account,
    conntrack::{self, Entry},
    packet::{Packet, get},
    parse::{Header, Parsed},
    reset::Answer,
    rewrite::Rewrite,
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

/// Sends a packet of such a flow. `Err`: the packet again, and why it can't be sent.
#[inline(never)]
pub fn send<V: Answer + Header, P: Packet>(
    packet: &mut P,
    parsed: &mut Parsed<V::Addr>,
    flow: Entry<V::Addr>,
) -> Result<P::Verdict, u32> {
    let Some(ip) = packet.bytes(parsed.l3(), V::LEN) else { return Err(Reason::Internal as u32) };
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    if unsafe { get::<u8>(ip, <V as Rewrite>::HOPS) } <= 1 {
        // The stack tells the sender.
        return Ok(packet.let_pass());
    }
    // SAFETY: the pointer comes from a search in this run.
    let (to, tunnel) = unsafe { ((*flow.at()).nat_addr, (*flow.at()).direction.is_tunnel()) };
    if !conntrack::same(flow) {
        return Err(Reason::FlowBusy as u32);
    }
    account::packet(flow, packet.segments(), parsed.bytes as u64, &parsed.segment);
    let direct =
        Direct { to, tunnel, l3: parsed.l3(), headers: parsed.headers(), bytes: parsed.bytes as usize };
    packet.direct::<V>(&direct).map_err(|mtu| {
        parsed.mtu = mtu;
        if mtu == 0 { Reason::NoWay as u32 } else { Reason::TooBig as u32 }
    })
}
