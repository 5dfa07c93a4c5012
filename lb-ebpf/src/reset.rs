//! Turns a TCP packet into the RST that answers it, in place.

use lb_common::{
    abi::{Addr4, Addr6, Proto, Reason, V4, V6},
    checksum,
    flow_state::flags,
};

use crate::{
    packet::{Packet, get, put},
    parse::Parsed,
    quota::Quota,
    rewrite::{Rewrite, TCP_CHECK, pseudo_sum},
};

/// Time to live of answers: what hosts use (RFC 1700).
pub const TTL: u8 = 64;
const TCP_LEN: usize = 20;

/// Writing a fresh IP header.
pub trait Answer: Rewrite {
    /// Writes a header without options or extensions, followed by `payload` bytes.
    ///
    /// # Safety
    /// `ip` must be valid for `LEN` bytes.
    unsafe fn header(ip: *mut u8, src: Self::Addr, dst: Self::Addr, proto: Proto, payload: usize);
}

impl Answer for V4 {
    #[inline(always)]
    unsafe fn header(ip: *mut u8, src: Addr4, dst: Addr4, proto: Proto, payload: usize) {
        let total = (Self::LEN + payload) as u32;
        // Version, header length and total length; identification 0 with "don't fragment" (RFC 6864); TTL and protocol.
        let words = [
            (0x4500_0000 | total & 0xffff).to_be(),
            0x0000_4000u32.to_be(),
            ((TTL as u32) << 24 | (proto.0 as u32) << 16).to_be(),
        ];
        let mut sum = checksum::add(src.0, dst.0);
        sum = checksum::add(sum, words[0]);
        sum = checksum::add(sum, words[1]);
        sum = checksum::add(sum, words[2]);
        // SAFETY: the caller vouches for 20 bytes.
        unsafe {
            put(ip, 0, words[0]);
            put(ip, 4, words[1]);
            put(ip, 8, words[2]);
            put(ip, 10, !checksum::fold(sum));
            put(ip, 12, src.0);
            put(ip, 16, dst.0);
        }
    }
}

impl Answer for V6 {
    #[inline(always)]
    unsafe fn header(ip: *mut u8, src: Addr6, dst: Addr6, proto: Proto, payload: usize) {
        // SAFETY: the caller vouches for 40 bytes.
        unsafe {
            put(ip, 0, 0x6000_0000u32.to_be());
            put(ip, 4, ((payload as u32) << 16 | (proto.0 as u32) << 8 | TTL as u32).to_be());
            put(ip, 8, src.0[0]);
            put(ip, 12, src.0[1]);
            put(ip, 16, src.0[2]);
            put(ip, 20, src.0[3]);
            put(ip, 24, dst.0[0]);
            put(ip, 28, dst.0[1]);
            put(ip, 32, dst.0[2]);
            put(ip, 36, dst.0[3]);
        }
    }
}

/// Swaps the Ethernet addresses.
#[inline(always)]
pub fn turn_ethernet<P: Packet>(packet: &P) -> Option<()> {
    let p = packet.bytes(0, 14)?;
    // SAFETY: 14 bytes at `p` were just bounds-checked.
    unsafe {
        let (d0, d1, d2): (u16, u16, u16) = (get(p, 0), get(p, 2), get(p, 4));
        let (s0, s1, s2): (u16, u16, u16) = (get(p, 6), get(p, 8), get(p, 10));
        put(p, 0, s0);
        put(p, 2, s1);
        put(p, 4, s2);
        put(p, 6, d0);
        put(p, 8, d1);
        put(p, 10, d2);
    }
    Some(())
}

/// Makes the packet the RST that its sender expects of a closed port (RFC 9293, section 3.10.7.1). False: it couldn't be made, or one too many.
#[inline(never)]
pub fn make<V: Answer, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> bool {
    // Who is told that the operator has closed its connection is in no flood.
    let due = parsed.because == Reason::ConnectionClosed as u32;
    (due || Quota::REPLIES.permits()) && build::<V, P>(packet, parsed).is_some()
}

#[inline(always)]
fn build<V: Answer, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> Option<()> {
    let (l3, key, segment) = (parsed.l3(), &parsed.key, &parsed.segment);
    let (seq, ack, bits) = if segment.flags & flags::ACK != 0 {
        (segment.ack, 0, flags::RST)
    } else {
        let syn = (segment.flags & flags::SYN != 0) as u32;
        let fin = (segment.flags & flags::FIN != 0) as u32;
        (0, segment.seq.wrapping_add(segment.len).wrapping_add(syn + fin), flags::RST | flags::ACK)
    };
    let partial =
        packet.is_partial(parsed.l4() + TCP_CHECK, pseudo_sum(key.src, key.dst, key.proto, parsed.room()));
    // Whoever completes a partial checksum writes where the TCP header was; the answer's must be there too.
    if partial && parsed.l4() != l3 + V::LEN {
        return None;
    }
    packet.truncate(l3 + V::LEN + TCP_LEN)?;
    turn_ethernet(packet)?;
    let ip = packet.bytes(l3, V::LEN + TCP_LEN)?;
    let ports = (key.dport.get() as u32) << 16 | key.sport.get() as u32;
    let control = (TCP_LEN as u32 / 4) << 28 | (bits as u32) << 16;
    let words = [ports.to_be(), seq.to_be(), ack.to_be(), control.to_be()];
    let pseudo = pseudo_sum(key.dst, key.src, Proto::TCP, TCP_LEN);
    let mut sum = pseudo as u32;
    sum = checksum::add(sum, words[0]);
    sum = checksum::add(sum, words[1]);
    sum = checksum::add(sum, words[2]);
    sum = checksum::add(sum, words[3]);
    // SAFETY: both headers at `ip` were just bounds-checked.
    unsafe {
        V::header(ip, key.dst, key.src, Proto::TCP, TCP_LEN);
        put(ip, V::LEN, words[0]);
        put(ip, V::LEN + 4, words[1]);
        put(ip, V::LEN + 8, words[2]);
        put(ip, V::LEN + 12, words[3]);
        put(ip, V::LEN + 16, if partial { pseudo } else { !checksum::fold(sum) });
        put(ip, V::LEN + 18, 0u16);
    }
    Some(())
}
