//! What the DNS says of a name keeps no service from being in force.

use super::*;
use crate::model::BackendSpec;

/// The same service with a host, which has these addresses.
fn with_host(mut spec: ServiceSpec, addresses: &[&str]) -> ServiceSpec {
    for address in addresses {
        let made = make_backend(&spec.name, address, None, None, false, Origin::File).unwrap();
        spec.add(BackendSpec { host: Some("db.test".into()), ..made }).unwrap();
    }
    spec
}

fn shown(known: &Known) -> Vec<String> {
    let services = known.desired.services().values();
    services
        .map(|s| format!("{}: {}", s.name, s.backends.keys().cloned().collect::<Vec<_>>().join(" ")))
        .collect()
}

fn left_out(known: &Known) -> Vec<String> {
    known.rejected.iter().map(ToString::to_string).collect()
}

const OF_B: &str = "host db.test has an address that is left out: \
    service \"a\": backend 10.96.0.2:80 is the VIP of service \"b\"; name the real server";

#[test]
fn an_address_that_is_another_services_vip_is_left_out_and_nothing_else() {
    let own = OwnAddresses::new();
    let a = with_host(service("a", "10.96.0.1", &[]), &["10.0.0.1:80", "10.96.0.2:80", "10.96.0.2:81"]);
    let b = service("b", "10.96.0.2", &["10.0.0.2:80"]);
    let wanted = ["a: 10.0.0.1:80 10.96.0.2:81", "b: 10.0.0.2:80"];
    for order in [[&a, &b], [&b, &a]] {
        let (mut known, mut actual) = (Known::default(), Actual::default());
        take(&mut known, &mut actual, all(&order.map(declared), &own));
        assert_eq!(shown(&known), wanted);
        assert_eq!(left_out(&known), [OF_B]);
        // Who has nothing to do with it is looked at alone; once b goes, the address is a's.
        let c = declared(&service("c", "10.96.0.3", &[]));
        let try_some = |changed: &[Declared], removed: &[&str]| {
            transition(&known, &actual, Input::Some { changed, removed }, Instant::now()).err()
        };
        assert_eq!(try_some(&[c], &[]), None);
        assert_eq!(try_some(&[], &["b"]), Some(Refused::NeedsAll));
        // The DNS says something else: as few services are looked at as have the host.
        let moved = declared(&with_host(service("a", "10.96.0.1", &[]), &["10.0.0.1:80"]));
        let input = Input::Some { changed: std::slice::from_ref(&moved), removed: &[] };
        let refused = transition(&known, &actual, input, Instant::now()).err();
        assert_eq!(refused, None, "only a's own is concerned");
        take(&mut known, &mut actual, input);
        assert_eq!(
            (shown(&known), left_out(&known)),
            (vec!["a: 10.0.0.1:80".into(), wanted[1].into()], vec![])
        );
    }
}

#[test]
fn who_asks_for_a_service_gets_it_whatever_names_lead_to() {
    let (mut known, mut actual, own) = (Known::default(), Actual::default(), OwnAddresses::new());
    let a =
        declared(&with_host(service("a", "10.96.0.1", &["10.0.0.9:80"]), &["10.0.0.1:80", "10.96.0.2:80"]));
    take(&mut known, &mut actual, all(std::slice::from_ref(&a), &own));
    let before = ["a: 10.0.0.1:80 10.0.0.9:80 10.96.0.2:80"];
    assert_eq!((shown(&known), left_out(&known)), (before.map(String::from).into(), vec![]));
    // Its VIP is an address of a's host.
    let b = declared(&service("b", "10.96.0.2", &["10.0.0.2:80"]));
    take(&mut known, &mut actual, Input::Asked { name: "b", declared: Some(&b) });
    assert_eq!(shown(&known), ["a: 10.0.0.1:80 10.0.0.9:80", "b: 10.0.0.2:80"]);
    assert_eq!(left_out(&known), [OF_B]);
    let ids = actual.service("a").unwrap().backends.values();
    let in_use = ids.filter(|id| actual.backend(**id).is_some_and(|backend| !backend.is_retired()));
    assert_eq!(in_use.count(), 2, "the maps follow");
    // So is one that is asked for afterwards.
    take(&mut known, &mut actual, Input::Asked { name: "a", declared: Some(&a) });
    assert_eq!(shown(&known), ["a: 10.0.0.1:80 10.0.0.9:80", "b: 10.0.0.2:80"]);
    assert_eq!(left_out(&known), [OF_B]);
    // Once b is gone, and all is looked at again, the address is a backend.
    take(&mut known, &mut actual, Input::Asked { name: "b", declared: None });
    take(&mut known, &mut actual, all(std::slice::from_ref(&a), &own));
    assert_eq!((shown(&known), left_out(&known)), (before.map(String::from).into(), vec![]));
}

#[test]
fn who_declares_such_an_address_is_told_so() {
    let (mut known, mut actual, own) = (Known::default(), Actual::default(), OwnAddresses::new());
    take(&mut known, &mut actual, all(&[declared(&service("b", "10.96.0.2", &[]))], &own));
    let a = declared(&service("a", "10.96.0.1", &["10.96.0.2:80"]));
    let refused = transition(&known, &actual, Input::Asked { name: "a", declared: Some(&a) }, Instant::now());
    assert!(refused.is_err_and(|refused| refused.to_string().contains("is the VIP of service \"b\"")));
}

#[test]
fn an_address_of_a_host_that_can_t_be_a_backend_refuses_nothing() {
    let (known, actual) = (Known::default(), Actual::default());
    let aside = |address_of: Option<&str>| Rejection {
        service: "a".into(),
        backend: Some("127.0.0.1:80".into()),
        origin: Origin::Cli,
        error: "backend 127.0.0.1:80 can't be reached".into(),
        kept: false,
        alone: true,
        address_of: address_of.map(Into::into),
    };
    for (one, taken) in [(aside(Some("db.test")), true), (aside(None), false)] {
        let mut a = declared(&service("a", "10.96.0.1", &["10.0.0.1:80"]));
        a.aside.push(one.clone());
        let input = Input::Asked { name: "a", declared: Some(&a) };
        match transition(&known, &actual, input, Instant::now()) {
            Ok(step) => assert!(taken && *step.next.rejected == [one]),
            Err(refused) => assert!(!taken && refused.to_string() == one.error),
        }
    }
}
