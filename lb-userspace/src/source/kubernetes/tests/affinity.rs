//! Clients that stay with their endpoint.

use super::{super::Options, cluster, notes, table};

fn service(name: &str, annotations: &str, more: &str) -> String {
    format!(
        "- {{kind: Service, metadata: {{namespace: d, name: {name}, annotations: {{{annotations}}}}}, \
            spec: {{clusterIP: 10.96.0.{}, ports: [{{name: x, port: 80}}, {{name: y, port: 81}}], {more}}}}}\n",
        name.len()
    )
}

/// The two ports of a service.
fn ports(name: &str, what: &str) -> String {
    let ip = name.len();
    format!(
        "d/{name}:x{what}\n10.96.0.{ip} 80/tcp all nat|snat\nd/{name}:y{what}\n10.96.0.{ip} 81/tcp all nat|snat\n"
    )
}

const CLIENT: &str = "sessionAffinity: ClientIP";

#[test]
fn a1_a2_client_affinity_is_each_ports_own() {
    for (about, more, what) in [
        ("none", "sessionAffinity: None", ""),
        ("by default for three hours", CLIENT, " affinity 10800s -"),
        (
            "as long as it says",
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 77}}",
            " affinity 77s -",
        ),
        (
            "s9: a timeout without affinity is none",
            "sessionAffinityConfig: {clientIP: {timeoutSeconds: 77}}",
            "",
        ),
    ] {
        table(&Options::default(), &[(about, &service("a", "", more), &ports("a", what))]);
    }
}

#[test]
fn affinity_beyond_kubernetes() {
    let of = |text: &str| {
        text.split(' ')
            .map(|w| format!("service.flowpin.io/affinity-{w}"))
            .collect::<Vec<_>>()
            .join(", ")
            .replace('=', ": ")
    };
    for (about, annotations, what) in [
        ("by port, said", "scope=port", " affinity 10800s -"),
        ("by Service", "scope=service", " affinity 10800s service/d/a"),
        ("a group", "group=g", " affinity 10800s group/d/g"),
        ("a group, said", "scope=group group=g", " affinity 10800s group/d/g"),
        ("a group that isn't asked for", "scope=port group=g", " affinity 10800s -"),
    ] {
        table(&Options::default(), &[(about, &service("a", &of(annotations), CLIENT), &ports("a", what))]);
    }
    for (annotations, more, says) in [
        ("scope=group", CLIENT, "no affinity-group is named"),
        ("group=g", "sessionAffinity: None", "no effect without sessionAffinity"),
        ("scope=pod", CLIENT, "port, service or group"),
    ] {
        let (state, _) = cluster(Options::default(), &service("a", &of(annotations), more));
        let said = notes(&state);
        assert!(said.len() == 1 && said[0].contains(says), "{annotations}: {said:?}");
        assert_eq!(state.specs().count(), 2);
    }
}
