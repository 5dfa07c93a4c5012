use proptest::prelude::*;

use super::*;
use crate::{
    model::Origin,
    source::{Good, Runtime, Sources, config::parse, decl::BackendDecl, merge::NO_CLUSTER},
};

fn ips(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

fn found(list: &[&str], ttl: u64) -> Option<Answer> {
    Some(Answer::Found { addresses: ips(list), ttl: Duration::from_secs(ttl) })
}

fn none() -> Option<Answer> {
    Some(Answer::None("there is no such name (NXDOMAIN)".into()))
}

fn failed() -> Option<Answer> {
    Some(Answer::Failed("no DNS server answers in time".into()))
}

#[test]
fn what_answers_make_of_known_addresses() {
    let known = ["10.0.0.1", "fd00::1"];
    for (answers, addresses, problem) in [
        ([found(&["10.0.0.2"], 60), none()], &["10.0.0.2"][..], None),
        ([found(&["10.0.0.2"], 60), found(&["fd00::2"], 60)], &["10.0.0.2", "fd00::2"], None),
        ([found(&["10.0.0.2"], 60), None], &["10.0.0.2"], None),
        (
            [found(&["10.0.0.2"], 60), failed()],
            &["10.0.0.2", "fd00::1"],
            Some("in part; its other addresses stay: AAAA: no"),
        ),
        (
            [none(), none()],
            &known,
            Some("its last 2 addresses stay: A: there is no such name (NXDOMAIN), AAAA: there"),
        ),
        ([failed(), failed()], &known, Some("its last 2 addresses stay: A: no DNS server answers in time")),
        ([failed(), None], &["10.0.0.1"], Some("its last address stays: A: no DNS server")),
        ([none(), failed()], &known, Some("its last 2 addresses stay")),
    ] {
        let conclusion = conclude("db.example.com", &ips(&known), &answers, 0);
        assert_eq!(conclusion.addresses, ips(addresses), "{answers:?}");
        let said = conclusion.problem.unwrap_or_default();
        assert!(said.contains(problem.unwrap_or_default()) && said.is_empty() == problem.is_none(), "{said}");
    }
    let never = conclude("db.example.com", &ips(&[]), &[none(), None], 0);
    assert_eq!(
        never.problem.unwrap(),
        "host db.example.com has no known address, so it is no backend: A: there is no such name (NXDOMAIN)"
    );
}

#[test]
fn when_is_asked_again() {
    let seconds = |answers, failures| conclude("db", &ips(&[]), &answers, failures).again.as_secs();
    for (ttl, again) in [(0, 5), (4, 5), (30, 30), (300, 300), (86_400, 300)] {
        assert_eq!(seconds([found(&["10.0.0.1"], ttl), None], 0), again, "TTL {ttl}");
    }
    assert_eq!(seconds([found(&["10.0.0.1"], 60), found(&["fd00::1"], 20)], 0), 20, "the shorter of the two");
    let pauses: Vec<u64> = [0, 1, 2, 3, 4, u32::MAX].map(|n| seconds([failed(), None], n)).into();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 300], "it has never had an address");
    let known = |failures| conclude("db", &ips(&["10.0.0.1"]), &[failed(), None], failures).again.as_secs();
    assert_eq!([0, 1, 2, 3, 4, u32::MAX].map(known), [5, 10, 20, 40, 60, 60]);
    assert_eq!(seconds([found(&["10.0.0.1"], 7), failed()], 4), 7, "what is known is still followed");
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..6).prop_map(|n| IpAddr::from([10, 0, 0, n])),
        (0u16..6).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])),
    ]
}

fn an_answer(v6: bool) -> impl Strategy<Value = Option<Answer>> {
    let some =
        prop::collection::btree_set(an_address().prop_filter("family", move |a| a.is_ipv6() == v6), 1..4);
    prop_oneof![
        2 => (some, any::<u32>()).prop_map(|(addresses, ttl)| {
            Some(Answer::Found { addresses, ttl: Duration::from_secs(ttl.into()) })
        }),
        1 => Just(none()),
        1 => Just(failed()),
        1 => Just(None),
    ]
}

proptest! {
    #[test]
    fn addresses_leave_only_for_others(
        known in prop::collection::btree_set(an_address(), 0..6),
        (v4, v6) in (an_answer(false), an_answer(true)),
        failures in any::<u32>(),
    ) {
        let answers = [v4, v6];
        let conclusion = conclude("db", &known, &answers, failures);
        prop_assert!((SHORTEST..=LONGEST).contains(&conclusion.again));
        let is_found = |answer: &Option<Answer>| matches!(answer, Some(Answer::Found { .. }));
        let some = answers.iter().any(is_found);
        for (answer, v6) in answers.iter().zip([false, true]) {
            let of = |all: &BTreeSet<IpAddr>| -> BTreeSet<IpAddr> {
                all.iter().filter(|address| address.is_ipv6() == v6).copied().collect()
            };
            match answer {
                Some(Answer::Found { addresses, .. }) => prop_assert_eq!(&of(&conclusion.addresses), addresses),
                Some(Answer::Failed(_)) => prop_assert_eq!(of(&conclusion.addresses), of(&known)),
                Some(Answer::None(_)) if !some => prop_assert_eq!(of(&conclusion.addresses), of(&known)),
                Some(Answer::None(_)) | None => prop_assert!(of(&conclusion.addresses).is_empty()),
            }
        }
        let asked = answers.iter().flatten().count();
        let wrong = answers.iter().flatten().any(|a| matches!(a, Answer::Failed(_))) || !some && asked > 0;
        prop_assert_eq!(conclusion.problem.is_some(), wrong);
    }
}

const FILE: &str = "[[service]]\nname = \"a\"\nvip = \"10.96.0.1\"\nports = [\"5432/tcp\"]\non_removal = \"drain\"\n\
    [[service.backend]]\naddress = \"DB.example.com:5432\"\nweight = 3\nmax_connections = 9\nbackup = true\n\
    [[service.backend]]\naddress = \"10.0.0.1:5432\"\n[[service.backend]]\naddress = \"other:5432\"\n";

fn names() -> Names {
    let mut names = Names::default();
    let all = ["10.0.0.1", "10.0.0.2", "fd00::1", "127.0.0.1", "10.96.0.1"];
    assert!(names.set(&"db.example.com".into(), ips(&all)));
    assert!(names.set(&"other".into(), ips(&["10.0.0.2", "10.0.0.3"])));
    names
}

#[test]
fn each_address_is_a_backend_as_its_host_is_declared() {
    let (file, good, names) = (parse(FILE, "f").unwrap(), Good::default(), names());
    let mut runtime = Runtime::default();
    let added = BackendDecl { weight: Some(7), ..BackendDecl::default() };
    for name in ["10.0.0.9:5432", "added:80", "other:5432"] {
        runtime.backends.entry("a".into()).or_default().insert(name.into(), added.clone());
    }
    let sources =
        Sources { file: &file.services, good: &good, runtime: &runtime, cluster: NO_CLUSTER, names: &names };
    let mut notes = Vec::new();
    let declared = sources.one("a", &mut notes).unwrap();
    let spec = declared.spec.unwrap();
    let shown: Vec<_> =
        spec.backends.iter().map(|(name, b)| (name.as_str(), b.weight, b.host.as_deref())).collect();
    assert_eq!(
        shown,
        [
            ("10.0.0.1:5432", 1, None),
            ("10.0.0.2:5432", 3, Some("db.example.com")),
            ("10.0.0.3:5432", 1, Some("other")),
            ("10.0.0.9:5432", 7, None),
        ]
    );
    let second = &spec.backends["10.0.0.2:5432"];
    assert_eq!((second.max_connections, second.backup, second.origin), (Some(9), true, Origin::File));
    assert_eq!(spec.unresolved().map(|host| host.name()).collect::<Vec<_>>(), ["added:80"]);
    for (note, said) in notes.iter().zip([
        "\"a\" is declared by",
        "10.0.0.1:5432",
        "host db.example.com, which is declared first",
    ]) {
        assert!(note.contains(said), "{notes:?}");
    }
    assert_eq!(notes.len(), 3, "{notes:?}");
    let refused: Vec<_> =
        declared.aside.iter().map(|r| (r.backend.as_deref().unwrap(), r.error.as_str())).collect();
    let [("10.96.0.1:5432", vip), ("127.0.0.1:5432", loopback)] = refused[..] else { panic!("{refused:?}") };
    assert!(vip.contains("is the VIP of service") && loopback.contains("127.0.0.1"), "{refused:?}");
    let said = declared.aside[1].to_string();
    assert_eq!(said, format!("host db.example.com has an address that is left out: {loopback}"));
}

#[test]
fn hosts_are_declared_also_by_what_isn_t_in_force() {
    let file = parse(FILE, "f").unwrap();
    let good = Good::of(&file);
    let broken = parse(&FILE.replace("weight = 3", "weight = -3"), "f").unwrap();
    assert!(broken.services[0].spec.is_err());
    let mut runtime = Runtime::default();
    let added = runtime.backends.entry("gone".into()).or_default();
    for name in ["added.:80", "10.0.0.9:80"] {
        added.insert(name.into(), BackendDecl::default());
    }
    let names = names();
    let hosts = |services| {
        let sources =
            Sources { file: services, good: &good, runtime: &runtime, cluster: NO_CLUSTER, names: &names };
        sources.hosts().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let all = ["added.", "db.example.com", "other"];
    assert_eq!(hosts(&file.services), all);
    assert_eq!(hosts(&broken.services), all, "the last good version");
    assert_eq!(hosts(&[]), ["added."]);
}

#[test]
fn addresses_are_kept_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = Names::path(&dir.path().join("state.json"));
    assert_eq!(Names::load(&path), Ok(Names::default()));
    let mut names = names();
    names.save(&path).unwrap();
    assert_eq!(Names::load(&path), Ok(names.clone()));
    assert!(!names.set(&"other".into(), ips(&["10.0.0.3", "10.0.0.2"])), "the same as before");
    assert!(!names.set(&"unheard".into(), ips(&[])), "nothing is known of it either way");
    assert!(names.keep(|host| host == "other") && !names.keep(|host| host == "other"));
    assert_eq!(names.of("db.example.com"), None);
    std::fs::write(&path, "{\"version\": 2}").unwrap();
    assert!(Names::load(&path).unwrap_err().contains("version 2 is not 1"));
}
