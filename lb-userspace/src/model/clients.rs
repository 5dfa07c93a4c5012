//! Who may connect, as the kernel looks it up: prefixes of clients that are let in. Its tries can't say no, so that
//! clients that are denied are left out of what is written there.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// The fewest prefixes that hold whoever is in one of `allowed`, or anybody if there are none, and in none of `denied`.
/// Who is denied is so by any prefix, however short. `families` says of which IP versions anybody is: IPv4, IPv6.
///
/// One address less than everybody are 32 prefixes of IPv4, 128 of IPv6.
pub fn admitted(allowed: &BTreeSet<IpNet>, denied: &BTreeSet<IpNet>, families: [bool; 2]) -> BTreeSet<IpNet> {
    let everybody = || {
        let all = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
        all.into_iter().zip(families).filter(|(_, there)| *there).map(|(all, _)| all).collect()
    };
    let allowed = if allowed.is_empty() { everybody() } else { allowed.clone() };
    let mut admitted = BTreeSet::new();
    for v6 in [false, true] {
        for (first, last) in without(&spans(&allowed, v6), &spans(denied, v6)) {
            if v6 {
                let nets = Ipv6Subnets::new(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last), 0);
                admitted.extend(nets.map(IpNet::from));
            } else {
                // Spans of IPv4 are made of IPv4 addresses.
                let address = |bits: u128| Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX));
                let nets = Ipv4Subnets::new(address(first), address(last), 0);
                admitted.extend(nets.map(IpNet::from));
            }
        }
    }
    admitted
}

/// First and last addresses of what prefixes of a family hold, ascending, with others between them.
fn spans(prefixes: &BTreeSet<IpNet>, v6: bool) -> Vec<(u128, u128)> {
    let span = |net: &IpNet| match net {
        IpNet::V4(net) if !v6 => Some((net.network().to_bits().into(), net.broadcast().to_bits().into())),
        IpNet::V6(net) if v6 => Some((net.network().to_bits(), net.broadcast().to_bits())),
        _ => None,
    };
    let mut all: Vec<(u128, u128)> = prefixes.iter().filter_map(span).collect();
    all.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// What is in spans and in none of the others.
fn without(spans: &[(u128, u128)], others: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut left = Vec::new();
    let mut others = others.iter().peekable();
    for (first, last) in spans {
        let mut first = *first;
        let mut over = false;
        while let Some((from, to)) = others.peek() {
            if from > last {
                break;
            }
            if *from > first {
                left.push((first, from - 1));
            }
            if to >= last {
                // It may reach into the next span.
                over = true;
                break;
            }
            first = first.max(to + 1);
            others.next();
        }
        if !over {
            left.push((first, *last));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> BTreeSet<IpNet> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_left_is_as_few_prefixes_as_can_be() {
        for (allowed, denied, expected) in [
            (&["10.0.0.0/8"][..], &["10.128.0.0/9"][..], &["10.0.0.0/9"][..]),
            (&["10.0.0.0/24"], &["10.0.0.0/26", "10.0.0.192/26"], &["10.0.0.64/26", "10.0.0.128/26"]),
            (&["10.0.0.0/9", "10.128.0.0/9"], &["192.0.2.1/32"], &["10.0.0.0/8"]),
            (&["10.0.0.0/24"], &["10.0.0.0/8"], &[]),
            (
                &["10.0.0.0/24", "10.0.2.0/24"],
                &["10.0.0.128/25", "10.0.2.0/25"],
                &["10.0.0.0/25", "10.0.2.128/25"],
            ),
            (&[], &["128.0.0.0/1", "8000::/1"], &["0.0.0.0/1", "::/1"]),
            (&[], &["0.0.0.0/0"], &["::/0"]),
        ] {
            assert_eq!(
                admitted(&nets(allowed), &nets(denied), [true; 2]),
                nets(expected),
                "{allowed:?} {denied:?}"
            );
        }
        let one = admitted(&nets(&[]), &nets(&["192.0.2.1/32"]), [true, false]);
        assert_eq!((one.len(), one.iter().all(|net| net.addr().is_ipv4())), (32, true));
        assert_eq!(admitted(&nets(&[]), &nets(&["fd00::1/128"]), [false, true]).len(), 128);
        assert_eq!(admitted(&nets(&[]), &nets(&["ffff::/16", "::/16"]), [false, true]).len(), 30);
    }

    /// Prefixes that are near each other, so that they touch and hold each other, up to the ends of a family.
    fn a_net() -> impl Strategy<Value = IpNet> {
        let bases = prop::sample::select(vec![0u32, 0x0a00_0000, 0xffff_ff00]);
        let v4 = (bases, 0..=255u32, 20..=32u8).prop_map(|(base, low, len)| {
            IpNet::new(Ipv4Addr::from_bits(base + low).into(), len).unwrap().trunc()
        });
        let bases = prop::sample::select(vec![0u128, 0xfd << 120, u128::MAX - 255]);
        let v6 = (bases, 0..=255u128, 116..=128u8).prop_map(|(base, low, len)| {
            IpNet::new(Ipv6Addr::from_bits(base + low).into(), len).unwrap().trunc()
        });
        let whole = prop::sample::select(vec!["0.0.0.0/0", "::/0", "128.0.0.0/1", "::/1"]);
        prop_oneof![8 => v4, 8 => v6, 1 => whole.prop_map(|text| text.parse().unwrap())]
    }

    proptest! {
        #[test]
        fn who_is_let_in_is_allowed_and_not_denied(
            allowed in prop::collection::btree_set(a_net(), 0..6),
            denied in prop::collection::btree_set(a_net(), 0..6),
            families in any::<[bool; 2]>(),
            low in prop::collection::vec(0..=1_024u32, 64),
        ) {
            let admitted = admitted(&allowed, &denied, families);
            let edges = allowed.iter().chain(&denied).chain(&admitted);
            let edges = edges.flat_map(|net| [net.network(), net.broadcast()]).flat_map(|edge| match edge {
                IpAddr::V4(a) => [-1, 0, 1].map(|by| IpAddr::from(Ipv4Addr::from_bits(a.to_bits().wrapping_add_signed(by)))),
                IpAddr::V6(a) => [-1, 0, 1].map(|by| IpAddr::from(Ipv6Addr::from_bits(a.to_bits().wrapping_add_signed(by)))),
            });
            let near = low.iter().flat_map(|low| [
                IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + low)),
                IpAddr::from(Ipv6Addr::from_bits((0xfd << 120) + u128::from(*low))),
            ]);
            for client in edges.chain(near) {
                let within = |nets: &BTreeSet<IpNet>| nets.iter().any(|net| net.contains(&client));
                let may = match allowed.is_empty() {
                    true => families[usize::from(client.is_ipv6())],
                    false => within(&allowed),
                } && !within(&denied);
                prop_assert_eq!(within(&admitted), may, "{} by {:?}", client, admitted);
            }
            let firsts: Vec<&IpNet> = admitted.iter().collect();
            prop_assert!(firsts.windows(2).all(|two| !two[0].contains(two[1])), "each once: {:?}", admitted);
        }
    }
}
