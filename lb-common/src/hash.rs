//! The flow hash: MurmurHash3 (x86, 32 bits; Austin Appleby, public domain) over the words of a 5-tuple. It picks slots of
//! Maglev tables, so nodes must agree on it: it never changes, and test vectors hold it.

use crate::abi::{Addr, AffinityKey, FlowKey};

/// Seed of the flow hash, the same on every node.
pub const SEED: u32 = 0x666c_6f77;

#[inline(always)]
const fn round(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// MurmurHash3's finaliser: every input bit flips each output bit with probability one half.
#[inline(always)]
pub const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Hash of a 5-tuple. Words are taken in network order, so that hosts of either endianness agree.
#[inline(always)]
pub fn flow<A: Addr>(key: &FlowKey<A>) -> u32 {
    let h = key.src.fold(SEED, |h, w| round(h, u32::from_be(w)));
    let h = key.dst.fold(h, |h, w| round(h, u32::from_be(w)));
    let h = round(h, (key.sport.get() as u32) << 16 | key.dport.get() as u32);
    mix(round(h, key.proto.0 as u32))
}

/// Hash of a client's address, whatever its group: for consistent hashing of clients that are bound.
#[inline(always)]
pub const fn client(key: &AffinityKey) -> u32 {
    let h = round(round(SEED, (key.high >> 32) as u32), key.high as u32);
    mix(round(round(h, (key.low >> 32) as u32), key.low as u32))
}

/// Maps a hash onto `0..n` without a division (Lemire, "Fast random integer generation in an interval", 2018).
#[inline(always)]
pub const fn reduce(hash: u32, n: u32) -> u32 {
    ((hash as u64 * n as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::abi::{PortBe, Proto};

    #[test]
    fn vectors() {
        let v4 = FlowKey::new(
            Ipv4Addr::new(192, 0, 2, 1).into(),
            crate::abi::Addr4::from(Ipv4Addr::new(10, 96, 0, 10)),
            PortBe::new(40000),
            PortBe::new(443),
            Proto::TCP,
        );
        let v6 = FlowKey::new(
            crate::abi::Addr6::from("2001:db8::1".parse::<Ipv6Addr>().unwrap()),
            "fd00::10".parse::<Ipv6Addr>().unwrap().into(),
            PortBe::new(40000),
            PortBe::new(443),
            Proto::UDP,
        );
        assert_eq!([flow(&v4), flow(&v6)], [VECTOR4, VECTOR6]);
    }

    // Computed by an independent implementation.
    const VECTOR4: u32 = 0x88802004;
    const VECTOR6: u32 = 0x48b603d8;

    #[test]
    fn slots_are_even() {
        let mut counts = [0u32; 10];
        for port in 0..50_000u16 {
            let key = FlowKey::new(
                crate::abi::Addr4(7),
                crate::abi::Addr4(9),
                PortBe::new(port),
                PortBe::new(80),
                Proto::TCP,
            );
            counts[reduce(flow(&key), 10) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|c| (*c as f64 - 5000.0).powi(2) / 5000.0).sum();
        assert!(chi2 < 27.9, "{counts:?}: chi-square {chi2}, 0.1 % bound for 9 degrees of freedom is 27.9");
    }
}
