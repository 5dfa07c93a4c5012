//! The Internet checksum (RFC 1071), updated incrementally (RFC 1624, equation 3). Sums are taken over words as they lie in
//! memory: one's complement addition does not care about byte order as long as all agree.

/// Folds a sum to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// One's complement sum of two 32-bit sums.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u32)
}

/// What replacing `old` by `new` adds to a sum.
#[inline(always)]
pub const fn delta(old: u32, new: u32) -> u32 {
    add(!old, new)
}

/// A complete checksum after its packet's sum grew by `delta`.
#[inline(always)]
pub const fn update(check: u16, delta: u32) -> u16 {
    !fold(add((!check) as u32, delta))
}

/// The same for UDP, where 0 means "no checksum" and stays 0, and a computed 0 is sent as 0xffff (RFC 768).
#[inline(always)]
pub const fn update_udp(check: u16, delta: u32) -> u16 {
    if check == 0 {
        return 0;
    }
    match update(check, delta) {
        0 => 0xffff,
        c => c,
    }
}

/// A partial checksum (Linux `CHECKSUM_PARTIAL`: the field holds the sum of the pseudo-header, not complemented, and
/// whoever transmits adds the rest) after an address in the pseudo-header changed. Ports are not in it yet.
#[inline(always)]
pub const fn update_partial(check: u16, delta: u32) -> u16 {
    fold(add(check as u32, delta))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(words: &[u32]) -> u16 {
        !fold(words.iter().fold(0, |s, w| add(s, *w)))
    }

    #[test]
    fn rfc1624_example() {
        // RFC 1624, section 4: checksum 0xdd2f, field 0x5555 becomes 0x3285, result 0x0000.
        let delta = delta(0x5555, 0x3285);
        assert_eq!(update(0xdd2f, delta), 0x0000);
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        assert_eq!(update_udp(0, 0x1234_5678), 0);
        // The result that would read as "none" is sent as its other form.
        assert_eq!(update_udp(0xdd2f, delta(0x5555, 0x3285)), 0xffff);
    }

    proptest! {
        #[test]
        fn update_equals_recomputation(mut words in prop::collection::vec(any::<u32>(), 1..40), at in any::<prop::sample::Index>(), new: u32) {
            let at = at.index(words.len());
            // A sum of nothing but zeros is the one case where -0 and +0 differ; no IP packet is all zeros.
            words.push(0x4500_0001);
            let before = full(&words);
            let updated = update(before, delta(words[at], new));
            words[at] = new;
            prop_assert_eq!(updated, full(&words));
        }

        #[test]
        fn partial_then_completed_equals_recomputation(old: u32, new: u32, peer in 1u32.., ports: u32, payload in prop::collection::vec(any::<u32>(), 0..20)) {
            let partial = fold(add(add(old, peer), 6));
            let moved = update_partial(partial, delta(old, new));
            let completed = !fold(payload.iter().fold(add(moved as u32, ports), |s, w| add(s, *w)));
            let mut all = vec![new, peer, 6, ports];
            all.extend(&payload);
            prop_assert_eq!(completed, full(&all));
        }
    }
}
