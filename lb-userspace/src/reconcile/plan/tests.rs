pub(crate) mod moments;

use std::collections::HashSet;

use lb_common::abi::SourceRanges;

use self::moments::{Change, arrived};
use super::*;
use crate::model::{AdminState, AlgorithmKind, BackendSpec, Origin, ServiceSpec, service::make_backend};

fn frontend(addresses: &[&str], ports: &[&str]) -> Frontend {
    Frontend {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        ..Frontend::default()
    }
}

fn spec(name: &str, vip: &str, ports: &[&str], backends: &[(String, u16)], ch: bool) -> ServiceSpec {
    let mut spec = ServiceSpec::new(name, vec![frontend(&[vip], ports)], Origin::File);
    spec.algorithm = if ch { AlgorithmKind::ConsistentHash } else { AlgorithmKind::LeastConnections };
    for (address, weight) in backends {
        let draining = *weight == 0;
        let weight = Some((*weight).max(1).into());
        let mut b = make_backend(name, address, weight, None, address.ends_with('7'), Origin::File).unwrap();
        if draining {
            b.admin = AdminState::Draining { since: Default::default(), deadline: None };
        }
        spec.add(b).unwrap();
    }
    spec
}

/// The node's addresses.
fn own() -> OwnAddresses {
    ["192.0.2.1", "192.0.2.2", "192.0.2.9", "2001:db8::1"].map(|a| a.parse().unwrap()).into()
}

/// The plan from whatever is there to this.
fn way(
    desired: &Desired,
    actual: &Actual,
    own: &OwnAddresses,
    scope: Scope<'_>,
) -> Result<Plan, Vec<Exhausted>> {
    let health = HealthStates::default();
    plan(Goal { desired, health: &health, own, sources: None, now: Instant::now() }, actual, scope)
}

/// From whatever is there to this.
fn go(actual: &mut Actual, desired: &Desired, scope: Scope<'_>) {
    let steps = way(desired, actual, &own(), scope).unwrap();
    steps.steps.iter().for_each(|step| actual.apply(step));
}

#[test]
fn a_port_changes_hands_without_a_gap() {
    let b = [("10.0.0.1".to_string(), 1)];
    let mut actual = Actual::default();
    let one = Desired::new(vec![spec("a", "10.96.0.1", &["80/tcp"], &b, false)]).unwrap();
    let two = Desired::new(vec![spec("b", "10.96.0.1", &["80/tcp"], &b, false)]).unwrap();
    go(&mut actual, &one, Scope::All);
    let moved = way(&two, &actual, &own(), Scope::All).unwrap();
    assert!(!moved.steps.iter().any(|s| matches!(s, Step::RemovePort { .. } | Step::RemoveVip { .. })));
    Change::new(HashSet::new(), [(&one, &own()), (&two, &own())]).run(&mut actual, &moved);
    assert!(actual.service("a").unwrap().ports.is_empty());
    assert_eq!(actual.service("b").unwrap().ports.len(), 1);
}

#[test]
fn a_backend_that_returns_gets_its_slot_back() {
    let two = [("10.0.0.1".to_string(), 1), ("10.0.0.2".to_string(), 1)];
    let mut actual = Actual::default();
    let both = Desired::new(vec![spec("a", "10.96.0.1", &["80/tcp"], &two, false)]).unwrap();
    let one = Desired::new(vec![spec("a", "10.96.0.1", &["80/tcp"], &two[..1], false)]).unwrap();
    go(&mut actual, &both, Scope::All);
    let id = actual.service("a").unwrap().backends["10.0.0.2"];
    go(&mut actual, &one, Scope::Services(&["a"]));
    assert!(actual.backend(id).unwrap().is_retired());
    let back = way(&both, &actual, &own(), Scope::Services(&["a"])).unwrap();
    assert!(!back.steps.iter().any(|s| matches!(s, Step::ZeroCounters { .. })), "its counters go on");
    back.steps.iter().for_each(|step| actual.apply(step));
    assert_eq!(actual.service("a").unwrap().backends["10.0.0.2"], id);
}

fn weight(spec: &BackendSpec) -> u32 {
    match spec.admin {
        AdminState::Active => spec.weight.into(),
        AdminState::Draining { .. } => 0,
    }
}

#[test]
fn who_names_an_address_of_the_node_s_goes_first_and_gives_way() {
    let b = [("10.0.0.1".to_string(), 1)];
    let mut actual = Actual::default();
    let mut services = vec![spec("all", "0.0.0.0", &["80/tcp"], &b, false)];
    services[0].frontends[0].except = ["192.0.2.2".parse().unwrap()].into();
    let alone = Desired::new(services.clone()).unwrap();
    services.push(spec("one", "192.0.2.1", &["80/tcp"], &b, false));
    let both = Desired::new(services).unwrap();
    go(&mut actual, &alone, Scope::All);
    assert!(actual.vips().is_empty(), "the node's addresses are its own for all else");
    arrived(&actual, &alone, &own());
    // By a change of the one alone: whose entries the other's are is seen to as well.
    go(&mut actual, &both, Scope::Services(&["one"]));
    arrived(&actual, &both, &own());
    let back = way(&alone, &actual, &own(), Scope::Services(&["one"])).unwrap();
    assert!(!back.steps.iter().any(|s| matches!(s, Step::RemovePort { .. })), "without a gap");
    Change::new(HashSet::new(), [(&both, &own()), (&alone, &own())]).run(&mut actual, &back);
    arrived(&actual, &alone, &own());
}

#[test]
fn the_node_s_own_processes_are_clients_if_its_addresses_are() {
    let b = [("10.0.0.1".to_string(), 1)];
    for (source, source_ranges) in [
        (None, SourceRanges::OPEN),
        (Some("192.0.2.0/24"), SourceRanges::LISTED_AND_NODE),
        (Some("10.0.0.0/8"), SourceRanges::LISTED),
    ] {
        let mut actual = Actual::default();
        let mut service = spec("a", "10.96.0.1", &["80/tcp"], &b, false);
        service.frontends[0].sources = source.map(|s| s.parse().unwrap()).into_iter().collect();
        go(&mut actual, &Desired::new(vec![service]).unwrap(), Scope::All);
        assert!(
            actual.service("a").unwrap().ports.values().all(|value| value.source_ranges == source_ranges),
            "{source:?}"
        );
    }
}

#[test]
fn who_is_denied_is_in_none_of_the_prefixes() {
    let b = [("10.0.0.1".to_string(), 1)];
    let mut actual = Actual::default();
    let mut go_with = |sources: &[&str], denied: &[&str]| {
        let mut service = spec("a", "10.96.0.1", &["80/tcp"], &b, false);
        service.frontends[0].sources = sources.iter().map(|s| s.parse().unwrap()).collect();
        service.frontends[0].denied = denied.iter().map(|s| s.parse().unwrap()).collect();
        go(&mut actual, &Desired::new(vec![service]).unwrap(), Scope::All);
        let value = *actual.service("a").unwrap().ports.values().next().unwrap();
        let prefixes = actual.ranges().get(&value.ranges).cloned().unwrap_or_default();
        (value.source_ranges, prefixes.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let few = go_with(&["10.0.0.0/8"], &["10.0.0.0/9", "192.0.2.0/24"]);
    assert_eq!(few, (SourceRanges::LISTED, vec!["10.128.0.0/9".to_string()]));
    let (kind, most) = go_with(&[], &["10.0.0.0/9"]);
    assert_eq!(
        (kind, most.len()),
        (SourceRanges::LISTED_AND_NODE, 9),
        "the node's addresses are among the rest"
    );
    assert_eq!(go_with(&[], &[]), (SourceRanges::OPEN, vec![]));
}

#[test]
fn source_ranges_change_under_their_number_if_nobody_else_has_it() {
    let b = [("10.0.0.1".to_string(), 1)];
    let state = |sources: [&str; 2]| {
        let mut service = spec("a", "10.96.0.1", &["80/tcp"], &b, false);
        service.frontends.push(frontend(&["10.96.0.2"], &["80/tcp"]));
        for (frontend, source) in service.frontends.iter_mut().zip(sources) {
            frontend.sources = [source.parse().unwrap()].into();
        }
        Desired::new(vec![service]).unwrap()
    };
    let mut actual = Actual::default();
    let numbers = |actual: &Actual| -> Vec<u32> {
        actual.service("a").unwrap().ports.values().map(|value| value.ranges).collect()
    };
    for (sources, expected) in [
        (["10.1.0.0/16", "10.1.0.0/16"], [1, 1]),
        (["10.1.0.0/16", "10.2.0.0/16"], [1, 2]),
        (["10.3.0.0/16", "10.2.0.0/16"], [1, 2]),
        (["10.2.0.0/16", "10.3.0.0/16"], [2, 1]),
        (["10.2.0.0/16", "10.2.0.0/16"], [2, 2]),
        (["10.3.0.0/16", "10.4.0.0/16"], [1, 3]),
    ] {
        go(&mut actual, &state(sources), Scope::All);
        assert_eq!(numbers(&actual), expected, "{sources:?}");
    }
}

#[test]
fn long_pools_can_be_entered_along_their_chain() {
    let backends = |n: usize| -> Vec<(String, u16)> {
        (0..n).map(|i| (format!("10.1.{}.{}", i / 250, i % 250 + 1), 1)).collect()
    };
    let one = |n: usize| spec("a", "10.96.0.1", &["80/tcp"], &backends(n), false);
    let mut actual = Actual::default();
    // Blocks before its own become free: a later block is then the first of the chain.
    let small = [("10.0.0.1".to_string(), 1)];
    let other = spec("0", "10.96.0.2", &["80/tcp"], &small, false);
    go(&mut actual, &Desired::new(vec![other, one(1024)]).unwrap(), Scope::All);
    let first = |actual: &Actual| actual.service("a").unwrap().ports.values().next().unwrap().first_block;
    let before = first(&actual);
    assert!(actual.block(before).unwrap().starts == 0 && actual.starts(before).is_none());
    let mut last = Desired::new(vec![one(1024)]).unwrap();
    go(&mut actual, &last, Scope::All);
    let freed = collect(&last, &actual, |_| false);
    freed.steps.iter().for_each(|step| actual.apply(step));
    for n in [1025, 1100, 8192, 10] {
        let next = Desired::new(vec![one(n)]).unwrap();
        let change = Change::new(HashSet::new(), [(&last, &own()), (&next, &own())]);
        let steps = way(&next, &actual, &own(), Scope::All).unwrap();
        // Every moment is looked at where blocks and entry points are written; backends before that are many.
        for step in &steps.steps {
            actual.apply(step);
            if !matches!(step, Step::Backend { .. } | Step::ZeroCounters { .. }) {
                change.consistent(&actual, step);
            }
        }
        arrived(&actual, &next, &own());
        let first = first(&actual);
        if n <= 1024 {
            let (block, starts) = (actual.block(first).unwrap(), actual.starts(first));
            assert_eq!((block.starts, starts), (0, None), "a short pool again");
            last = next;
            continue;
        }
        assert!(first < before, "{n}");
        let starts = actual.starts(first).expect("a long pool");
        assert_eq!(actual.block(first).unwrap().starts, 16);
        assert!(starts.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(actual.starts(before).is_none());
        last = next;
    }
    let nothing = Desired::default();
    go(&mut actual, &nothing, Scope::All);
    let freed = collect(&nothing, &actual, |_| false);
    freed.steps.iter().for_each(|step| actual.apply(step));
    assert_eq!(actual, Actual::default());
}

#[test]
fn a_limit_counts_blocks_for_as_long_as_anybody_has_a_connection_there() {
    let backends = |n: usize| -> Vec<(String, u16)> { (1..=n).map(|i| (format!("10.1.0.{i}"), 1)).collect() };
    let one = |n: usize, most: Option<u32>| {
        let spec =
            ServiceSpec { max_connections: most, ..spec("a", "10.96.0.1", &["80/tcp"], &backends(n), false) };
        Desired::new(vec![spec]).unwrap()
    };
    let mut actual = Actual::default();
    go(&mut actual, &one(40, None), Scope::All);
    assert_eq!(actual.limit(0), None);
    let limit = |actual: &Actual| actual.limit(0).map(|limit| (limit.most, limit.blocks().to_vec()));
    // Backends of two blocks are removed, and have connections.
    go(&mut actual, &one(2, Some(9)), Scope::All);
    assert_eq!(limit(&actual), Some((9, vec![1, 2, 3])));
    assert!(actual.service("a").unwrap().ports.values().all(|entry| entry.limited == 1 && entry.scarce == 1));
    let busy = |id: BackendId| id.block() == 2;
    for blocks in [vec![1, 2, 3], vec![1, 2]] {
        let freed = collect(&one(2, Some(9)), &actual, busy);
        freed.steps.iter().for_each(|step| actual.apply(step));
        assert_eq!(limit(&actual), Some((9, blocks)));
        assert!(way(&one(2, Some(9)), &actual, &own(), Scope::All).unwrap().steps.is_empty());
    }
    go(&mut actual, &one(2, Some(8)), Scope::All);
    assert_eq!(limit(&actual), Some((8, vec![1, 2])));
    go(&mut actual, &one(2, None), Scope::All);
    assert_eq!(limit(&actual), None);
    assert!(actual.service("a").unwrap().ports.values().all(|entry| entry.limited == 0 && entry.scarce == 0));
}
