//! What may be a service's or a flow's: bits in a table small enough to stay in the cache, which spare nearly all packets that aren't ours every
//! other lookup (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970, with one hash). Three kinds of bits, told apart by
//! what is hashed:
//!
//! - a frontend's VIP, port and protocol ([`bit`]);
//! - an address to which packets of flows are sent before they are translated, that is a VIP or an address for source NAT ([`destination`]);
//! - an address from which backends answer ([`backend`]).
//!
//! The latter two stay as long as a flow may need them.

use crate::abi::{Addr, PortBe, Proto};

/// Words of 64 bits: 256 KiB. With 10,000 VIPs and 100,000 backends, one packet in twenty that isn't ours has a bit that is set.
pub const WORDS: usize = 32_768;

const BITS: u32 = (WORDS as u32 * 64).trailing_zeros();

/// The bit of a VIP, port and protocol: its word, and where in it.
#[inline(always)]
pub fn bit<A: Addr>(vip: A, port: PortBe, proto: Proto) -> (u32, u32) {
    spread(address(vip) ^ (proto.0 as u32) << 16 ^ port.0 as u32)
}

/// The bit of an address to which packets of flows are sent.
#[inline(always)]
pub fn destination<A: Addr>(vip: A) -> (u32, u32) {
    spread(address(vip))
}

/// The bit of an address from which a backend answers.
#[inline(always)]
pub fn backend<A: Addr>(addr: A) -> (u32, u32) {
    spread(!address(addr))
}

const ODD: u32 = 0x9e37_79b1;

#[inline(always)]
fn address<A: Addr>(addr: A) -> u32 {
    let h = addr.fold(0, |h, word| (h ^ word).wrapping_mul(ODD) ^ h >> 15);
    h ^ h >> 16
}

#[inline(always)]
const fn spread(h: u32) -> (u32, u32) {
    let bit = h.wrapping_mul(ODD) >> (32 - BITS);
    (bit / 64, bit % 64)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::Ipv4Addr, vec::Vec};

    use super::*;
    use crate::abi::Addr4;

    fn shared(keys: impl Iterator<Item = (Addr4, PortBe)>) -> usize {
        let mut bits: HashMap<(u32, u32), usize> = HashMap::new();
        for (vip, port) in keys {
            let bit = bit(vip, port, Proto::TCP);
            assert!((bit.0 as usize) < WORDS && bit.1 < 64);
            *bits.entry(bit).or_default() += 1;
        }
        bits.values().map(|count| count - 1).sum()
    }

    #[test]
    fn neighbours_are_spread() {
        let vip = |i: u32| Addr4::from(Ipv4Addr::from(0x0a60_0000 + i));
        // As many meet as would of random ones, half as many again at most: n² / 2m.
        let expected = |n: f64| (n * n / 2.0 / (WORDS * 64) as f64 * 1.5) as usize;
        let same_port: Vec<_> = (0..10_000).map(|i| (vip(i), PortBe::new(80))).collect();
        assert!(shared(same_port.into_iter()) <= expected(10_000.0));
        assert!(shared((0..10_000).map(|i| (vip(1), PortBe::new(1_000 + i)))) <= expected(10_000.0));
        let both = (0..100).flat_map(|i| (0..100).map(move |port| (vip(i), PortBe::new(8_000 + port))));
        assert!(shared(both) <= expected(10_000.0));
    }
}
