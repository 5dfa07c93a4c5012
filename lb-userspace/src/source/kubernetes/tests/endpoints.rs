//! What EndpointSlices make.

use std::time::Duration;

use super::{super::Options, Does, cluster, notes, objects, show_all, table, tell};

const A: &str = "- {kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}\n";
const FRONT: &str = "d/a:http\n10.96.0.1 80/tcp all nat|snat\n";

/// A slice of the Service `a`.
fn slice(name: &str, endpoints: &str) -> String {
    format!(
        "- {{kind: EndpointSlice, metadata: {{namespace: d, name: {name}, labels: {{kubernetes.io/service-name: a}}}}, \
            addressType: IPv4, ports: [{{name: http, port: 8080}}], endpoints: [{endpoints}]}}\n"
    )
}

fn rows(rows: &[(&str, String, &str)]) {
    for (about, yaml, wanted) in rows {
        table(&Options::default(), &[(about, &(A.to_string() + yaml), &(FRONT.to_string() + wanted))]);
    }
}

#[test]
fn e1_whose_a_slice_is() {
    let of = |labels: &str| {
        format!(
            "- {{kind: EndpointSlice, metadata: {{namespace: d, name: a-1, labels: {labels}, ownerReferences: [{{kind: Service, name: a}}]}}, \
                addressType: IPv4, ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: [10.1.0.1]}}]}}"
        )
    };
    rows(&[
        ("by its label", of("{kubernetes.io/service-name: a}"), "> 10.1.0.1:8080 all"),
        ("not by name or owner", of("{}"), ""),
        ("not with an empty label", of("{kubernetes.io/service-name: ''}"), ""),
        ("of another", of("{kubernetes.io/service-name: b}"), ""),
        (
            "of another namespace",
            of("{kubernetes.io/service-name: a}").replace("namespace: d", "namespace: e"),
            "",
        ),
    ]);
    let (state, _) = cluster(Options::default(), &(A.to_string() + &of("{}")));
    assert!(
        notes(&state)[0].starts_with("EndpointSlice d/a-1: Refused: it has no label"),
        "{:?}",
        notes(&state)
    );
    // It may become another's.
    let (mut state, _) =
        cluster(Options::default(), &(A.to_string() + &of("{kubernetes.io/service-name: a}")));
    tell(&mut state, Does::Apply, &objects(&of("{kubernetes.io/service-name: b}"))[0]);
    assert_eq!(state.follow(Duration::ZERO).unwrap().changed.len(), 1);
    assert!(!show_all(&state).contains("10.1.0.1"));
}

#[test]
fn e2_e3_e4_families_ports_addresses() {
    let with = |kind: &str, ports: &str, addresses: &str| {
        format!(
            "- {{kind: EndpointSlice, metadata: {{namespace: d, name: a-{}, labels: {{kubernetes.io/service-name: a}}}}, \
                addressType: {kind}, ports: [{ports}], endpoints: [{{addresses: [{addresses}]}}]}}\n",
            kind.len() + ports.len()
        )
    };
    rows(&[
        ("FQDN", with("FQDN", "{name: http, port: 1}", "example.org"), ""),
        ("a family that the Service hasn't", with("IPv6", "{name: http, port: 1}", "'fd01::1'"), ""),
        ("an address of the other family", with("IPv4", "{name: http, port: 1}", "'fd01::1'"), ""),
        ("another name", with("IPv4", "{name: https, port: 1}", "10.1.0.1"), ""),
        ("another protocol", with("IPv4", "{name: http, port: 1, protocol: UDP}", "10.1.0.1"), ""),
        ("no name", with("IPv4", "{port: 1}", "10.1.0.1"), ""),
        ("no number", with("IPv4", "{name: http}", "10.1.0.1"), ""),
        ("number 0", with("IPv4", "{name: http, port: 0}", "10.1.0.1"), ""),
        (
            "the first address only",
            with("IPv4", "{name: http, port: 1}", "10.1.0.1, 10.1.0.2"),
            "> 10.1.0.1:1 all",
        ),
        ("no address", with("IPv4", "{name: http, port: 1}", ""), ""),
        ("leading zeros", with("IPv4", "{name: http, port: 1}", "010.001.0.1"), "> 10.1.0.1:1 all"),
        (
            "a named target port that is another number in each pod (service.go:4116)",
            with("IPv4", "{name: http, port: 8080}", "10.1.0.1")
                + &with("IPv4", "{name: http, port: 909}", "10.1.0.2"),
            "> 10.1.0.1:8080 all\n> 10.1.0.2:909 all",
        ),
    ]);
    let yaml = A.to_string() + &with("IPv4", "{name: http, port: 1}", "127.0.0.1");
    let (state, _) = cluster(Options::default(), &yaml);
    assert!(notes(&state)[0].contains("InvalidAddress: endpoint \"127.0.0.1\""), "{:?}", notes(&state));
    // An unnamed port is one with an empty name.
    let yaml = "[{kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}},
                 {kind: EndpointSlice, metadata: {namespace: d, name: a-1, labels: {kubernetes.io/service-name: a}}, addressType: IPv4,
                  ports: [{name: '', port: 8080}], endpoints: [{addresses: [10.1.0.1]}]}]";
    table(
        &Options::default(),
        &[("unnamed", yaml, "d/a\n10.96.0.1 80/tcp all nat|snat\n> 10.1.0.1:8080 all")],
    );
}

#[test]
fn e5_e7_e9_conditions() {
    rows(&[
        ("nothing is said: ready", slice("s", "{addresses: [10.1.0.1]}"), "> 10.1.0.1:8080 all"),
        (
            "null: ready",
            slice("s", "{addresses: [10.1.0.1], conditions: {ready: null}}"),
            "> 10.1.0.1:8080 all",
        ),
        (
            "not ready",
            slice("s", "{addresses: [10.1.0.1], conditions: {ready: false}}"),
            "> 10.1.0.1:8080 keeps",
        ),
        (
            "ready and terminating: ready",
            slice("s", "{addresses: [10.1.0.1], conditions: {ready: true, terminating: true}}"),
            "> 10.1.0.1:8080 all",
        ),
        (
            "terminating, nothing said of serving: the last resort",
            slice("s", "{addresses: [10.1.0.1], conditions: {ready: false, terminating: true}}"),
            "> 10.1.0.1:8080 all",
        ),
        (
            "terminating beside a ready one keeps what it has",
            slice(
                "s",
                "{addresses: [10.1.0.1], conditions: {ready: false, terminating: true}}, {addresses: [10.1.0.2]}",
            ),
            "> 10.1.0.1:8080 keeps\n> 10.1.0.2:8080 all",
        ),
        (
            "terminating and not serving is none",
            slice(
                "s",
                "{addresses: [10.1.0.1], conditions: {ready: false, serving: false, terminating: true}}",
            ),
            "> 10.1.0.1:8080 keeps",
        ),
        (
            "in two slices: what isn't terminating goes first, whichever comes first",
            slice("s1", "{addresses: [10.1.0.1]}")
                + &slice("s2", "{addresses: [10.1.0.1], conditions: {ready: false, terminating: true}}"),
            "> 10.1.0.1:8080 all",
        ),
        (
            "and the other way round",
            slice("s2", "{addresses: [10.1.0.1]}")
                + &slice("s1", "{addresses: [10.1.0.1], conditions: {ready: false, terminating: true}}"),
            "> 10.1.0.1:8080 all",
        ),
        (
            "all slices are put together, sorted",
            slice("s1", "{addresses: [10.1.0.2]}") + &slice("s2", "{addresses: [10.1.0.1]}"),
            "> 10.1.0.1:8080 all\n> 10.1.0.2:8080 all",
        ),
    ]);
}

#[test]
fn e10_in_any_order_and_in_flux() {
    let (mut state, _) = cluster(Options::default(), "");
    let now = Duration::ZERO;
    let (one, two) = (slice("s1", "{addresses: [10.1.0.1]}"), slice("s2", "{addresses: [10.1.0.1]}"));
    let none = slice("s1", "");
    let object = |yaml: &str| objects(yaml).remove(0);
    tell(&mut state, Does::Apply, &object(&one));
    assert!(state.follow(now).unwrap().is_empty(), "a slice before its Service");
    tell(&mut state, Does::Apply, &object(A));
    assert_eq!(state.follow(now).unwrap().changed.len(), 1);
    tell(&mut state, Does::Apply, &object(&one));
    assert!(state.cache.dirty().is_empty(), "the same again is no change");
    // It moves to another slice: gone from one first, which may wait; there in the other, which needn't.
    tell(&mut state, Does::Apply, &object(&none));
    assert!(!state.cache.dirty().is_urgent() && !state.cache.dirty().is_empty());
    tell(&mut state, Does::Apply, &object(&two));
    assert!(state.cache.dirty().is_urgent());
    assert!(state.follow(now).unwrap().is_empty(), "nothing has changed on the whole");
    // In both for a while.
    tell(&mut state, Does::Apply, &object(&one));
    tell(&mut state, Does::Delete, &object(&two));
    assert!(state.follow(now).unwrap().is_empty());
    // What changes of an endpoint doesn't wait.
    tell(
        &mut state,
        Does::Apply,
        &object(&slice("s1", "{addresses: [10.1.0.1], conditions: {ready: false}}")),
    );
    assert!(state.cache.dirty().is_urgent());
    // A slice after its Service.
    tell(&mut state, Does::Delete, &object(A));
    let delta = state.follow(now).unwrap();
    assert_eq!((delta.changed.len(), delta.removed), (0, vec!["d/a:http".to_string()]));
    tell(&mut state, Does::Delete, &object(&one));
    assert!(state.follow(now).unwrap().is_empty());
    assert_eq!((state.cache.slices.len(), state.cache.slices_of("d/a").len()), (0, 0));
}

#[test]
fn e11_trigger_times() {
    let (mut state, delta) = cluster(Options::default(), A);
    assert_eq!(delta.triggers, Vec::<u64>::new());
    let at = |time: &str, more: &str| {
        slice("s1", "{addresses: [10.1.0.1]}").replace(
            "labels:",
            &format!(
                "annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{time}', {more}}}, labels:"
            ),
        )
    };
    let mut told = |does, yaml: &str| -> Vec<u64> {
        tell(&mut state, does, &objects(yaml)[0]);
        state.follow(Duration::ZERO).unwrap().triggers
    };
    assert_eq!(told(Does::Apply, &at("2026-01-01T00:00:00.123456789Z", "")), [1_767_225_600_123]);
    assert_eq!(
        told(Does::Apply, &at("2026-01-01T00:00:00.123456789Z", "service.flowpin.io/weight: '7'")),
        [0u64; 0]
    );
    assert_eq!(told(Does::Apply, &at("nonsense", "")), [0u64; 0]);
    assert_eq!(told(Does::Apply, &at("2026-01-01T00:00:02Z", "")), [1_767_225_602_000]);
    assert_eq!(told(Does::Delete, &at("2026-01-01T00:00:03Z", "")), [0u64; 0], "of what is gone nobody says");
}

#[test]
fn a_slice_has_a_weight() {
    let weighted = |text: &str| {
        slice("s1", "{addresses: [10.1.0.1]}")
            .replace("labels:", &format!("annotations: {{service.flowpin.io/weight: '{text}'}}, labels:"))
    };
    rows(&[
        ("7", weighted("7"), "> 10.1.0.1:8080 all weight 7"),
        ("0: nothing new", weighted("0"), "> 10.1.0.1:8080 keeps all"),
        ("nonsense is nothing", weighted("65536"), "> 10.1.0.1:8080 all"),
    ]);
    let (state, _) = cluster(Options::default(), &(A.to_string() + &weighted("65536")));
    assert!(
        notes(&state)[0].contains("InvalidAnnotation: service.flowpin.io/weight \"65536\""),
        "{:?}",
        notes(&state)
    );
}

#[test]
fn nothing_goes_while_it_is_listed_anew() {
    let (mut state, _) =
        cluster(Options::default(), &(A.to_string() + &slice("s1", "{addresses: [10.1.0.1]}")));
    let before = show_all(&state);
    let now = Duration::ZERO;
    super::all_kinds(&mut state, false);
    for yaml in [A, super::NODE] {
        tell(&mut state, Does::InitApply, &objects(yaml)[0]);
    }
    // Half of an endpoint's move has been listed.
    tell(&mut state, Does::InitApply, &objects(&slice("s1", ""))[0]);
    assert!(state.follow(now).unwrap().is_empty());
    assert_eq!(show_all(&state), before);
    // The list broke off, and is begun anew.
    super::all_kinds(&mut state, false);
    assert!(state.follow(now).unwrap().is_empty());
    for yaml in [A, super::NODE, &slice("s2", "{addresses: [10.1.0.1]}")] {
        tell(&mut state, Does::InitApply, &objects(yaml)[0]);
    }
    super::all_kinds(&mut state, true);
    assert!(state.follow(now).unwrap().is_empty(), "the endpoint has moved, that is all");
    assert_eq!(show_all(&state), before);
    // What a complete list doesn't have is gone.
    super::all_kinds(&mut state, false);
    tell(&mut state, Does::InitApply, &objects(super::NODE)[0]);
    assert!(state.follow(now).unwrap().is_empty());
    super::all_kinds(&mut state, true);
    assert_eq!(state.follow(now).unwrap().removed, ["d/a:http"]);
    assert_eq!(show_all(&state), "");
}
