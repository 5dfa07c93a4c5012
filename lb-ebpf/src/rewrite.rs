//! Puts the translated address and port into a packet: those bytes and the checksums over them, nothing else. No maps.

use lb_common::{
    abi::{Addr, Addr4, Addr6, Flow, FlowKey, IpVersion, PortBe, Proto, V4, V6},
    checksum,
};

use crate::{
    packet::{L4Fix, Packet, get, put},
    parse::Parsed,
};

/// Offset of the checksum in a TCP header.
pub const TCP_CHECK: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECK: usize = 6;

/// What rewriting needs to know of an IP version.
pub trait Rewrite: IpVersion {
    /// Offset of the source address in the IP header.
    const SRC: usize;
    /// Offset of the destination address.
    const DST: usize;
    /// Bytes of the fixed header.
    const LEN: usize;
    /// Offset of the protocol, or next header.
    const PROTO: usize;
    /// Offset of the time to live, or hop limit.
    const HOPS: usize;
    /// Writes an address and, for IPv4, brings the header checksum up to date.
    ///
    /// # Safety
    /// `ip` must be valid for the fixed IP header.
    unsafe fn set(ip: *mut u8, at: usize, addr: Self::Addr, delta: u32);
    /// Writes the time to live, or hop limit, likewise.
    ///
    /// # Safety
    /// As for `set`.
    unsafe fn hops(ip: *mut u8, hops: u8);
}

impl Rewrite for V4 {
    const SRC: usize = 12;
    const DST: usize = 16;
    const LEN: usize = 20;
    const PROTO: usize = 9;
    const HOPS: usize = 8;
    #[inline(always)]
    unsafe fn set(ip: *mut u8, at: usize, addr: Addr4, delta: u32) {
        // SAFETY: the caller vouches for 20 bytes.
        unsafe {
            put(ip, at, addr.0);
            put(ip, 10, checksum::update(get(ip, 10), delta));
        }
    }
    #[inline(always)]
    unsafe fn hops(ip: *mut u8, hops: u8) {
        // SAFETY: the caller vouches for 20 bytes.
        unsafe {
            let old: u16 = get(ip, Self::HOPS);
            put(ip, Self::HOPS, hops);
            let new: u16 = get(ip, Self::HOPS);
            put(ip, 10, checksum::update(get(ip, 10), checksum::delta(old as u32, new as u32)));
        }
    }
}

impl Rewrite for V6 {
    const SRC: usize = 8;
    const DST: usize = 24;
    const LEN: usize = 40;
    const PROTO: usize = 6;
    const HOPS: usize = 7;
    #[inline(always)]
    unsafe fn set(ip: *mut u8, at: usize, addr: Addr6, _delta: u32) {
        // SAFETY: the caller vouches for 40 bytes.
        unsafe {
            put(ip, at, addr.0[0]);
            put(ip, at + 4, addr.0[1]);
            put(ip, at + 8, addr.0[2]);
            put(ip, at + 12, addr.0[3]);
        }
    }
    #[inline(always)]
    unsafe fn hops(ip: *mut u8, hops: u8) {
        // SAFETY: the caller vouches for 40 bytes.
        unsafe { put(ip, Self::HOPS, hops) };
    }
}

/// Change of a sum when `old` is replaced by `new`.
#[inline(always)]
pub fn addr_delta<A: Addr>(old: A, new: A) -> u32 {
    let removed = old.fold(0, |sum, word| checksum::add(sum, !word));
    new.fold(removed, checksum::add)
}

/// The same for ports; 0 if nothing changes.
#[inline(always)]
pub fn port_delta(old: PortBe, new: PortBe) -> u32 {
    if old == new { 0 } else { checksum::delta(old.0 as u32, new.0 as u32) }
}

/// Sum of the pseudo-header, folded, not complemented.
#[inline(always)]
pub fn pseudo_sum<A: Addr>(src: A, dst: A, proto: Proto, len: usize) -> u16 {
    let sum = src.fold(0, checksum::add);
    let sum = dst.fold(sum, checksum::add);
    let sum = checksum::add(sum, (proto.0 as u16).to_be() as u32);
    checksum::fold(checksum::add(sum, (len as u16).to_be() as u32))
}

/// What to put in place of which side of a packet.
pub struct Translation<A> {
    /// The destination, or else the source.
    destination: bool,
    addr: A,
    port: PortBe,
}

impl<A: Addr> Translation<A> {
    /// What a flow's entry asks for.
    #[inline(always)]
    pub fn of(flow: &Flow<A>) -> Self {
        Self { destination: flow.direction.is_forward(), addr: flow.nat_addr, port: flow.nat_port }
    }
}

/// Translates a packet. `None`: the bytes are not there, which parsing has ruled out.
#[inline(always)]
pub fn translate<V: Rewrite, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<V::Addr>,
    to: &Translation<V::Addr>,
) -> Option<()> {
    let forward = to.destination;
    let (old, old_port) =
        if forward { (parsed.key.dst, parsed.key.dport) } else { (parsed.key.src, parsed.key.sport) };
    let address = addr_delta(old, to.addr);
    let ip = packet.bytes(parsed.l3(), V::LEN)?;
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    unsafe { V::set(ip, if forward { V::DST } else { V::SRC }, to.addr, address) };
    if parsed.l4() == 0 {
        return Some(());
    }
    let p = packet.bytes(parsed.l4(), 4)?;
    // SAFETY: 4 bytes at `p` were just bounds-checked.
    unsafe { put(p, if forward { 2 } else { 0 }, to.port.0) };
    fix::<V, P>(packet, parsed, address, port_delta(old_port, to.port))
}

/// Replaces both addresses and ports.
#[inline(always)]
pub fn replace<V: Rewrite, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<V::Addr>,
    new: &FlowKey<V::Addr>,
) -> Option<()> {
    let old = &parsed.key;
    let (source, destination) = (addr_delta(old.src, new.src), addr_delta(old.dst, new.dst));
    let ip = packet.bytes(parsed.l3(), V::LEN)?;
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    unsafe {
        V::set(ip, V::SRC, new.src, source);
        V::set(ip, V::DST, new.dst, destination);
    }
    if parsed.l4() == 0 {
        return Some(());
    }
    let p = packet.bytes(parsed.l4(), 4)?;
    // SAFETY: 4 bytes at `p` were just bounds-checked.
    unsafe {
        put(p, 0, new.sport.0);
        put(p, 2, new.dport.0);
    }
    let ports = checksum::add(port_delta(old.sport, new.sport), port_delta(old.dport, new.dport));
    fix::<V, P>(packet, parsed, checksum::add(source, destination), ports)
}

/// Brings the layer-4 checksum up to date.
#[inline(always)]
fn fix<V: Rewrite, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<V::Addr>,
    addr_delta: u32,
    port_delta: u32,
) -> Option<()> {
    let udp = parsed.key.proto == Proto::UDP;
    // Who cuts a datagram in pieces has finished its checksum.
    let pseudo = if P::MAY_BE_PARTIAL && parsed.first == 0 {
        pseudo_sum(parsed.key.src, parsed.key.dst, parsed.key.proto, parsed.room())
    } else {
        0
    };
    packet.fix_l4(&L4Fix {
        at: parsed.l4() + if udp { UDP_CHECK } else { TCP_CHECK },
        addr_delta,
        port_delta,
        udp,
        v6: V::IS_V6,
        pseudo,
    })
}

#[cfg(test)]
mod tests;
