use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::abi::{Addr4, Addr6, PortBe, Proto};

fn lanes(set: u64) -> Vec<usize> {
    let mut set = set;
    let mut found = Vec::new();
    while set != 0 {
        found.push(lowest(set));
        set = rest(set);
    }
    found
}

proptest! {
    #[test]
    fn sets_are_exact(head: u64, tag in 1u8..) {
        let bytes = head.to_le_bytes();
        let expected = |wanted: u8| (0..LANES).filter(|i| bytes[*i] == wanted).collect::<Vec<_>>();
        prop_assert_eq!(lanes(with_tag(head, tag)), expected(tag));
        prop_assert_eq!(lanes(free(head)), expected(0));
        prop_assert_eq!(count(free(head)), expected(0).len() as u64);
    }

    #[test]
    fn a_claim_changes_its_lane_and_the_version_only(head: u64, tag in 1u8..) {
        for lane in lanes(free(head)) {
            let claimed = claimed(head, lane, tag);
            let mut expected = head.to_le_bytes();
            expected[lane] = tag;
            expected[7] = expected[7].wrapping_add(1);
            prop_assert_eq!(claimed.to_le_bytes(), expected);
            prop_assert_eq!(claimed & without(lane), head.wrapping_add(VERSION));
        }
    }

    #[test]
    fn a_place_is_in_the_table(a: u32, b: u32, sport: u16, dport: u16, seed: u64, buckets in 1u32..1 << 24) {
        let key = FlowKey::new(Addr4(a), Addr4(b), PortBe(sport), PortBe(dport), Proto::TCP);
        let place = place(&key, seed, buckets);
        prop_assert!(place.first < buckets && place.second < buckets && place.tag != 0);
    }
}

fn client4(i: u32) -> FlowKey<Addr4> {
    let client = Ipv4Addr::from(0x0b00_0000 + i / 28_000);
    let port = PortBe::new(32_768 + (i % 28_000) as u16);
    FlowKey::new(client.into(), Ipv4Addr::new(10, 96, 0, 1).into(), port, PortBe::new(443), Proto::TCP)
}

fn client6(i: u32) -> FlowKey<Addr6> {
    let client = Ipv6Addr::from((0xfd00 << 112) + u128::from(i / 28_000));
    let port = PortBe::new(32_768 + (i % 28_000) as u16);
    let vip: Ipv6Addr = "fd96::1".parse().unwrap();
    FlowKey::new(client.into(), vip.into(), port, PortBe::new(443), Proto::TCP)
}

/// How many of as many entries as the table is made for find both buckets full.
fn refused<A: Addr>(flows: u32, seed: u64, key: impl Fn(u32) -> FlowKey<A>) -> usize {
    let mut heads = vec![0u64; buckets(flows) as usize];
    (0..2 * flows)
        .filter(|i| {
            let place = place(&key(*i), seed, heads.len() as u32);
            let (first, second) = (heads[place.first as usize], heads[place.second as usize]);
            let bucket = if prefers_second(first, second) { place.second } else { place.first };
            let head = &mut heads[bucket as usize];
            if free(*head) == 0 {
                return true;
            }
            *head = claimed(*head, lowest(free(*head)), place.tag);
            false
        })
        .count()
}

#[test]
fn a_table_takes_what_it_is_made_for() {
    for seed in [0, 1, 0xdead_beef] {
        assert_eq!(refused(1_048_576, seed, client4), 0, "IPv4, seed {seed:#x}");
        assert_eq!(refused(262_144, seed, client6), 0, "IPv6, seed {seed:#x}");
        assert_eq!(refused(1_024, seed, client4), 0, "a small one, seed {seed:#x}");
    }
}

#[test]
fn neighbouring_keys_spread() {
    // Addresses and ports that differ in a few bits, as those of real clients do.
    let (count, places) = (1 << 16, 1 << 10);
    let mut hits = [vec![0u32; places], vec![0u32; places], vec![0u32; 129]];
    for i in 0..count {
        let place = place(&client4(i), 7, places as u32);
        hits[0][place.first as usize] += 1;
        hits[1][place.second as usize] += 1;
        hits[2][place.tag as usize] += 1;
    }
    for (hits, cells) in hits.iter().zip([places, places, 128]) {
        let mean = f64::from(count) / cells as f64;
        let used = &hits[hits.len() - cells..];
        let chi2: f64 = used.iter().map(|h| (f64::from(*h) - mean).powi(2) / mean).sum();
        // Mean of the distribution, and six standard deviations.
        let bound = cells as f64 + 6.0 * (2.0 * cells as f64).sqrt();
        assert!(chi2 < bound, "chi-square {chi2} of {cells} cells, bound {bound}");
    }
}

#[test]
fn the_default_follows_the_machine_within_bounds() {
    for (cpus, flows) in
        [(0, 131_072), (1, 131_072), (4, 131_072), (5, 163_840), (32, 1_048_576), (u32::MAX, 1_048_576)]
    {
        assert_eq!(default_flows(cpus), flows, "{cpus} CPUs");
    }
}
