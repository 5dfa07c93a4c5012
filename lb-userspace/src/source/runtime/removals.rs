//! Backends that are no longer declared and whose connections have a deadline: since when, and how long they may go
//! on. In the state file, since nothing else tells the next agent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::RuntimeDrain;
use crate::{
    model::{Departure, Departures, Desired, ServiceSpec},
    reconcile::Actual,
};

/// Those, by service and name.
pub type Removals = BTreeMap<String, BTreeMap<String, RuntimeDrain>>;

/// What is noted when `new` is in force instead of `old`. `actual`: what the maps hold, with backends that are kept
/// for their connections. One that is declared again isn't removed any more.
pub fn follow(removals: &mut Removals, old: &Desired, new: &Desired, actual: &Actual) {
    for spec in new.services().values() {
        if old.services().get(&spec.name).is_none_or(|before| !Arc::ptr_eq(before, spec)) {
            note(removals, spec, actual, |backend| !spec.backends.contains_key(backend));
        }
    }
    for spec in old.services().values().filter(|spec| !new.services().contains_key(&spec.name)) {
        note(removals, spec, actual, |_| true);
    }
}

/// Notes which backends of a service are `removed`, if that has a deadline.
fn note(removals: &mut Removals, spec: &ServiceSpec, actual: &Actual, removed: impl Fn(&str) -> bool) {
    let mut before = removals.remove(&spec.name).unwrap_or_default();
    let Some(deadline) = spec.policies.removal_deadline else { return };
    let there = actual.service(&spec.name).into_iter().flat_map(|service| service.backends.keys());
    let now: BTreeMap<String, RuntimeDrain> = there
        .filter(|backend| removed(backend))
        .map(|backend| {
            let mut record = before.remove(backend).unwrap_or_else(|| RuntimeDrain::begin(None));
            record.deadline = Some(whole(deadline));
            (backend.clone(), record)
        })
        .collect();
    if !now.is_empty() {
        removals.insert(spec.name.clone(), now);
    }
}

/// In seconds, none of it lost.
fn whole(deadline: Duration) -> u64 {
    deadline.as_secs() + u64::from(deadline.subsec_nanos() > 0)
}

/// Forgets those whose last connection has ended: the maps don't have them any more. True: there were some.
pub fn forget_ended(removals: &mut Removals, actual: &Actual) -> bool {
    let mut some = false;
    removals.retain(|service, backends| {
        let there = actual.service(service);
        let before = backends.len();
        backends.retain(|backend, _| there.is_some_and(|service| service.backends.contains_key(backend)));
        some |= backends.len() != before;
        !backends.is_empty()
    });
    some
}

/// By the uptime.
pub fn departures(removals: &Removals) -> Departures {
    let of = |record: &RuntimeDrain| {
        let (since, deadline) = record.by_uptime();
        Departure { since, end: since.saturating_add(deadline.unwrap_or_default()) }
    };
    let service = |(name, backends): (&String, &BTreeMap<String, RuntimeDrain>)| {
        (name.clone(), backends.iter().map(|(backend, record)| (backend.clone(), of(record))).collect())
    };
    removals.iter().map(service).collect()
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{Backend, BackendId};

    use super::{super::Runtime, *};
    use crate::{
        model::{Frontend, Origin, RemovalPolicy, service::make_backend},
        reconcile::Step,
    };

    const A: &str = "10.0.0.1:80";
    const B: &str = "10.0.0.2:80";

    fn desired(backends: &[&str], deadline: Option<u64>) -> Desired {
        let (addresses, ports) = (vec!["10.96.0.1".parse().unwrap()], vec!["80/tcp".parse().unwrap()]);
        let frontend = Frontend { addresses, ports, ..Frontend::default() };
        let mut service = ServiceSpec::new("s", vec![frontend], Origin::Cli);
        service.policies.removal = RemovalPolicy::Drain;
        service.policies.removal_deadline = deadline.map(Duration::from_secs);
        for address in backends {
            service.add(make_backend("s", address, None, None, false, Origin::Cli).unwrap()).unwrap();
        }
        Desired::new(vec![service]).unwrap()
    }

    /// The maps with both, or with the second alone.
    fn actual(all: bool) -> Actual {
        let mut actual = Actual::default();
        actual.apply(&Step::Name { service: 1, name: Some("s".into()) });
        for (id, address) in [(16, "10.0.0.1"), (17, "10.0.0.2")].into_iter().skip(usize::from(!all)) {
            let value = Backend::new(address.parse().unwrap(), Some(80), 1);
            actual.apply(&Step::Backend { id: BackendId(id), value });
        }
        actual
    }

    fn names(removals: &Removals) -> Vec<(&str, Option<u64>)> {
        let all = removals.values().flatten();
        all.map(|(backend, record)| (backend.as_str(), record.deadline)).collect()
    }

    #[test]
    fn who_goes_is_noted_and_who_comes_back_is_not_any_more() {
        let (both, one) = (desired(&[A, B], Some(60)), desired(&[B], Some(60)));
        let mut removals = Removals::new();
        follow(&mut removals, &Desired::default(), &both, &actual(true));
        assert_eq!(names(&removals), []);
        follow(&mut removals, &both, &one, &actual(true));
        assert_eq!(names(&removals), [(A, Some(60))]);
        let begun = removals.clone();
        // Another deadline counts from the same moment.
        let sooner = desired(&[B], Some(5));
        follow(&mut removals, &one, &sooner, &actual(true));
        assert_eq!(names(&removals), [(A, Some(5))]);
        assert_eq!(removals["s"][A].since, begun["s"][A].since);
        // Without one it is nobody's business.
        let mut none = removals.clone();
        follow(&mut none, &sooner, &desired(&[B], None), &actual(true));
        assert_eq!(names(&none), []);
        follow(&mut none, &desired(&[B], None), &sooner, &actual(true));
        assert_eq!(names(&none), [(A, Some(5))], "it gets one, that is still there");
        follow(&mut removals, &sooner, &both, &actual(true));
        assert_eq!(names(&removals), []);
    }

    #[test]
    fn a_service_that_goes_takes_all_of_its_backends_along() {
        let (both, none) = (desired(&[A, B], Some(60)), Desired::default());
        let mut removals = Removals::new();
        follow(&mut removals, &both, &none, &actual(true));
        assert_eq!(names(&removals), [(A, Some(60)), (B, Some(60))]);
        // The next agent knows no service of that name; what is noted stays as it is.
        let begun = removals.clone();
        follow(&mut removals, &none, &none, &actual(true));
        assert_eq!(removals, begun);
        // One that finds it declared goes on counting for whom it doesn't find.
        follow(&mut removals, &none, &desired(&[B], Some(60)), &actual(true));
        assert_eq!((names(&removals), removals["s"][A].since), (vec![(A, Some(60))], begun["s"][A].since));
        assert!(!forget_ended(&mut removals, &actual(true)));
        assert!(forget_ended(&mut removals, &actual(false)));
        assert_eq!(names(&removals), []);
    }

    #[test]
    fn the_next_agent_finds_them_in_the_state_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = Runtime::default();
        follow(&mut state.removals, &desired(&[A, B], Some(60)), &Desired::default(), &actual(true));
        state.save(&path).unwrap();
        assert_eq!(Runtime::load(&path).unwrap(), state);
    }

    #[test]
    fn an_end_is_by_the_uptime() {
        let mut removals = Removals::new();
        follow(&mut removals, &desired(&[A, B], Some(60)), &Desired::default(), &actual(true));
        let Departure { since, end } = departures(&removals)["s"][A];
        assert_eq!(end - since, Duration::from_secs(60));
        assert!(crate::model::uptime::now().saturating_sub(since) < Duration::from_secs(30));
    }
}
