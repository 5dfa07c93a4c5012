//! Turns a UDP packet into the ICMP "port unreachable" that a host without a listener would answer with (RFC 1122 section
//! 4.1.3.1, RFC 4443 section 3.1), quoting the packet's headers; or one of either protocol into the word that it is too big (RFC 1191 section 4, RFC
//! 4443 section 3.2). At most a thousand or so a second per CPU, and fifty at once, as hosts do.

use lb_common::{abi::Proto, checksum};

use crate::{
    packet::{Packet, get, put},
    parse::{Header, Parsed},
    quota::Quota,
    reset::{Answer, turn_ethernet},
    rewrite::{TCP_CHECK, UDP_CHECK, pseudo_sum},
};

const UDP_LEN: usize = 8;
const TCP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
/// Words quoted at most: an IPv4 header with 48 bytes of options, or an IPv6 header with 28 bytes of extensions, and the TCP header.
const MAX_WORDS: usize = 22;

/// Makes the packet the answer to itself. False: it couldn't be made, or one too many.
#[inline(never)]
pub fn make<V: Answer + Header, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> bool {
    let kind = if V::IS_V6 { 0x0104 } else { 0x0303 };
    build::<V, P>(packet, parsed, kind, 0).is_some()
}

/// Makes the packet the word to its sender that it should have at most `mtu` bytes, IP header included. False: as above.
#[inline(never)]
pub fn too_big<V: Answer + Header, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>, mtu: u32) -> bool {
    let kind = if V::IS_V6 { 0x0200 } else { 0x0304 };
    build::<V, P>(packet, parsed, kind, mtu).is_some()
}

/// `kind`: type and code; `rest`: the second word of the ICMP header.
#[inline(always)]
fn build<V: Answer + Header, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<V::Addr>,
    kind: u16,
    rest: u32,
) -> Option<()> {
    if !Quota::ERRORS.permits() {
        return None;
    }
    let (l3, key) = (parsed.l3(), &parsed.key);
    let tcp = key.proto == Proto::TCP;
    let (header, check) = if tcp { (TCP_LEN, TCP_CHECK) } else { (UDP_LEN, UDP_CHECK) };
    let quoted = parsed.l4() - l3 + header;
    if quoted > MAX_WORDS * 4 {
        return None;
    }
    let partial =
        packet.is_partial(parsed.l4() + check, pseudo_sum(key.src, key.dst, key.proto, parsed.room()));
    packet.truncate(parsed.l4() + header)?;
    packet.insert(l3, V::LEN + ICMP_LEN)?;
    turn_ethernet(packet)?;

    let mut sum = 0;
    let mut word = 0;
    while word < MAX_WORDS {
        if word * 4 < quoted {
            let p = packet.bytes(l3 + V::LEN + ICMP_LEN + word * 4, 4)?;
            // SAFETY: 4 bytes at `p` were just bounds-checked.
            sum = checksum::add(sum, unsafe { get(p, 0) });
        }
        word += 1;
    }
    if partial {
        // Whoever transmits will complete the quoted checksum over what is left of the packet it belonged to. Its value is
        // known beforehand: make the ICMP checksum right for what will be there.
        // Counted from what has a lower bound for the verifier, too.
        let at = parsed.l4() + V::LEN + ICMP_LEN;
        let (mut own, mut word) = (0, 0);
        while word < TCP_LEN / 4 {
            if word * 4 < header {
                let p = packet.bytes(at + word * 4, 4)?;
                // SAFETY: 4 bytes at `p` were just bounds-checked.
                own = checksum::add(own, unsafe { get(p, 0) });
            }
            word += 1;
        }
        let p = packet.bytes(at + check, 2)?;
        // SAFETY: 2 bytes at `p` were just bounds-checked.
        let field: u16 = unsafe { get(p, 0) };
        let completed = match !checksum::fold(own) {
            0 if !tcp => 0xffff,
            c => c,
        };
        // The checksum is the second half of its word; one's complement sums don't mind which half.
        sum = checksum::add(sum, checksum::delta(field as u32, completed as u32));
    }
    sum = checksum::add(sum, kind.to_be() as u32);
    sum = checksum::add(sum, rest.to_be());
    if V::IS_V6 {
        sum = checksum::add(sum, pseudo_sum(key.dst, key.src, <V as Header>::ICMP, ICMP_LEN + quoted) as u32);
    }
    let ip = packet.bytes(l3, V::LEN + ICMP_LEN)?;
    // SAFETY: both headers at `ip` were just bounds-checked.
    unsafe {
        V::header(ip, key.dst, key.src, <V as Header>::ICMP, ICMP_LEN + quoted);
        put(ip, V::LEN, kind.to_be());
        put(ip, V::LEN + 2, !checksum::fold(sum));
        put(ip, V::LEN + 4, rest.to_be());
    }
    Some(())
}
