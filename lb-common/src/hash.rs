//! Hashes of flows and clients, under keys of 64 bits: who doesn't know the key can't choose flows that meet, in a bucket of a
//! flow table or at one backend.
//!
//! Slots of Maglev tables are picked by [`flow`] and [`client`], so nodes must agree on them: they never change, and test
//! vectors hold them.

use crate::abi::{Addr, AffinityKey, FlowKey};

/// The key of consistent hashing where none is configured (`agent.hash_seed`), the same on every node. It is known to all.
pub const DEFAULT_SEED: u64 = u64::from_be_bytes(*b"flowpin1");

/// One more word. With constants of Vigna's, "Further scramblings of Marsaglia's xorshift generators", 2014; both are odd.
#[inline(always)]
const fn round(hash: u64, word: u64) -> u64 {
    (hash ^ (hash >> 32) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

/// After the last word. Products are good at the top.
#[inline(always)]
const fn finish(hash: u64) -> u64 {
    (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Two words as they lie in a packet, so that hosts of either endianness agree.
#[inline(always)]
const fn packed(pair: u64) -> u64 {
    if cfg!(target_endian = "big") { pair.swap_bytes().rotate_left(32) } else { pair }
}

/// Hash of a 5-tuple under a key. Its top bits are the best.
#[inline(always)]
pub fn keyed<A: Addr>(key: &FlowKey<A>, seed: u64) -> u64 {
    let h = A::pairs(key.src, key.dst, seed, |h, pair| round(h, packed(pair)));
    let ports = (key.sport.0.to_le() as u64) << 16 | key.dport.0.to_le() as u64;
    finish(round(h, ports | (key.proto.0 as u64) << 32))
}

/// The finaliser of MurmurHash3 (Austin Appleby, public domain): every input bit flips each output bit with probability one
/// half.
#[inline(always)]
pub const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Hash of a 5-tuple, for consistent hashing. `seed`: the same on all nodes.
#[inline(always)]
pub fn flow<A: Addr>(key: &FlowKey<A>, seed: u64) -> u32 {
    (keyed(key, seed) >> 32) as u32
}

/// Hash of a client's address, whatever its group: for consistent hashing of clients that are bound.
#[inline(always)]
pub const fn client(key: &AffinityKey, seed: u64) -> u32 {
    (finish(round(round(seed, key.high), key.low)) >> 32) as u32
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
    use crate::abi::{Addr4, PortBe, Proto};

    #[test]
    fn vectors() {
        let v4 = FlowKey::new(
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Addr4::from(Ipv4Addr::new(10, 96, 0, 10)),
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
        assert_eq!([flow(&v4, 0x0123_4567_89ab_cdef), flow(&v6, 0x0123_4567_89ab_cdef)], [VECTOR4, VECTOR6]);
    }

    // Computed by an independent implementation.
    const VECTOR4: u32 = 0x90bf_42cd;
    const VECTOR6: u32 = 0x776d_c21e;

    /// Keys that meet under one seed don't under another: nothing is to be gained by trying on a machine of one's own.
    #[test]
    fn who_meets_is_the_seeds_to_say() {
        let key = |port| FlowKey::new(Addr4(7), Addr4(9), PortBe::new(port), PortBe::new(80), Proto::TCP);
        let bucket = |port, seed| reduce(flow(&key(port), seed), 256);
        let meet: Vec<u16> = (0..60_000).filter(|port| bucket(*port, 1) == 0).collect();
        assert!(meet.len() > 150, "{}", meet.len());
        let still = meet.iter().filter(|port| bucket(**port, 2) == bucket(meet[0], 2)).count();
        assert!(still < 10, "{still} of {} meet under another seed", meet.len());
    }

    #[test]
    fn slots_are_even() {
        let mut counts = [0u32; 10];
        for port in 0..50_000u16 {
            let key = FlowKey::new(Addr4(7), Addr4(9), PortBe::new(port), PortBe::new(80), Proto::TCP);
            counts[reduce(flow(&key, 0x5eed), 10) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|c| (*c as f64 - 5000.0).powi(2) / 5000.0).sum();
        assert!(chi2 < 27.9, "{counts:?}: chi-square {chi2}, 0.1 % bound for 9 degrees of freedom is 27.9");
    }
}
