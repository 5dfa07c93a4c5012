//! Options: the nearest word goes.

use std::time::Duration;

use super::{super::Options, Does, cluster, notes, objects, show_all, table, tell};
use crate::{
    model::{ForwardKind, StrayKind, TimeoutSpec},
    source::kubernetes::annotations::Knobs,
};

fn service(annotations: &str) -> String {
    format!(
        "- {{kind: Service, metadata: {{namespace: d, name: a, annotations: {{{annotations}}}}}, status: {{loadBalancer: {{ingress: [{{ip: 10.98.0.1}}]}}}}, \
            spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}}}\n"
    )
}

fn namespace(annotations: &str) -> String {
    format!("- {{kind: Namespace, metadata: {{name: d, annotations: {{{annotations}}}}}}}\n")
}

const SLICE: &str = "- {kind: EndpointSlice, metadata: {namespace: d, name: a-1, labels: {kubernetes.io/service-name: a}}, addressType: IPv4,
   ports: [{name: '', port: 80}], endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false, terminating: true}}]}\n";

/// One option under its whole name.
fn ours(text: &str) -> String {
    format!("service.flowpin.io/{text}")
}

#[test]
fn the_nearest_word_goes() {
    let mut defaults = Knobs::default();
    defaults.set("max-connections", "1", &[]).unwrap();
    defaults.set("lb-algorithm", "maglev", &[]).unwrap();
    let options = Options { defaults, ..Options::default() };
    let fronts = "10.96.0.1 80/tcp all nat|snat\n10.98.0.1 80/tcp all snat|snat\n";
    let limit = |head: &str, limit: &str| {
        format!("{head}\n{fronts}> 10.1.0.1:80 all{limit}\n> 10.1.0.2:80 keeps{limit}")
    };
    let (two, three) = (ours("max-connections: '2'"), ours("max-connections: '3'"));
    for (about, yaml, wanted) in [
        ("the operator's", service("") + SLICE, limit("d/a consistent-hash", " limit 1")),
        ("the Namespace's", service("") + &namespace(&two) + SLICE, limit("d/a consistent-hash", " limit 2")),
        (
            "the Service's",
            service(&three) + &namespace(&two) + SLICE,
            limit("d/a consistent-hash", " limit 3"),
        ),
        (
            "off",
            service(&ours("max-connections: 'off'")) + &namespace(&two) + SLICE,
            limit("d/a consistent-hash", ""),
        ),
        (
            "each by itself",
            service(&ours("lb-algorithm: lc")) + &namespace(&two) + SLICE,
            limit("d/a", " limit 2"),
        ),
        (
            "a bad one leaves what was",
            service(&ours("max-connections: 'x'")) + &namespace(&two) + SLICE,
            limit("d/a consistent-hash", " limit 2"),
        ),
    ] {
        table(&options, &[(about, &yaml, &wanted)]);
    }
    let stray = Options { stray: Some(StrayKind::Pass), ..Options::default() };
    table(&stray, &[("the operator's alone", &service(""), &format!("d/a stray\n{fronts}"))]);
}

#[test]
fn changes_are_live_and_bad_ones_are_said() {
    let (mut state, _) = cluster(Options::default(), &(service("") + SLICE));
    let now = Duration::from_secs(100);
    let mut change = |does, yaml: &str| {
        tell(&mut state, does, &objects(yaml)[0]);
        let delta = state.follow(now).unwrap();
        (delta.changed.len(), show_all(&state).lines().next().unwrap_or_default().to_string(), notes(&state))
    };
    assert_eq!(
        change(Does::Apply, &service(&ours("lb-algorithm: maglev"))),
        (1, "d/a consistent-hash".into(), vec![])
    );
    let (changed, shown, said) = change(Does::Apply, &service(&ours("lb-algorithms: maglev")));
    assert_eq!((changed, shown.as_str()), (1, "d/a"));
    assert!(
        said[0].starts_with(
            "Service d/a: InvalidAnnotation: service.flowpin.io/lb-algorithms is not known; use lb-algorithm"
        ),
        "{said:?}"
    );
    assert_eq!(
        change(Does::Apply, &service("other.example/lb-algorithm: maglev")),
        (0, "d/a".into(), vec![])
    );
    assert_eq!(
        change(Does::Apply, &namespace(&ours("lb-algorithm: maglev"))),
        (1, "d/a consistent-hash".into(), vec![])
    );
    let (changed, shown, said) = change(Does::Apply, &namespace(&ours("lb-algorithm: sed")));
    assert_eq!((changed, shown.as_str()), (1, "d/a"));
    assert!(said.len() == 1 && said[0].starts_with("Namespace d: InvalidAnnotation: "), "{said:?}");
    assert_eq!(change(Does::Delete, &namespace("")), (0, "d/a".into(), vec![]));
    let mut defaults = Knobs::default();
    defaults.set("on-removal", "reset", &[]).unwrap();
    state.set_options(Options { defaults, ..Options::default() });
    assert_eq!(state.follow(now).unwrap().changed.len(), 1);
    assert!(show_all(&state).starts_with("d/a Reset/Usual"));
}

#[test]
fn drains_have_a_deadline_from_when_they_began() {
    let yaml = service(&ours("drain-deadline: 5m")) + SLICE;
    let (mut state, _) = cluster(Options::default(), &yaml);
    assert!(
        show_all(&state).ends_with("> 10.1.0.1:80 all\n  > 10.1.0.2:80 keeps 300s from 0s"),
        "{}",
        show_all(&state)
    );
    // What changes later doesn't begin it anew.
    let more = SLICE.replace(
        "{addresses: [10.1.0.1]}",
        "{addresses: [10.1.0.1], conditions: {ready: false, terminating: true}}, {addresses: [10.1.0.3]}",
    );
    tell(&mut state, Does::Apply, &objects(&more)[0]);
    state.follow(Duration::from_secs(9)).unwrap();
    let shown = show_all(&state);
    assert!(
        shown.ends_with(
            "> 10.1.0.1:80 keeps 300s from 9s\n  > 10.1.0.2:80 keeps 300s from 0s\n  > 10.1.0.3:80 all"
        ),
        "{shown}"
    );
}

#[test]
fn forwarding_modes_are_for_the_operator_to_allow() {
    let of = |mode: &str| service(&ours(&format!("forwarding-mode: {mode}"))) + SLICE;
    let plain = "d/a\n10.96.0.1 80/tcp all nat|snat\n10.98.0.1 80/tcp all snat|snat\n";
    let backends = "> 10.1.0.1:80 all\n> 10.1.0.2:80 keeps";
    let with = |fronts: &str| format!("d/a\n{fronts}\n{backends}");
    let all = Options {
        forwarding_modes: vec![ForwardKind::Nat, ForwardKind::Snat, ForwardKind::DsrL2, ForwardKind::DsrIpip],
        ..Options::default()
    };
    table(
        &all,
        &[
            ("nat", &of("nat"), &with("10.96.0.1 80/tcp all nat|nat\n10.98.0.1 80/tcp all nat|nat")),
            ("snat", &of("snat"), &with("10.96.0.1 80/tcp all snat|snat\n10.98.0.1 80/tcp all snat|snat")),
            (
                "past the node, for addresses that endpoints can have",
                &of("dsr-ipip"),
                &with("10.96.0.1 80/tcp all nat|snat\n10.98.0.1 80/tcp all dsr-ipip|dsr-ipip"),
            ),
        ],
    );
    table(&Options::default(), &[("not allowed", &of("dsr-ipip"), &(plain.to_string() + backends))]);
    let (state, _) = cluster(Options::default(), &of("dsr-ipip"));
    assert!(notes(&state)[0].contains("kubernetes.forwarding_modes"), "{:?}", notes(&state));
    // Ports can't be replaced on that way; then it goes as Kubernetes has it.
    let moved = of("dsr-ipip").replace("name: '', port: 80", "name: '', port: 8080");
    let (state, _) = cluster(all, &moved);
    assert!(show_all(&state).contains("10.98.0.1 80/tcp all snat|snat"), "{}", show_all(&state));
    assert!(notes(&state)[0].contains("forwarding-mode can't be as asked for"), "{:?}", notes(&state));
}

#[test]
fn each_option_is_the_services() {
    let words = [
        ("slow-start", "30s"),
        ("timeout-idle", "15h"),
        ("timeout-client-request", "91s"),
        ("timeout-backend-response", "60s"),
        ("timeout-half-open", "10s"),
        ("timeout-half-closed", "1h"),
        ("timeout-udp", "2m"),
        ("max-age", "24h"),
        ("affinity-ipv6-prefix", "64"),
        ("affinity-bound", "5"),
    ];
    let annotations: Vec<String> =
        words.iter().map(|(name, text)| ours(&format!("{name}: '{text}'"))).collect();
    let yaml = format!(
        "- kind: Service
  metadata: {{namespace: d, name: a, annotations: {{{}}}}}
  spec: {{clusterIP: 10.96.0.1, sessionAffinity: ClientIP, ports: [{{port: 80}}]}}
",
        annotations.join(", ")
    );
    let (state, _) = cluster(Options::default(), &yaml);
    let spec = state.specs().next().unwrap();
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!(spec.slow_start, seconds(30));
    let TimeoutSpec { idle, client_request, backend_response, half_open, half_closed, udp, max_age } =
        spec.timeouts;
    assert_eq!(
        [idle, client_request, backend_response, half_open, half_closed, udp, max_age],
        [54_000, 91, 60, 10, 3_600, 120, 86_400].map(seconds)
    );
    let affinity = spec.affinity.as_ref().unwrap();
    assert_eq!((affinity.ipv6_prefix, affinity.bound), (64, Some(5)));
}
