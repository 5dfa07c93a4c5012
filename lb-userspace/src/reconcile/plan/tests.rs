use std::collections::HashSet;

use lb_common::abi::Guard;
use proptest::prelude::*;

use super::*;
use crate::model::service::make_backend;

fn spec(name: &str, vip: &str, ports: &[&str], backends: &[(String, u16)], ch: bool) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.into(),
        vip: vip.parse().unwrap(),
        except: BTreeSet::new(),
        sources: BTreeSet::new(),
        ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        algorithm: if ch { AlgorithmKind::ConsistentHash } else { AlgorithmKind::LeastConnections },
        forward: Default::default(),
        affinity: None,
        timeouts: Default::default(),
        health: None,
        slow_start: None,
        fates: Default::default(),
        backends: BTreeMap::new(),
        from_file: true,
        warnings: Vec::new(),
    };
    for (address, weight) in backends {
        let draining = *weight == 0;
        let mut b = make_backend(name, address, Some((*weight).max(1).into()), None, true).unwrap();
        if draining {
            b.admin = AdminState::Draining { since: Default::default(), deadline: None };
        }
        spec.add(b).unwrap();
    }
    spec
}

/// The node's addresses.
fn own() -> OwnAddresses {
    ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|a| a.parse().unwrap()).into()
}

/// Everything a packet could run into.
fn consistent(actual: &Actual, pinned: &HashSet<BackendId>, at: &Step) {
    for service in actual.services().values() {
        for value in service.ports.values() {
            let mut block = value.first_block;
            let mut seen = 0;
            let shut = value.guard != Guard::OPEN && service.sources.is_empty();
            assert!(!shut, "{at:?}: nobody is let in");
            while block != 0 {
                let record = actual
                    .block(block)
                    .unwrap_or_else(|| panic!("{at:?}: chain leads to free block {block}"));
                assert_eq!(record.service, value.id, "{at:?}: chain leads into another service");
                for slot in 0..BLOCK_SLOTS {
                    if record.weight[slot] > 0 {
                        let backend = actual.backend(BackendId::new(block, slot as u32));
                        assert_eq!(
                            backend.map(|b| b.service),
                            Some(value.id),
                            "{at:?}: eligible slot without backend"
                        );
                    }
                }
                block = record.next;
                seen += 1;
                assert!(seen <= limits::MAX_CHAIN);
            }
        }
        for (_, id, _) in service.table.iter().flatten() {
            assert!(actual.backend(*id).is_some(), "{at:?}: table names a free backend");
        }
    }
    for id in pinned {
        assert!(actual.backend(*id).is_some(), "{at:?}: {id:?} was freed under its flows");
    }
}

fn run(actual: &mut Actual, plan: &Plan, pinned: &HashSet<BackendId>) {
    for step in &plan.steps {
        if let Step::Backend { id, value } = step
            && let Some(before) = actual.backend(*id)
            && value.family != Backend::FREE
        {
            assert_eq!(
                (before.addr, before.port),
                (value.addr, value.port),
                "an id in use is given to another backend"
            );
        }
        actual.apply(step);
        consistent(actual, pinned, step);
    }
}

fn go(actual: &mut Actual, desired: &Desired, scope: Scope<'_>) {
    let steps = plan(desired, actual, &Standings::default(), &own(), scope).unwrap();
    run(actual, &steps, &HashSet::new());
}

/// One of them is at all of the node's addresses, two at one each.
fn state() -> impl Strategy<Value = Vec<ServiceSpec>> {
    let vips = ["10.96.0.1", "10.96.0.2", "192.0.2.1", "192.0.2.2", "0.0.0.0"];
    let backends = prop::collection::btree_map(0u8..40, 0u16..4, 0..24);
    let sources = prop::collection::btree_set(0u8..4, 0..3);
    let service = (backends, any::<bool>(), 0u16..3, sources);
    prop::collection::btree_map(0u8..5, service, 0..5).prop_map(move |services| {
        services
            .into_iter()
            .map(|(n, (backends, ch, extra, sources))| {
                let backends: Vec<_> =
                    backends.into_iter().map(|(b, w)| (format!("10.0.0.{}", b + 1), w)).collect();
                let range = format!("8000-{}/tcp", 8000 + extra);
                let vip = vips[usize::from(n)];
                let mut spec = spec(&format!("s{n}"), vip, &["80/tcp", &range], &backends, ch);
                spec.sources = sources.iter().map(|i| format!("10.{i}.0.0/16").parse().unwrap()).collect();
                spec
            })
            .collect()
    })
}

/// Each address and port leads to the service that names the address, or else to the one that is at all of them.
fn reached(actual: &Actual, desired: &Desired, own: &OwnAddresses) {
    let vips = desired.services().values().map(|s| s.vip).chain(own.iter().copied());
    let mut wanted = BTreeMap::new();
    for vip in vips.filter(|vip| !vip.is_unspecified()) {
        for port in [80, 8000, 8001, 8002] {
            let at = |anywhere: bool| {
                desired.services().values().find(|s| {
                    s.is_anywhere() == anywhere
                        && s.is_at(vip, own)
                        && s.ports.iter().any(|r| r.iter().any(|p| p == port))
                })
            };
            if let Some(service) = at(false).or_else(|| at(true)) {
                wanted.insert((vip, port), service.name.clone());
            }
        }
    }
    let found: BTreeMap<_, _> = actual
        .services()
        .values()
        .flat_map(|s| s.ports.keys().map(move |(vip, _, port)| ((*vip, *port), s.name.clone())))
        .collect();
    assert_eq!(found, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is declared after whatever, every moment of the way is one that packets may see, and the end is what was declared.
    #[test]
    fn every_moment_is_correct(states in prop::collection::vec((state(), 0usize..4), 1..6), pin: u32) {
        let mut actual = Actual::default();
        for (i, (services, addresses)) in states.into_iter().enumerate() {
            let own: OwnAddresses = own().into_iter().take(addresses).collect();
            let pinned: HashSet<BackendId> = actual.backends().map(|(id, _)| id).filter(|id| (id.0 ^ pin).is_multiple_of(3)).collect();
            let desired = Desired::new(services).unwrap();
            let step = plan(&desired, &actual, &Standings::default(), &own, Scope::All).unwrap();
            run(&mut actual, &step, &pinned);
            prop_assert!(plan(&desired, &actual, &Standings::default(), &own, Scope::All).unwrap().steps.is_empty(), "not converged at state {i}");
            let freed = collect(&desired, &actual, |id| pinned.contains(&id));
            run(&mut actual, &freed, &pinned);
            prop_assert!(plan(&desired, &actual, &Standings::default(), &own, Scope::All).unwrap().steps.is_empty());
            reached(&actual, &desired, &own);
            for (name, spec) in desired.services() {
                prop_assert_eq!(&actual.service(name).unwrap().sources, &spec.sources);
                let service = actual.service(name).unwrap();
                let hashed = spec.algorithm == AlgorithmKind::ConsistentHash;
                let eligible = spec.backends.values().any(|b| weight(b) > 0);
                prop_assert_eq!(service.table.is_some(), hashed && eligible);
                for (backend, spec) in &spec.backends {
                    let id = service.backends[backend];
                    prop_assert_eq!(actual.block(id.block()).unwrap().weight[id.slot()], weight(spec));
                }
            }
        }
        let nothing = Desired::default();
        let end = plan(&nothing, &actual, &Standings::default(), &own(), Scope::All).unwrap();
        run(&mut actual, &end, &HashSet::new());
        let end = collect(&nothing, &actual, |_| false);
        run(&mut actual, &end, &HashSet::new());
        prop_assert_eq!(actual, Actual::default());
    }
}

#[test]
fn a_port_changes_hands_without_a_gap() {
    let b = [("10.0.0.1".to_string(), 1)];
    let mut actual = Actual::default();
    let one = Desired::new(vec![spec("a", "10.96.0.1", &["80/tcp"], &b, false)]).unwrap();
    let two = Desired::new(vec![spec("b", "10.96.0.1", &["80/tcp"], &b, false)]).unwrap();
    go(&mut actual, &one, Scope::All);
    let moved = plan(&two, &actual, &Standings::default(), &own(), Scope::All).unwrap();
    assert!(!moved.steps.iter().any(|s| matches!(s, Step::RemovePort { .. } | Step::RemoveVip { .. })));
    run(&mut actual, &moved, &HashSet::new());
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
    go(&mut actual, &one, Scope::Service("a"));
    assert_eq!(actual.backend(id).unwrap().retired, 1);
    let back = plan(&both, &actual, &Standings::default(), &own(), Scope::Service("a")).unwrap();
    assert!(!back.steps.iter().any(|s| matches!(s, Step::ZeroCounters { .. })), "its counters go on");
    run(&mut actual, &back, &HashSet::new());
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
    services[0].except = ["192.0.2.2".parse().unwrap()].into();
    let alone = Desired::new(services.clone()).unwrap();
    services.push(spec("one", "192.0.2.1", &["80/tcp"], &b, false));
    let both = Desired::new(services).unwrap();
    go(&mut actual, &alone, Scope::All);
    assert!(actual.vips().is_empty(), "the node's addresses are its own for all else");
    reached(&actual, &alone, &own());
    // By a change of the one alone: whose entries the other's are is seen to as well.
    go(&mut actual, &both, Scope::Service("one"));
    reached(&actual, &both, &own());
    let back = plan(&alone, &actual, &Standings::default(), &own(), Scope::Service("one")).unwrap();
    assert!(!back.steps.iter().any(|s| matches!(s, Step::RemovePort { .. })), "without a gap");
    run(&mut actual, &back, &HashSet::new());
    reached(&actual, &alone, &own());
}

#[test]
fn the_node_s_own_processes_are_clients_if_its_addresses_are() {
    let b = [("10.0.0.1".to_string(), 1)];
    for (source, guard) in [
        (None, Guard::OPEN),
        (Some("192.0.2.0/24"), Guard::LISTED_AND_NODE),
        (Some("10.0.0.0/8"), Guard::LISTED),
    ] {
        let mut actual = Actual::default();
        let mut service = spec("a", "10.96.0.1", &["80/tcp"], &b, false);
        service.sources = source.map(|s| s.parse().unwrap()).into_iter().collect();
        go(&mut actual, &Desired::new(vec![service]).unwrap(), Scope::All);
        assert!(actual.service("a").unwrap().ports.values().all(|value| value.guard == guard), "{source:?}");
    }
}
