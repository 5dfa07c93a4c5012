//! Whatever happens in whatever order, with a kernel that refuses and an agent that dies: what is known and what the maps hold agree, and
//! nothing is half done.

mod hosts;
mod machine;
mod op;

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;

use self::{
    machine::Machine,
    op::{Op, Trouble, op},
};
use super::*;
use crate::{
    model::{Frontend, HealthSpec, Origin, Probe, service::make_backend},
    reconcile::settle::Unplanned,
};

fn config() -> ProptestConfig {
    // PROPTEST_CASES in the environment makes it longer.
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(48),
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn known_and_maps_agree_whatever_happens(ops in prop::collection::vec((op(), Trouble::any()), 1..40)) {
        let mut machine = Machine::default();
        for (op, trouble) in ops {
            machine.run(op, trouble);
        }
        // In the end the kernel takes everything.
        machine.run(Op::Time, Trouble::None);
        machine.settled();
    }
}

fn service(name: &str, vip: &str, backends: &[&str]) -> ServiceSpec {
    let frontend = Frontend {
        addresses: vec![vip.parse().unwrap()],
        ports: vec!["80/tcp".parse().unwrap()],
        ..Frontend::default()
    };
    let mut spec = ServiceSpec::new(name, vec![frontend], Origin::File);
    let second = Duration::from_secs(1);
    spec.health = Some(HealthSpec {
        port: None,
        probe: Probe::Tcp,
        interval: second,
        timeout: second,
        rise: 1,
        fall: 1,
        passive: false,
        panic: 0,
    });
    for backend in backends {
        spec.add(make_backend(name, backend, None, None, false, Origin::File).unwrap()).unwrap();
    }
    spec
}

fn declared(spec: &ServiceSpec) -> Declared {
    let spec = Arc::new(spec.clone());
    Declared { name: spec.name.clone(), origin: Origin::File, spec: Ok(spec), good: None, aside: Vec::new() }
}

/// All of it, taken.
fn take(known: &mut Known, actual: &mut Actual, input: Input<'_>) {
    let step = transition(known, actual, input, Instant::now()).unwrap();
    step.plan.steps.iter().for_each(|step| actual.apply(step));
    *known = step.next;
}

fn all<'a>(all: &'a [Declared], own: &'a OwnAddresses) -> Input<'a> {
    Input::Declared { all, own, sources: None }
}

#[test]
fn what_is_found_unhealthy_stays_so_until_a_check_says_otherwise() {
    let (mut actual, own) = (Actual::default(), OwnAddresses::new());
    let services = [declared(&service("a", "10.96.0.1", &["10.0.0.1:80", "10.0.0.2:80"]))];
    let mut known = Known::default();
    take(&mut known, &mut actual, all(&services, &own));
    let health = |healthy| Input::Health { service: "a", backend: "10.0.0.1:80", healthy };
    take(&mut known, &mut actual, health(false));
    let weight = |actual: &Actual| {
        let id = actual.service("a").unwrap().backends["10.0.0.1:80"];
        actual.block(id.block()).unwrap().weight[id.slot()]
    };
    assert_eq!(weight(&actual), 0);
    let mut next = Known::default();
    take(&mut next, &mut actual, all(&services, &own));
    assert_eq!(weight(&actual), 0, "as the agent before it left it");
    take(&mut next, &mut actual, health(true));
    assert_eq!(weight(&actual), 1);
    let nobody = Input::Health { service: "a", backend: "10.0.0.9:80", healthy: false };
    assert!(transition(&next, &actual, nobody, Instant::now()).unwrap().next == next);
}

#[test]
fn who_asks_gets_all_or_an_error() {
    let (mut actual, own) = (Actual::default(), OwnAddresses::new());
    let mut known = Known::default();
    take(&mut known, &mut actual, all(&[declared(&service("a", "10.96.0.1", &[]))], &own));
    let clash = declared(&service("b", "10.96.0.1", &[]));
    let asked = Input::Asked { name: "b", declared: Some(&clash) };
    let error = transition(&known, &actual, asked, Instant::now()).unwrap_err();
    assert!(error.to_string().contains("\"a\" and \"b\" overlap at 10.96.0.1"), "{error}");
}

#[test]
fn retired_backends_dont_count_against_the_limits() {
    let (mut actual, own) = (Actual::default(), OwnAddresses::new());
    let mut known = Known::default();
    let of = |net: u8| {
        let names: Vec<String> = (0..8192).map(|i| format!("10.{net}.{}.{}:80", i / 256, i % 256)).collect();
        service("a", "10.96.0.1", &names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // Every flow of every backend stays: nothing is freed.
    for net in 1..6 {
        take(&mut known, &mut actual, all(&[declared(&of(net))], &own));
        assert_eq!(*known.rejected, vec![]);
        let first = actual.service("a").unwrap().ports.values().next().unwrap().first_block;
        let mut chain = HashSet::new();
        let mut block = first;
        while block != 0 {
            assert!(chain.insert(block));
            block = actual.block(block).unwrap().next;
        }
        assert_eq!(chain.len(), 512);
    }
    // When they have gone, so do the blocks.
    for _ in 0..2 {
        let freed = crate::reconcile::collect(&known.desired, &actual, |_| false);
        freed.steps.iter().for_each(|step| actual.apply(step));
    }
    assert_eq!(actual.service("a").unwrap().blocks.len(), 512);
}

#[test]
fn who_finds_no_room_is_refused_alone() {
    let (mut actual, own) = (Actual::default(), OwnAddresses::new());
    let mut known = Known::default();
    let many = |first: u32, count: u32| -> Vec<Declared> {
        let at = |i: u32| {
            service(
                &format!("s{i}"),
                &format!("10.{}.{}.{}", 100 + i / 65536, i / 256 % 256, i % 256),
                &["10.0.0.1:80"],
            )
        };
        (first..first + count).map(|i| declared(&at(i))).collect()
    };
    take(&mut known, &mut actual, all(&many(0, 15_990), &own));
    // Ids of the first ten are kept for their flows.
    take(&mut known, &mut actual, all(&many(10, 16_000), &own));
    assert_eq!((known.desired.services().len(), known.rejected.len()), (15_990, 10));
    assert!(known.rejected[0].error.contains("no free service id"), "{}", known.rejected[0]);
    for _ in 0..2 {
        let freed = crate::reconcile::collect(&known.desired, &actual, |_| false);
        freed.steps.iter().for_each(|step| actual.apply(step));
    }
    take(&mut known, &mut actual, all(&many(10, 16_000), &own));
    assert_eq!((known.desired.services().len(), known.rejected.len()), (16_000, 0));
    let _ = Unplanned::new();
}

#[test]
fn what_is_wrong_with_one_is_nobody_elses_business() {
    let (mut actual, own) = (Actual::default(), OwnAddresses::new());
    let wrong = |name: &str| Declared {
        name: name.into(),
        origin: Origin::File,
        spec: Err("wrong".into()),
        good: None,
        aside: Vec::new(),
    };
    let a = |backends| declared(&service("a", "10.96.0.1", backends));
    let mut known = Known::default();
    take(&mut known, &mut actual, all(&[a(&["10.0.0.1:80"]), wrong("w")], &own));
    let changed = [a(&["10.0.0.1:80", "10.0.0.2:80"]), wrong("x")];
    take(&mut known, &mut actual, Input::Some { changed: &changed, removed: &[] });
    assert_eq!(actual.service("a").unwrap().backends.len(), 2);
    let rejected = |known: &Known| known.rejected.iter().map(|r| r.service.clone()).collect::<Vec<_>>();
    assert_eq!(rejected(&known), ["w", "x"]);
    take(&mut known, &mut actual, Input::Some { changed: &[], removed: &["w"] });
    assert_eq!(rejected(&known), ["x"]);
    // Who is where another is may come into force once that one goes.
    let b = declared(&service("b", "10.96.0.1", &["10.0.0.3:80"]));
    take(&mut known, &mut actual, all(&[a(&["10.0.0.1:80"]), b], &own));
    assert_eq!(rejected(&known), ["b"]);
    let gone = transition(&known, &actual, Input::Some { changed: &[], removed: &["a"] }, Instant::now());
    assert_eq!(gone.err(), Some(Refused::NeedsAll));
}

#[test]
fn with_less_than_the_quorum_its_backups_get_what_comes_also_from_the_next_agent() {
    let (mut actual, own) = (Actual::default(), OwnAddresses::new());
    let mut spec = service("a", "10.96.0.1", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    spec.quorum = 2;
    let with = |backup: bool| {
        let mut spec = spec.clone();
        spec.backends.values_mut().last().unwrap().backup = backup;
        [declared(&spec)]
    };
    let weights = |actual: &Actual| -> Vec<u32> {
        let ids = actual.service("a").unwrap().backends.values();
        ids.map(|id| actual.block(id.block()).unwrap().weight[id.slot()]).collect()
    };
    let health = |backend, healthy| Input::Health { service: "a", backend, healthy };
    let mut known = Known::default();
    take(&mut known, &mut actual, all(&with(true), &own));
    assert_eq!(weights(&actual), [1, 1, 0]);
    take(&mut known, &mut actual, health("10.0.0.1:80", false));
    assert_eq!(weights(&actual), [0, 0, 1], "one isn't enough");
    take(&mut known, &mut actual, all(&with(false), &own));
    assert_eq!(weights(&actual), [0, 1, 1], "two are");
    take(&mut known, &mut actual, health("10.0.0.2:80", false));
    assert_eq!(weights(&actual), [0, 0, 0], "nobody, without a backup");
    // The next agent can't tell who was healthy.
    let mut next = Known::default();
    take(&mut next, &mut actual, all(&with(false), &own));
    assert_eq!(weights(&actual), [0, 0, 0]);
    assert!(next.health.of("a", "10.0.0.3:80").assumed);
    for backend in ["10.0.0.3:80", "10.0.0.1:80"] {
        take(&mut next, &mut actual, health(backend, true));
    }
    assert_eq!(weights(&actual), [1, 0, 1]);
    assert!(!next.health.of("a", "10.0.0.3:80").assumed && next.health.of("a", "10.0.0.2:80").assumed);
    // Its checks say the same in the end: it is ill like any other.
    take(&mut next, &mut actual, health("10.0.0.2:80", false));
    let ill = next.health.of("a", "10.0.0.2:80");
    assert!(!ill.healthy && !ill.assumed);
}
