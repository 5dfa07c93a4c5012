//! ICMP and ICMPv6: pings of a VIP are answered; an error about a packet of a flow reaches the end that sent it, and speaks of the packet as
//! that end knows it (RFC 5508, RFC 7915 section 4.2). No answer is made to an error.
//!
//! An error quotes a packet that went the other way, and so travels in the direction of the flow entry that has the quoted 5-tuple
//! reversed as its key: what that entry does to packets is what is to be done to the error, and the reverse of it to the quotation.

use lb_common::{
    abi::{Addr4, Addr6, PortBe, Proto, V4, V6},
    checksum,
};

use crate::{
    conntrack,
    packet::{L4Fix, Packet, get, put},
    parse::Parsed,
    quota::Quota,
    reset::{Answer, TTL, turn_ethernet},
    rewrite::{TCP_CHECK, UDP_CHECK, addr_delta, port_delta},
    service,
    table::{self, Locate},
};

/// Bytes of an ICMP header.
const HEADER: usize = 8;
/// Offset of its checksum.
const CHECK: usize = 2;

/// What ICMP is in an IP version.
pub trait Icmp: Locate + Answer {
    /// Type of an echo request.
    const ECHO: u8;
    /// Type of an echo reply.
    const REPLY: u8;
    /// Is this an error, which quotes a packet?
    fn is_error(kind: u8) -> bool;
    /// The quoted packet's protocol and the length of its IP header; `None` if it isn't a first fragment of TCP or UDP.
    ///
    /// # Safety
    /// `ip` must be valid for the fixed IP header.
    unsafe fn quoted(ip: *const u8) -> Option<(Proto, usize)>;
    /// An address in an IP header.
    ///
    /// # Safety
    /// As for `quoted`.
    unsafe fn stands(ip: *const u8, at: usize) -> Self::Addr;
}

impl Icmp for V4 {
    const ECHO: u8 = 8;
    const REPLY: u8 = 0;
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, time exceeded, parameter problem (RFC 792). Source quench is deprecated, redirects are not for hosts behind us.
        matches!(kind, 3 | 11 | 12)
    }
    #[inline(always)]
    unsafe fn quoted(ip: *const u8) -> Option<(Proto, usize)> {
        // SAFETY: the caller vouches for 20 bytes.
        let (first, fragment, proto): (u8, u16, u8) = unsafe { (get(ip, 0), get(ip, 6), get(ip, 9)) };
        let len = (first & 0xf) as usize * 4;
        if first >> 4 != 4 || len < 20 || u16::from_be(fragment) & 0x1fff != 0 {
            return None;
        }
        Some((Proto(proto), len))
    }
    #[inline(always)]
    unsafe fn stands(ip: *const u8, at: usize) -> Addr4 {
        // SAFETY: the caller vouches for the header.
        Addr4(unsafe { get(ip, at) })
    }
}

impl Icmp for V6 {
    const ECHO: u8 = 128;
    const REPLY: u8 = 129;
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
        matches!(kind, 1..=4)
    }
    #[inline(always)]
    unsafe fn quoted(ip: *const u8) -> Option<(Proto, usize)> {
        // SAFETY: the caller vouches for 40 bytes.
        let (first, next): (u8, u8) = unsafe { (get(ip, 0), get(ip, 6)) };
        if first >> 4 != 6 { None } else { Some((Proto(next), 40)) }
    }
    #[inline(always)]
    unsafe fn stands(ip: *const u8, at: usize) -> Addr6 {
        // SAFETY: the caller vouches for the header.
        Addr6(unsafe { [get(ip, at), get(ip, at + 4), get(ip, at + 8), get(ip, at + 12)] })
    }
}

/// What is to be done with an ICMP packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Meant {
    /// It goes on, translated or as it was.
    Onward = 0,
    /// It is now the answer to itself.
    Answer = 1,
    /// It was being translated when something was missing: it can't go on.
    Spoilt = 2,
    /// It would be answered, but too many were.
    Withheld = 3,
}

/// An ICMP packet. `echo`: pings are answered.
#[inline(never)]
pub fn meet<V: Icmp, P: Packet>(packet: &mut P, parsed: &mut Parsed<V::Addr>, echo: bool) -> Meant {
    if parsed.room() < HEADER {
        return Meant::Onward;
    }
    let Some(p) = packet.bytes(parsed.l4(), HEADER) else { return Meant::Onward };
    // SAFETY: 8 bytes at `p` were just bounds-checked.
    let kind: u8 = unsafe { get(p, 0) };
    if V::is_error(kind) {
        return match about::<V, P>(packet, parsed) {
            Some(len) => match translate::<V, P>(packet, parsed, len) {
                Some(()) => Meant::Onward,
                None => Meant::Spoilt,
            },
            None => Meant::Onward,
        };
    }
    if !echo || kind != V::ECHO || service::vip::<V>(parsed.key.dst).is_none() {
        return Meant::Onward;
    }
    if !Quota::REPLIES.permits() {
        return Meant::Withheld;
    }
    if answer::<V, P>(packet, parsed).is_some() { Meant::Answer } else { Meant::Spoilt }
}

/// Makes an echo request its reply.
#[inline(always)]
fn answer<V: Icmp, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> Option<()> {
    turn_ethernet(packet)?;
    let (l3, src, dst) = (parsed.l3(), parsed.key.src, parsed.key.dst);
    let ip = packet.bytes(l3, V::LEN)?;
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    unsafe {
        V::set(ip, V::SRC, dst, addr_delta(src, dst));
        V::set(ip, V::DST, src, addr_delta(dst, src));
        V::hops(ip, TTL);
    }
    let p = packet.bytes(parsed.l4(), 2)?;
    // SAFETY: 2 bytes at `p` were just bounds-checked.
    let (old, new) = unsafe {
        let old: u16 = get(p, 0);
        put(p, 0, V::REPLY);
        (old, get::<u16>(p, 0))
    };
    fix::<V, P>(packet, parsed, 0, checksum::delta(old as u32, new as u32))
}

/// IP header length of the packet that an error is about. Its 5-tuple, reversed, is then in `parsed`.
#[inline(always)]
fn about<V: Icmp, P: Packet>(packet: &P, parsed: &mut Parsed<V::Addr>) -> Option<usize> {
    let at = parsed.l4() + HEADER;
    let ip = packet.bytes(at, V::LEN)?;
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    let (proto, len, src, dst) = unsafe {
        let (proto, len) = V::quoted(ip)?;
        (proto, len, V::stands(ip, V::SRC), V::stands(ip, V::DST))
    };
    // It is told to whoever sent the packet. Padding is no part of the quotation.
    if (proto != Proto::TCP && proto != Proto::UDP)
        || src != parsed.key.dst
        || HEADER + len + 8 > parsed.room()
    {
        return None;
    }
    let p = packet.bytes(at + len, 4)?;
    // SAFETY: 4 bytes at `p` were just bounds-checked.
    let (sport, dport) = unsafe { (PortBe(get(p, 0)), PortBe(get(p, 2))) };
    (parsed.quoted.src, parsed.quoted.dst) = (dst, src);
    (parsed.quoted.sport, parsed.quoted.dport, parsed.quoted.proto) = (dport, sport, proto);
    Some(len)
}

/// Translates an error about the packet that it quotes, whose IP header is `len` bytes long, if that is of a flow.
#[inline(always)]
fn translate<V: Icmp, P: Packet>(packet: &mut P, parsed: &mut Parsed<V::Addr>, len: usize) -> Option<()> {
    let Some(flow) = table::visit::<V>(&parsed.quoted) else { return Some(()) };
    // SAFETY: the pointer comes from a search in this run.
    if packet.hook().leaves_alone(unsafe { (*flow.at()).direction }) {
        return Some(());
    }
    if !conntrack::translated::<V>(flow, &mut parsed.spare) || !conntrack::same(flow) {
        return Some(());
    }
    let (old, new) = (&parsed.quoted, &parsed.spare);
    let proto = old.proto;
    let (source, destination) = (addr_delta(old.src, new.src), addr_delta(old.dst, new.dst));
    let ip = packet.bytes(parsed.l3(), V::LEN)?;
    let mut pseudo = destination;
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    unsafe {
        V::set(ip, V::DST, new.dst, destination);
        // From the far end itself, or from a router on the way, whose address stays.
        if parsed.key.src == old.src {
            V::set(ip, V::SRC, new.src, source);
            pseudo = checksum::add(pseudo, source);
        }
    }
    let at = parsed.l4() + HEADER;
    let ip = packet.bytes(at, V::LEN)?;
    // SAFETY: as above.
    unsafe {
        V::set(ip, V::SRC, new.dst, destination);
        V::set(ip, V::DST, new.src, source);
    }
    let addresses = checksum::add(source, destination);
    let p = packet.bytes(at + len, 4)?;
    // SAFETY: 4 bytes at `p` were just bounds-checked.
    unsafe {
        put(p, 0, new.dport.0);
        put(p, 2, new.sport.0);
    }
    let ports = checksum::add(port_delta(old.dport, new.dport), port_delta(old.sport, new.sport));
    // The quoted IPv4 header's own checksum has made up for its addresses.
    let mut quoted = if V::IS_V6 { checksum::add(addresses, ports) } else { ports };
    let udp = proto == Proto::UDP;
    let check = len + if udp { UDP_CHECK } else { TCP_CHECK };
    if HEADER + check + 2 <= parsed.room()
        && let Some(p) = packet.bytes(at + check, 2)
    {
        let delta = checksum::add(addresses, ports);
        // SAFETY: 2 bytes at `p` were just bounds-checked.
        unsafe {
            let old: u16 = get(p, 0);
            let new = if udp { checksum::update_udp(old, delta) } else { checksum::update(old, delta) };
            put(p, 0, new);
            quoted = checksum::add(quoted, checksum::delta(old as u32, new as u32));
        }
    }
    fix::<V, P>(packet, parsed, pseudo, quoted)
}

/// Brings the ICMP checksum up to date: `pseudo`, a change of addresses; `own`, of what follows the IP header.
#[inline(always)]
fn fix<V: Icmp, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>, pseudo: u32, own: u32) -> Option<()> {
    packet.fix_l4(&L4Fix {
        at: parsed.l4() + CHECK,
        // ICMP for IPv4 has no pseudo-header.
        addr_delta: if V::IS_V6 { pseudo } else { 0 },
        port_delta: own,
        udp: false,
        v6: V::IS_V6,
        pseudo: 0,
    })
}
