use super::*;
use crate::model::{Frontend, service::make_backend};

fn spec(name: &str, vip: &str, backends: &[&str]) -> Arc<ServiceSpec> {
    let frontend = Frontend {
        addresses: vec![vip.parse().unwrap()],
        ports: vec!["80/tcp".parse().unwrap()],
        ..Frontend::default()
    };
    let mut spec = ServiceSpec::new(name, vec![frontend], Origin::File);
    for backend in backends {
        spec.add(make_backend(name, backend, None, None, false, Origin::File).unwrap()).unwrap();
    }
    Arc::new(spec)
}

fn of(origin: Origin, spec: Arc<ServiceSpec>, good: Option<Arc<ServiceSpec>>) -> Declared {
    Declared { name: spec.name.clone(), origin, spec: Ok(spec), good, aside: Vec::new() }
}

fn wrong(name: &str, good: Option<Arc<ServiceSpec>>) -> Declared {
    let spec = Err("wrong".into());
    Declared { name: name.into(), origin: Origin::File, spec, good, aside: Vec::new() }
}

/// Where each service is, and who isn't where it is declared to be (`+`: the last good version is in force).
fn settled(declared: &[Declared], holding: &[&Arc<ServiceSpec>]) -> (Vec<String>, Vec<String>) {
    let holds =
        |spec: &ServiceSpec| holding.iter().any(|h| h.name == spec.name && h.frontends == spec.frontends);
    let (desired, rejected) = settle(declared, &Unplanned::new(), &OwnAddresses::new(), holds);
    let at = |s: &Arc<ServiceSpec>| format!("{} {}", s.name, s.frontends[0].addresses[0]);
    let whom = |r: &Rejection| format!("{}{}", r.service, if r.kept { "+" } else { "" });
    (desired.services().values().map(at).collect(), rejected.iter().map(whom).collect())
}

#[test]
fn what_is_wrong_with_one_is_that_ones() {
    let (a, b) = (spec("a", "10.96.0.1", &[]), spec("b", "10.96.0.2", &[]));
    let file = |spec: &Arc<ServiceSpec>| of(Origin::File, spec.clone(), None);
    assert_eq!(
        settled(&[file(&a), wrong("x", None), file(&b)], &[]),
        (vec!["a 10.96.0.1".into(), "b 10.96.0.2".into()], vec!["x".into()])
    );
    let x = spec("x", "10.96.0.3", &[]);
    let (all, rejected) = settled(&[file(&a), wrong("x", Some(x)), file(&b)], &[]);
    assert_eq!((all.len(), rejected), (3, vec!["x+".into()]));
}

#[test]
fn who_is_there_stays_and_places_may_be_swapped() {
    let (a, b) = (spec("a", "10.96.0.1", &[]), spec("b", "10.96.0.2", &[]));
    let (a2, b1) = (spec("a", "10.96.0.2", &[]), spec("b", "10.96.0.1", &[]));
    let swap = [of(Origin::File, a2.clone(), Some(a.clone())), of(Origin::File, b1.clone(), Some(b.clone()))];
    let holding = [&a, &b];
    assert_eq!(settled(&swap, &holding), (vec!["a 10.96.0.2".into(), "b 10.96.0.1".into()], vec![]));
    // One that is new, or moved, doesn't push out who is there, wherever it is declared.
    let new = spec("0", "10.96.0.1", &[]);
    let crowd = [
        of(Origin::File, new, None),
        of(Origin::File, b1, Some(b.clone())),
        of(Origin::File, a.clone(), None),
    ];
    assert_eq!(
        settled(&crowd, &holding),
        (vec!["a 10.96.0.1".into(), "b 10.96.0.2".into()], vec!["0".into(), "b+".into()])
    );
    // Whose last good version is needed goes before what was to come in its place.
    let moved = [wrong("b", Some(b.clone())), of(Origin::File, a2, Some(a.clone()))];
    assert_eq!(
        settled(&moved, &holding),
        (vec!["a 10.96.0.1".into(), "b 10.96.0.2".into()], vec!["b+".into(), "a+".into()])
    );
}

#[test]
fn the_file_goes_first() {
    let (file, cli) = (spec("file", "10.96.0.1", &[]), spec("cli", "10.96.0.1", &[]));
    let both = [of(Origin::Cli, cli.clone(), None), of(Origin::File, file, None)];
    assert_eq!(settled(&both, &[&cli]), (vec!["file 10.96.0.1".into()], vec!["cli".into()]));
}

#[test]
fn what_cant_be_planned_falls_back_and_then_out() {
    let (good, new) = (spec("a", "10.96.0.1", &[]), spec("a", "10.96.0.1", &["10.0.0.1"]));
    let declared = [of(Origin::File, new, Some(good))];
    for (times, expected) in [(0, (1, 1)), (1, (1, 0)), (2, (0, 0))] {
        let unplanned = Unplanned::from([("a".to_string(), (times, "no room".to_string()))]);
        let (desired, rejected) = settle(&declared, &unplanned, &OwnAddresses::new(), |_| true);
        let backends: usize = desired.services().values().map(|s| s.backends.len()).sum();
        assert_eq!((desired.services().len(), backends), expected, "{times}");
        assert_eq!(rejected.len(), usize::from(times > 0));
    }
}
