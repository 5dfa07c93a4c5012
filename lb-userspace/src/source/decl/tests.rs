use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::{paths::Paths, statuses::Statuses, *};
use crate::{
    model::{ForwardKind, HealthSpec, Probe, TimeoutSpec},
    source::{Runtime, config, merge},
};

mod packaged;

fn decl(json: &str) -> ServiceDecl {
    serde_json::from_str(json).expect("it can be read")
}

fn spec(json: &str) -> Result<ServiceSpec, String> {
    let spec = decl(json).spec("s", Origin::Cli).map_err(|e| e.to_string())?;
    spec.validate().map(|()| spec).map_err(|e| e.to_string())
}

fn texts<T: ToString>(list: impl IntoIterator<Item = T>) -> Vec<String> {
    list.into_iter().map(|item| item.to_string()).collect()
}

#[test]
fn what_is_left_out_is_the_first_frontend_s() {
    let spec = spec(
        r#"{"vip": "10.96.0.10", "vips": ["fd96::10", "10.96.0.10"], "ports": ["80:8080/tcp"], "scope": "local",
            "source_ranges": ["10.0.0.0/8", "fd00::/8"], "forward": {"elsewhere": "snat"}, "stray": "pass",
            "deny_ranges": ["10.9.0.0/16", "fd09::/16"],
            "frontends": [{"addresses": ["192.0.2.1"]}, {"addresses": ["::"], "ports": ["30080:8080/tcp"],
                          "source_ranges": [], "deny_ranges": ["fd07::/16"], "forward": "nat"}]}"#,
    );
    let spec = spec.unwrap();
    assert_eq!(spec.stray(), StrayKind::Pass);
    let [first, second, third] = spec.frontends.as_slice() else { panic!("{:?}", spec.frontends) };
    assert_eq!(texts(&first.addresses), ["10.96.0.10", "fd96::10"], "each once");
    assert_eq!((first.scope, second.scope), (Scope::Local, Scope::All));
    assert_eq!(first.forward, Forwarding { pod: ForwardKind::Nat, elsewhere: ForwardKind::Snat });
    assert_eq!((second.forward, &second.ports), (first.forward, &first.ports));
    assert_eq!(texts(&second.sources), ["10.0.0.0/8"], "of its family");
    assert_eq!(
        (texts(&second.denied), texts(&third.denied)),
        (vec!["10.9.0.0/16".into()], vec!["fd07::/16".into()])
    );
    assert_eq!((third.forward, third.sources.len()), (Forwarding::default(), 0));
    assert_eq!(texts(&third.ports), ["30080:8080/tcp"]);
}

#[test]
fn addresses_are_left_out_where_all_of_the_node_s_are_meant() {
    let of = |except: &str| {
        spec(&format!(
            r#"{{"vip": "10.96.0.10", "vip_except": [{except}], "ports": ["80/tcp"],
                "frontends": [{{"addresses": ["0.0.0.0"]}}, {{"addresses": ["0.0.0.0", "::"], "ports": ["81/tcp"]}}]}}"#
        ))
    };
    let spec = of(r#""10.0.0.9", "fd00::9""#).unwrap();
    let except: Vec<_> = spec.frontends.iter().map(|f| texts(&f.except)).collect();
    assert_eq!(except, [vec![], vec!["10.0.0.9".to_string()], vec!["10.0.0.9".into(), "fd00::9".into()]]);
    let error = self::spec(r#"{"vip": "10.96.0.10", "vip_except": ["10.0.0.9"], "ports": ["80/tcp"]}"#);
    assert!(error.unwrap_err().contains("vip_except"));
}

#[test]
fn what_is_wrong_is_named() {
    for (json, says) in [
        (r#"{"ports": ["80/tcp"]}"#, "no address"),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "scope": "node"}"#, "\"node\""),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "stray": "drop"}"#, "\"drop\""),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "forward": {"pod": "masquerade"}}"#, "masquerade"),
        (
            r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "source_ranges": ["10.0.0.0/8"],
                "frontends": [{"addresses": ["fd96::1"]}]}"#,
            "fd96::1",
        ),
        (
            r#"{"vip": "10.96.0.10", "vips": ["fd96::1"], "ports": ["80/tcp"], "source_ranges": ["10.0.0.0/8"]}"#,
            "::/0",
        ),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "health": {"interval": "1s"}}"#, "health.type \"\""),
        (
            r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "health": {"type": "tcp", "path": "/"}}"#,
            "health.path is not for health checks of type \"tcp\"",
        ),
        (
            r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "health": {"type": "tcp", "panic": 300}}"#,
            "health.panic \"300\"",
        ),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "slow_start": 0.5}"#, "slow_start \"0.5s\""),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "slow_start": -3}"#, "slow_start \"-3s\""),
        (
            r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "affinity": {"by": "port", "group": "g"}}"#,
            "not both",
        ),
        (r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "affinity": {"by": "client"}}"#, "\"client\""),
    ] {
        let error = spec(json).expect_err(json);
        assert!(error.contains(says) && !error.contains('\n'), "{json}: {error}");
    }
    let error =
        serde_json::from_str::<ServiceDecl>(r#"{"vip": "::", "ports": [], "forward": {"node": "nat"}}"#);
    assert!(error.unwrap_err().to_string().contains("pod = \"nat\""));
}

#[test]
fn forward_is_shown_as_short_as_it_can_be() {
    let json = |forward: Forwarding| serde_json::to_string(&ForwardDecl::from(forward)).unwrap();
    assert_eq!(json(Forwarding::all(ForwardKind::DsrL2)), "\"dsr-l2\"");
    let by = Forwarding { pod: ForwardKind::Nat, elsewhere: ForwardKind::Snat };
    assert_eq!(json(by), r#"{"pod":"nat","elsewhere":"snat"}"#);
    assert_eq!(ForwardDecl::from(by).spec(), Ok(by));
}

/// Words that may be there.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(words).prop_map(Into::into))
}

fn time(longest: u64) -> impl Strategy<Value = Option<Time>> {
    let text = (1..=longest).prop_map(|s| Time::Text(format!("{s}s")));
    prop::option::of(prop_oneof![text, (1..=longest).prop_map(|s| Time::Seconds(s as f64))])
}

fn numbers(range: RangeInclusive<i64>) -> impl Strategy<Value = Option<i64>> {
    prop::option::of(range)
}

fn a_forward() -> impl Strategy<Value = Option<ForwardDecl>> {
    let kinds: &[&str] = &["nat", "snat"];
    let by = (word(kinds), word(kinds))
        .prop_map(|(pod, elsewhere)| ForwardDecl::BySource(ForwardBySource { pod, elsewhere }));
    prop::option::of(prop_oneof![prop::sample::select(kinds).prop_map(|w| ForwardDecl::Word(w.into())), by])
}

fn a_frontend() -> impl Strategy<Value = FrontendDecl> {
    let sources = || prop::option::of(Just(Vec::<String>::new()));
    (0u8..9, prop::bool::ANY, word(&["all", "local"]), (sources(), sources()), a_forward()).prop_map(
        |(i, anywhere, scope, (source_ranges, deny_ranges), forward)| FrontendDecl {
            addresses: vec![if anywhere { "0.0.0.0".into() } else { format!("192.0.2.{i}") }],
            ports: Some(vec![format!("{}:80/tcp", 30_000 + u16::from(i))]),
            scope,
            source_ranges,
            deny_ranges,
            forward,
        },
    )
}

prop_compose! {
    fn an_affinity()(
        client_ip in prop::bool::weighted(0.9),
        timeout in time(90_000),
        group in word(&["g", "h"]),
        by in word(&["service", "port"]),
        ipv6_prefix in numbers(1..=128),
        bound in numbers(1..=1_000_000),
    ) -> AffinityDecl {
        AffinityDecl { client_ip, timeout, by: by.filter(|_| group.is_none()), group, ipv6_prefix, bound }
    }
}

prop_compose! {
    fn a_health()(
        kind in prop::sample::select(vec!["none", "tcp", "http", "https", "grpc", "udp", "redis", "postgres", "mysql"]),
        interval in time(9_000),
        timeout in time(9_000),
        (rise, fall) in (numbers(1..=1_000), numbers(1..=1_000)),
        path in prop::option::of(prop_oneof![
            prop::sample::select(vec!["/", "/healthz"]).prop_map(|path| Paths::One(path.into())),
            Just(Paths::Several(vec!["/live".into(), "/ready".into()])),
        ]),
        host in word(&["a.example"]),
        expect in prop::option::of(prop_oneof![
            (100..=599_i64).prop_map(Statuses::One),
            prop::sample::select(vec!["200-399", "200,404"]).prop_map(|text| Statuses::Text(text.into())),
        ]),
        (send, talk) in (word(&["PING\r\n"]), prop::bool::ANY),
        (user, database, role) in (word(&["probe"]), word(&["app"]), prop::option::of(0..2_usize)),
        port in numbers(1..=65_535),
        service in word(&["s"]),
        passive in prop::option::of(prop::bool::ANY),
        panic in numbers(0..=100),
    ) -> HealthDecl {
        let web = kind.starts_with("http");
        HealthDecl {
            kind: kind.into(),
            // Services have no UDP port here, and backends not always one.
            port: port.or((kind == "udp").then_some(1812)),
            interval,
            timeout,
            rise,
            fall,
            path: path.filter(|_| web),
            host: host.filter(|_| web),
            expect: expect.filter(|_| web),
            service: service.filter(|_| kind == "grpc"),
            send: send.filter(|_| kind == "udp"),
            talk: (talk && kind == "tcp").then(|| vec![
                StepDecl { send: Some(r"PING\r\n\x00\xff".into()), ..Default::default() },
                StepDecl { expect: Some("+PONG\r\n".into()), ..Default::default() },
                StepDecl { matches: Some(r"role:(master|slave)\r".into()), ..Default::default() },
            ]),
            user: match kind {
                "postgres" => Some("flowpin".into()),
                "mysql" => user,
                _ => None,
            },
            // What is shown doesn't have it.
            password: None,
            database: database.filter(|_| kind == "postgres"),
            role: role.and_then(|which| match kind {
                "redis" => Some(["master", "replica"][which].into()),
                "postgres" => Some(["primary", "standby"][which].into()),
                _ => None,
            }),
            // Of the file's alone: in its own test.
            command: None,
            passive,
            panic,
        }
    }
}

prop_compose! {
    fn some_timeouts()(
        [idle, client_request, max_age, half_open, half_closed, udp] in
            [time(90_000), time(90_000), time(90_000), time(90_000), time(90_000), time(90_000)],
        backend_response in time(1_800),
    ) -> TimeoutsDecl {
        TimeoutsDecl { idle, client_request, backend_response, max_age, half_open, half_closed, udp }
    }
}

prop_compose! {
    fn a_backend()(
        i in 0u8..200,
        port in prop::option::of(1u16..),
        weight in numbers(0..=65_535),
        max_connections in numbers(1..=4_294_967_294),
        (local, backup) in (prop::bool::ANY, prop::bool::ANY),
    ) -> BackendDecl {
        let address = port.map_or(format!("10.0.1.{i}"), |port| format!("10.0.1.{i}:{port}"));
        BackendDecl { address, weight, max_connections, local, backup }
    }
}

prop_compose! {
    fn a_rebalance()(
        budget in prop::sample::select(vec!["1%/min", "0.001%/min", "100%/min", "2.5%/min"]),
        idle in time(90_000),
        above in prop::option::of(100u32..=10_000),
    ) -> RebalanceDecl {
        RebalanceDecl { budget: budget.into(), idle, above: above.map(|above| f64::from(above) / 100.0) }
    }
}

prop_compose! {
    fn a_service()(
        (v6, except, sources, deny) in (prop::bool::ANY, prop::bool::ANY, prop::bool::ANY, prop::bool::ANY),
        (scope, forward, stray, algorithm) in (
            word(&["all", "local"]),
            a_forward(),
            word(&["reset", "forward", "pass"]),
            word(&["least-connections", "consistent-hash"]),
        ),
        affinity in prop::option::of(an_affinity()),
        timeouts in prop::option::of(some_timeouts()),
        health in prop::option::of(a_health()),
        (slow_start, quorum, service_max_connections) in (time(9_000), numbers(1..=4), numbers(1..=4_294_967_294)),
        rebalance in prop::option::of(a_rebalance()),
        on_removal in prop::option::of(prop_oneof![
            prop::sample::select(vec!["keep", "drain", "reset"]).prop_map(|word| RemovalDecl::Word(word.into())),
            (word(&["keep", "drain"]), (1..=300_u64)).prop_map(|(policy, seconds)| {
                RemovalDecl::Within(RemovalWithin { policy, deadline: Some(Duration::from_secs(seconds).into()) })
            }),
        ]),
        (on_unhealthy, on_deadline) in (word(&["keep", "reset"]), word(&["keep", "reset"])),
        frontends in prop::collection::vec(a_frontend(), 0..3),
        backends in prop::collection::vec(a_backend(), 0..4),
    ) -> ServiceDecl {
        let mut seen = BTreeSet::new();
        let frontends: Vec<_> = frontends.into_iter().filter(|f| seen.insert(f.ports.clone())).collect();
        let anywhere = frontends.iter().any(|f| f.addresses == ["0.0.0.0"]);
        let mut there = BTreeSet::new();
        let by_connections = affinity.is_none() && algorithm.as_deref() != Some("consistent-hash");
        ServiceDecl {
            name: "ns/app:http".into(),
            vip: Some("10.96.0.10".into()),
            vips: if v6 { vec!["fd96::10".into()] } else { Vec::new() },
            vip_except: if except && anywhere { vec!["192.0.2.99".into()] } else { Vec::new() },
            source_ranges: if sources { vec!["10.0.0.0/8".into(), "fd00::/8".into()] } else { Vec::new() }
                .into_iter()
                .filter(|range: &String| v6 || !range.contains("fd"))
                .collect(),
            deny_ranges: if deny { vec!["10.9.0.0/16".into()] } else { Vec::new() },
            ports: vec!["80:8080/tcp".into(), "8001-8003/tcp".into()],
            scope,
            forward,
            stray,
            algorithm,
            affinity,
            timeouts,
            quorum: quorum.filter(|_| health.as_ref().and_then(|health| health.panic).unwrap_or(0) == 0),
            service_max_connections,
            health,
            rebalance: rebalance.filter(|_| by_connections),
            slow_start,
            on_removal,
            on_unhealthy,
            on_deadline,
            frontends,
            backends: backends.into_iter().filter(|b| there.insert(b.address.clone())).collect(),
        }
    }
}

fn valid(decl: &ServiceDecl) -> ServiceSpec {
    let spec = decl.spec(&decl.name, Origin::File).expect("it is good");
    spec.validate().expect("it is valid");
    spec
}

proptest! {
    #[test]
    fn every_declaration_comes_back_from_every_form(decl in a_service()) {
        let spec = valid(&decl);
        // The config file, with its names of tables, and with the declaration's.
        let text = toml::to_string(&toml::Table::from_iter([("service".to_string(), toml::Value::Array(vec![
            toml::Value::try_from(&decl).expect("it has a form in TOML"),
        ]))])).expect("TOML");
        let file_s = text.replace("service.frontends", "service.frontend").replace("service.backends", "service.backend");
        for text in [file_s, text] {
            let file = config::parse(&text, "f.toml").expect("it can be read");
            prop_assert_eq!(file.services[0].spec.as_ref().expect("it is good").as_ref(), &spec, "{}", text);
        }
        // The API, and what it shows.
        let json = serde_json::to_string(&decl).expect("JSON");
        prop_assert_eq!(&serde_json::from_str::<ServiceDecl>(&json).expect("it can be read"), &decl);
        let shown = ServiceDecl {
            name: decl.name.clone(),
            backends: spec.backends.values().map(Into::into).collect(),
            ..ServiceDecl::from(&spec)
        };
        prop_assert_eq!(valid(&shown), spec.clone());
        prop_assert_eq!(ServiceDecl::from(&valid(&shown)), ServiceDecl::from(&spec), "it is shown as it is");
        // The state file.
        let mut runtime = Runtime::default();
        runtime.declare(&decl.name, decl.clone()).expect("it is good");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.json");
        runtime.save(&path).expect("saved");
        let loaded = Runtime::load(&path).expect("it can be read");
        prop_assert_eq!(&loaded, &runtime);
        let good = Default::default();
        let merged = merge::Sources::local(&[], &good, &loaded).one(&decl.name, &mut Vec::new());
        let mut of_cli = ServiceSpec { origin: Origin::Cli, ..spec };
        of_cli.backends.values_mut().for_each(|backend| backend.origin = Origin::Cli);
        let merged = merged.expect("it is declared");
        prop_assert_eq!(merged.aside.len(), 0);
        let spec = merged.spec.expect("it is good");
        prop_assert_eq!(spec.as_ref(), &of_cli);
    }

    #[test]
    fn a_change_to_what_is_there_changes_nothing(decl in a_service()) {
        let serde_json::Value::Object(patch) = serde_json::to_value(&decl).expect("JSON") else { panic!() };
        let same = patch::service(&decl.name, &decl, &patch).expect("it can be read");
        prop_assert_eq!(valid(&ServiceDecl { name: decl.name.clone(), ..same }), valid(&decl));
        let none = patch::service(&decl.name, &decl, &Default::default()).expect("it can be read");
        prop_assert_eq!(ServiceDecl { name: decl.name.clone(), ..none }, decl);
    }
}

#[test]
fn what_is_left_out_is_by_default() {
    let spec = spec(r#"{"vip": "10.96.0.10", "ports": ["80/tcp"], "health": {"type": "http"}}"#).unwrap();
    let second = Duration::from_secs(1);
    let probe = Probe::Http { tls: false, paths: vec!["/".into()], host: None, expect: vec![200..=200] };
    let health = HealthSpec {
        port: None,
        probe,
        interval: 2 * second,
        timeout: second,
        rise: 2,
        fall: 3,
        passive: true,
        panic: 0,
    };
    assert_eq!((spec.health, spec.timeouts, spec.slow_start), (Some(health), TimeoutSpec::default(), None));
}
