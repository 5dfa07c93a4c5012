//! Turns a UDP packet into the ICMP "port unreachable" that a host without a listener would answer with (RFC 1122 section
//! 4.1.3.1, RFC 4443 section 3.1), quoting the packet's headers. At most a thousand or so a second per CPU, and fifty at once, as hosts do.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::checksum;

use crate::{
    maps::ANSWERS,
    packet::{Packet, get, put},
    parse::{Header, Parsed},
    reset::{Answer, turn_ethernet},
    rewrite::{UDP_CHECK, pseudo_sum},
};

const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;
/// Answers per tick and CPU: 1,000 a second at 250 Hz, as Linux's `icmp_msgs_per_sec`.
const PER_TICK: u32 = 4;
/// Answers at once after a quiet time, as Linux's `icmp_msgs_burst`.
const BURST: u32 = 50;
/// Words quoted at most: an IPv4 header with all options, or an IPv6 header with 40 bytes of extensions, and the UDP header.
const MAX_WORDS: usize = 22;

/// May another answer be sent in this tick?
#[inline(always)]
fn permitted() -> bool {
    let Some(state) = ANSWERS.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq.
    unsafe {
        let tick = bpf_jiffies64() as u32;
        let passed = tick.wrapping_sub(*state as u32);
        let left = if passed >= BURST { BURST } else { (*state >> 32) as u32 + passed * PER_TICK };
        let left = if left > BURST { BURST } else { left };
        *state = (left.saturating_sub(1) as u64) << 32 | tick as u64;
        left > 0
    }
}

/// Makes the packet the answer to itself. False: it couldn't be made, or one too many.
#[inline(never)]
pub fn make<V: Answer + Header, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> bool {
    build::<V, P>(packet, parsed).is_some()
}

#[inline(always)]
fn build<V: Answer + Header, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> Option<()> {
    if !permitted() {
        return None;
    }
    let (l3, key) = (parsed.l3(), &parsed.key);
    let quoted = parsed.l4() - l3 + UDP_LEN;
    if quoted > MAX_WORDS * 4 {
        return None;
    }
    let partial =
        packet.is_partial(parsed.l4() + UDP_CHECK, pseudo_sum(key.src, key.dst, key.proto, parsed.room()));
    packet.truncate(parsed.l4() + UDP_LEN)?;
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
        let p = packet.bytes(l3 + V::LEN + ICMP_LEN + quoted - UDP_LEN, UDP_LEN)?;
        // SAFETY: 8 bytes at `p` were just bounds-checked.
        let (a, b, field): (u32, u32, u16) = unsafe { (get(p, 0), get(p, 4), get(p, UDP_CHECK)) };
        let completed = match !checksum::fold(checksum::add(a, b)) {
            0 => 0xffff,
            c => c,
        };
        // The checksum is the second half of its word; one's complement sums don't mind which half.
        sum = checksum::add(sum, checksum::delta(field as u32, completed as u32));
    }
    let kind: u16 = if V::IS_V6 { 0x0104 } else { 0x0303 };
    sum = checksum::add(sum, kind.to_be() as u32);
    if V::IS_V6 {
        sum = checksum::add(sum, pseudo_sum(key.dst, key.src, <V as Header>::ICMP, ICMP_LEN + quoted) as u32);
    }
    let ip = packet.bytes(l3, V::LEN + ICMP_LEN)?;
    // SAFETY: both headers at `ip` were just bounds-checked.
    unsafe {
        V::header(ip, key.dst, key.src, <V as Header>::ICMP, ICMP_LEN + quoted);
        put(ip, V::LEN, kind.to_be());
        put(ip, V::LEN + 2, !checksum::fold(sum));
        put(ip, V::LEN + 4, 0u32);
    }
    Some(())
}
