use std::{sync::Arc, time::Instant};

use proptest::prelude::*;

use super::*;
use crate::reconcile::{Declared, Input, Known, plan::tests::moments::state, transition};

fn own() -> OwnAddresses {
    ["192.0.2.1", "192.0.2.2", "192.0.2.9", "2001:db8::1"].map(|a| a.parse().unwrap()).into()
}

/// The maps of an agent that was told this.
fn maps(services: &[ServiceSpec]) -> (Known, Actual) {
    let declared: Vec<Declared> = services
        .iter()
        .map(|spec| {
            let spec = Arc::new(spec.clone());
            Declared {
                name: spec.name.clone(),
                origin: Origin::Cli,
                spec: Ok(spec),
                good: None,
                aside: Vec::new(),
            }
        })
        .collect();
    let mut actual = Actual::default();
    let known = told(&Known::default(), &mut actual, &declared);
    (known, actual)
}

fn told(old: &Known, actual: &mut Actual, declared: &[Declared]) -> Known {
    let input = Input::Declared { all: declared, own: &own(), sources: None };
    let step = transition(old, actual, input, Instant::now()).unwrap();
    step.plan.steps.iter().for_each(|step| actual.apply(step));
    step.next
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// With the state file gone, whatever was told by the command line is found again: nothing changes for packets.
    #[test]
    fn what_is_live_stays_live(services in state(), of_file in prop::collection::vec(any::<bool>(), 5)) {
        let (known, actual) = maps(&services);
        // Some are the file's, which can be read; what it says of drains is nothing.
        let file: Vec<ServiceSpec> = services
            .iter()
            .zip(&of_file)
            .filter(|(_, of_file)| **of_file)
            .map(|(spec, _)| {
                let mut spec = spec.clone();
                // Every other backend was added.
                let mut nth = 0;
                spec.backends.retain(|_, _| { nth += 1; nth % 2 == 0 });
                spec.backends.values_mut().for_each(|b| b.admin = AdminState::Active);
                spec
            })
            .collect();
        let declared = file.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let runtime = runtime(&actual, &own(), &declared, &RuntimeDrain::begin(None));
        let services: Vec<crate::source::FileService> = file
            .iter()
            .map(|spec| crate::source::FileService {
                name: spec.name.clone(),
                text: "".into(),
                line: 1,
                spec: Ok(Arc::new(spec.clone())),
            })
            .collect();
        let good = Good::default();
        let all = Sources::local(&services, &good, &runtime).all(&mut Vec::new());
        let mut next = actual.clone();
        let found = told(&Known::default(), &mut next, &all);
        prop_assert_eq!(&*found.rejected, &vec![]);
        prop_assert_eq!(found.desired.services().len(), known.desired.services().len());
        let reached = |backend: &lb_common::abi::Backend| {
            let v6 = backend.address().is_some_and(|address| address.is_ipv6());
            actual.services().get(&backend.service).is_some_and(|service| has_family(service, v6))
        };
        // The order in which numbers of source ranges are given may be another; what they mean isn't.
        let entries = |actual: &Actual| -> Vec<_> {
            let of = |s: &ActualService| {
                let meant = |v: &Service| (v.first_block, v.target, v.algorithm, v.stray, v.affine, v.forward, v.local, v.source_ranges);
                // Of a service that has lost one family's address to another, that family's aren't known.
                let ranges = |v: &Service, at: &IpAddr| -> Option<Vec<IpNet>> {
                    let of = |range: &&IpNet| range.addr().is_ipv6() == at.is_ipv6() && !range.addr().is_unspecified();
                    Some(actual.ranges().get(&v.ranges)?.iter().filter(of).copied().collect())
                };
                let ports: Vec<_> = s.ports.iter().map(|(key, v)| (*key, meant(v), ranges(v, &key.0))).collect();
                // A frontend that has lost an address to another service has a table that nobody looks at.
                let looked_at = |list: &u32| {
                    let of = |(key, v): (&(IpAddr, Proto, u16), &Service)| {
                        let list_of = |local| List::new(key.0.is_ipv6(), local).0;
                        *list == list_of(false) || v.local != 0 && *list == list_of(true)
                    };
                    s.ports.iter().any(of)
                };
                let tables: Vec<_> = s.tables.iter().filter(|(list, _)| looked_at(list)).collect();
                (s.name.clone(), ports, s.backends.clone(), format!("{tables:?}"))
            };
            let all = |s: &&ActualService| s.backends.values().all(|id| actual.backend(*id).is_none_or(reached));
            actual.services().values().filter(all).map(of).collect()
        };
        prop_assert_eq!(entries(&next), entries(&actual));
        let lost: Vec<u32> = actual.backends().filter(|(_, b)| !reached(b)).map(|(id, _)| id.block()).collect();
        for (id, _) in actual.backends().filter(|(id, _)| !lost.contains(&id.block())) {
            prop_assert_eq!(next.block(id.block()), actual.block(id.block()));
        }
    }
}

#[test]
fn affinity_and_limits_are_found_again() {
    let mut services: Vec<ServiceSpec> = Vec::new();
    for (name, vip, group, by_port) in [
        ("a", "10.96.0.1", None, true),
        ("b", "10.96.0.2", Some("g"), false),
        ("c", "10.96.0.3", Some("g"), false),
    ] {
        let decl = ServiceDecl {
            vip: Some(vip.into()),
            ports: vec!["80-90:8080-8090/tcp".into(), "53/udp".into()],
            ..Default::default()
        };
        let mut spec = decl.spec(name, Origin::Cli).unwrap();
        let group = group.map(Into::into);
        spec.max_connections = by_port.then_some(1_000);
        let timeout = Duration::from_secs(77);
        spec.affinity = Some(AffinitySpec { timeout, group, by_port, ipv6_prefix: 64, bound: Some(5) });
        let backend =
            crate::model::service::make_backend(name, "10.0.0.1", Some(7), Some(9), true, Origin::Cli);
        spec.add(backend.unwrap()).unwrap();
        services.push(spec);
    }
    let (_, actual) = maps(&services);
    // The file knows one of the group.
    let declared = [("b", &services[1])].into();
    let runtime = runtime(&actual, &own(), &declared, &RuntimeDrain::begin(None));
    assert_eq!(runtime.services.keys().collect::<Vec<_>>(), ["a", "c"]);
    for spec in [&services[0], &services[2]] {
        let found = runtime.services[&spec.name].spec(&spec.name, Origin::Cli).unwrap();
        assert_eq!((&found.affinity, &found.frontends[0].ports), (&spec.affinity, &spec.frontends[0].ports));
        assert_eq!(found.max_connections, spec.max_connections);
        let backend = &runtime.backends[&spec.name]["10.0.0.1"];
        assert_eq!(
            *backend,
            BackendDecl { weight: Some(7), max_connections: Some(9), local: true, ..BackendDecl::default() }
        );
    }
    assert!(runtime.drains.is_empty());
}
