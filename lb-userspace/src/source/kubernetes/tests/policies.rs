//! Which endpoints, and how packets go, by policy and source.

use std::time::Duration;

use super::{super::Options, Does, cluster, objects, show_all, table, tell};
use crate::source::kubernetes::translate::HealthPort;

/// A Service at a cluster address, a load balancer's and node ports.
fn service(more: &str) -> String {
    format!(
        "- {{kind: Service, metadata: {{namespace: d, name: a}}, status: {{loadBalancer: {{ingress: [{{ip: 10.98.0.1}}]}}}}, \
            spec: {{type: LoadBalancer, clusterIP: 10.96.0.1, ports: [{{port: 80, nodePort: 30080}}], {more}}}}}\n"
    )
}

fn slice(endpoints: &str) -> String {
    format!(
        "- {{kind: EndpointSlice, metadata: {{namespace: d, name: a-1, labels: {{kubernetes.io/service-name: a}}}}, addressType: IPv4, \
            ports: [{{name: '', port: 8080}}], endpoints: [{endpoints}]}}\n"
    )
}

const HERE: &str = "{addresses: [10.1.0.1], nodeName: me}";
const THERE: &str = "{addresses: [10.2.0.1], nodeName: other}";

fn fronts(inside: &str, outside: &str) -> String {
    format!("d/a\n10.96.0.1 80/tcp {inside}\n10.98.0.1 80/tcp {outside}\n192.0.2.1 30080/tcp {outside}\n")
}

#[test]
fn t2_r1_to_r5_r7_r8_policies() {
    let (open, keep) = ("all nat|snat", "all snat|snat");
    for (about, policies, endpoints, wanted) in [
        ("Cluster, Cluster", "", format!("{HERE}, {THERE}"), fronts(open, keep) + "> 10.1.0.1:8080 all\n> 10.2.0.1:8080 all"),
        (
            "internal Local: for everybody; the rest by the whole list",
            "internalTrafficPolicy: Local",
            format!("{HERE}, {THERE}"),
            fronts("local-only nat|snat", keep) + "> 10.1.0.1:8080 all local\n> 10.2.0.1:8080 all",
        ),
        (
            "external Local: who comes from outside keeps its address, pods and the node have the whole list",
            "externalTrafficPolicy: Local",
            format!("{HERE}, {THERE}"),
            fronts(open, "local nat|nat") + "> 10.1.0.1:8080 all local\n> 10.2.0.1:8080 all",
        ),
        (
            "both",
            "externalTrafficPolicy: Local, internalTrafficPolicy: Local",
            format!("{HERE}, {THERE}"),
            fronts("local-only nat|snat", "local nat|nat") + "> 10.1.0.1:8080 all local\n> 10.2.0.1:8080 all",
        ),
        (
            "r8: none here, some elsewhere: still those lists, which are empty, so packets are dropped",
            "externalTrafficPolicy: Local, internalTrafficPolicy: Local",
            THERE.into(),
            fronts("local-only nat|snat", "local nat|nat") + "> 10.2.0.1:8080 all",
        ),
        (
            "r7: none at all: everybody is refused, so no list of this node is asked for",
            "externalTrafficPolicy: Local, internalTrafficPolicy: Local",
            "{addresses: [10.1.0.1], nodeName: me, conditions: {ready: false}}".into(),
            fronts(open, "all nat|nat") + "> 10.1.0.1:8080 keeps",
        ),
        (
            "the one here is going away: this node's last resort, not the cluster's",
            "externalTrafficPolicy: Local",
            format!("{{addresses: [10.1.0.1], nodeName: me, conditions: {{ready: false, terminating: true}}}}, {THERE}"),
            fronts(open, "local nat|nat") + "> 10.1.0.1:8080 local\n> 10.2.0.1:8080 all",
        ),
        (
            "hints are for the cluster's list only",
            "externalTrafficPolicy: Local, trafficDistribution: PreferClose",
            "{addresses: [10.1.0.1], nodeName: me, hints: {forZones: [{name: b}]}}, {addresses: [10.2.0.1], nodeName: other, hints: {forZones: [{name: a}]}}".into(),
            fronts(open, "local nat|nat") + "> 10.1.0.1:8080 local\n> 10.2.0.1:8080 all",
        ),
        (
            "b6: an address of the node's own, without a node's name, is not local",
            "externalTrafficPolicy: Local",
            "{addresses: [192.0.2.1]}".into(),
            fronts(open, "local nat|nat") + "> 192.0.2.1:8080 all",
        ),
    ] {
        table(&Options::default(), &[(about, &(service(policies) + &slice(&endpoints)), &wanted)]);
    }
    let masquerade = Options { masquerade_all: true, ..Options::default() };
    table(&masquerade, &[("masqueradeAll", &service(""), &fronts("all snat|snat", keep))]);
    // Nothing but a cluster address: external policy means nothing, and with internal Local nobody asks for the
    // cluster's list.
    let inside = |more: &str| {
        format!(
            "- {{kind: Service, metadata: {{namespace: d, name: a}}, spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}], {more}}}}}\n"
        )
    };
    table(
        &Options::default(),
        &[
            (
                "ClusterIP with external Local",
                &(inside("externalTrafficPolicy: Local") + &slice(THERE)),
                "d/a\n10.96.0.1 80/tcp all nat|snat\n> 10.2.0.1:8080 all",
            ),
            (
                "ClusterIP with internal Local",
                &(inside("internalTrafficPolicy: Local") + &slice(&format!("{HERE}, {THERE}"))),
                "d/a\n10.96.0.1 80/tcp local-only nat|snat\n> 10.1.0.1:8080 local",
            ),
            (
                "ClusterIP with externalIPs and external Local",
                &(inside("externalTrafficPolicy: Local, externalIPs: [10.99.0.1]")
                    + &slice(&format!("{HERE}, {THERE}"))),
                "d/a
             10.96.0.1 80/tcp all nat|snat
             10.99.0.1 80/tcp local nat|nat
             > 10.1.0.1:8080 all local
             > 10.2.0.1:8080 all",
            ),
        ],
    );
}

#[test]
fn t5_the_nodes_zone_changes() {
    let hinted = slice(
        "{addresses: [10.1.0.1], hints: {forZones: [{name: a}]}}, {addresses: [10.2.0.1], hints: {forZones: [{name: b}]}}",
    );
    let (mut state, _) = cluster(Options::default(), &(service("") + &hinted));
    assert!(show_all(&state).ends_with("\n  > 10.1.0.1:8080 all"));
    for (label, wanted) in [
        ("topology.kubernetes.io/zone: b", vec!["10.2.0.1"]),
        ("other: b", vec!["10.1.0.1", "10.2.0.1"]),
        ("topology.kubernetes.io/zone: a", vec!["10.1.0.1"]),
    ] {
        let node = super::NODE.replace("topology.kubernetes.io/zone: a", label);
        tell(&mut state, Does::Apply, &objects(&node)[0]);
        assert_eq!(state.follow(Duration::ZERO).unwrap().changed.len(), 1, "{label}");
        let shown = show_all(&state);
        let taken: Vec<_> =
            ["10.1.0.1", "10.2.0.1"].into_iter().filter(|a| shown.contains(&format!("> {a}"))).collect();
        assert_eq!(taken, wanted, "{label}");
        tell(&mut state, Does::Apply, &objects(&node)[0]);
        assert!(state.cache.dirty().is_empty(), "the same again");
    }
    tell(
        &mut state,
        Does::Apply,
        &objects(&super::NODE.replace("name: me", "name: other").replace("zone: a", "zone: b"))[0],
    );
    assert!(state.cache.dirty().is_empty(), "another node");
}

#[test]
fn b8_what_was_known_of_the_node_stays_when_it_is_deleted() {
    let yaml = service("") + &slice(&format!("{HERE}, {THERE}"));
    let (mut state, _) = cluster(Options::default(), &yaml);
    let before = show_all(&state);
    assert!(before.contains("192.0.2.1 30080/tcp"), "{before}");
    let node = &objects(super::NODE)[0];
    // For a moment its addresses aren't said.
    tell(
        &mut state,
        Does::Apply,
        &objects("{kind: Node, metadata: {name: me, labels: {topology.kubernetes.io/zone: a}}}")[0],
    );
    assert!(state.follow(Duration::ZERO).is_none_or(|delta| delta.changed.is_empty()));
    tell(&mut state, Does::Delete, node);
    state.follow(Duration::ZERO);
    assert_eq!(show_all(&state), before);
    assert!(!state.cache.node().stays);
    // Others that come later are translated by it, too.
    tell(&mut state, Does::Apply, &objects(&yaml)[0]);
    state.follow(Duration::ZERO);
    assert_eq!(show_all(&state), before);
    let moved = super::NODE.replace("192.0.2.1", "192.0.2.2");
    tell(&mut state, Does::Apply, &objects(&moved)[0]);
    state.follow(Duration::ZERO);
    assert!(show_all(&state).contains("192.0.2.2 30080/tcp"), "{}", show_all(&state));
}

#[test]
fn l1_to_l6_source_ranges() {
    let (inside, outside) = ("10.96.0.1 80/tcp all nat|snat", "192.0.2.1 30080/tcp all snat|snat");
    let with =
        |ranges: &str| service(&format!("loadBalancerSourceRanges: [{ranges}], externalIPs: [10.99.0.1]"));
    for (about, ranges, nets) in [
        ("none", "", ""),
        (
            "of the load balancer's address only",
            "10.0.0.0/8, ' 192.168.0.0/16 '",
            " 10.0.0.0/8 192.168.0.0/16",
        ),
        ("everybody", "10.0.0.0/8, 0.0.0.0/0", ""),
        ("of the other family only", "'fd00::/8'", ""),
        ("of both", "'fd00::/8', 10.1.2.3/8", " 10.0.0.0/8"),
        ("nonsense only", "nonsense", ""),
        (
            "the node is one of them: by the load balancer's address too",
            "192.0.2.0/24",
            " 10.98.0.1/32 192.0.2.0/24",
        ),
    ] {
        let balancer = format!("10.98.0.1 80/tcp all snat|snat{nets}");
        let external = "10.99.0.1 80/tcp all snat|snat";
        // Frontends that are alike are one, which has its addresses together.
        let mut lines = vec!["d/a", inside, external, &balancer, outside];
        if nets.is_empty() {
            lines = vec!["d/a", inside, external, &balancer, outside];
        }
        let (state, _) = cluster(Options::default(), &with(ranges));
        let shown = show_all(&state);
        let mut found: Vec<&str> = shown.lines().map(str::trim).collect();
        found.sort_unstable();
        lines.sort_unstable();
        assert_eq!(found, lines, "{about}");
        state.specs().for_each(|spec| spec.validate().unwrap());
    }
}

#[test]
fn u1_udp_flows_move_when_there_is_where_to() {
    let dns = "- {kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 53, protocol: UDP}]}}\n";
    let front = |fate: &str| format!("d/a{fate}\n10.96.0.1 53/udp all nat|snat\n");
    let udp = |endpoints: &str| {
        dns.to_string() + &slice(endpoints).replace("port: 8080", "port: 53, protocol: UDP")
    };
    let unready = "{addresses: [10.1.0.1], conditions: {ready: false, serving: false}}";
    for (about, endpoints, wanted) in [
        ("none: flows are left alone", String::new(), front("")),
        ("none serves: they are kept", unready.into(), front("") + "> 10.1.0.1:53 keeps"),
        ("one serves: those of the other move", format!("{unready}, {THERE}"), front(" Reset/Usual") + "> 10.2.0.1:53 all"),
        (
            "terminating and serving keeps them",
            format!("{{addresses: [10.1.0.1], conditions: {{ready: false, serving: true, terminating: true}}}}, {THERE}"),
            front(" Reset/Usual") + "> 10.1.0.1:53 keeps\n> 10.2.0.1:53 all",
        ),
        (
            "one that hints leave out serves, too",
            "{addresses: [10.1.0.1], hints: {forZones: [{name: a}]}}, {addresses: [10.2.0.1], hints: {forZones: [{name: b}]}}".into(),
            front(" Reset/Usual") + "> 10.1.0.1:53 all\n> 10.2.0.1:53 keeps",
        ),
    ] {
        table(&Options::default(), &[(about, &udp(&endpoints), &wanted)]);
    }
}

#[test]
fn h1_h5_health_check_node_ports() {
    let with = |more: &str| service(&format!("healthCheckNodePort: 31000, {more}"));
    let endpoints = format!(
        "{HERE}, {THERE}, {{addresses: [10.1.0.2], nodeName: me}}, {{addresses: [10.1.0.3], nodeName: me, conditions: {{ready: false, terminating: true}}}}"
    );
    let second = slice(HERE)
        .replace("name: a-1", "name: a-2")
        .replace("port: 8080", "port: 8081")
        .replace("name: ''", "name: b");
    let more = "externalTrafficPolicy: Local, ";
    for (about, yaml, local) in [
        ("addresses that are ready here, each once", with(more) + &slice(&endpoints) + &second, Some(2)),
        ("none", with(more) + &slice(THERE), Some(0)),
        ("only with Local", with("") + &slice(&endpoints), None),
        (
            "only of load balancers",
            with(more).replace("type: LoadBalancer", "type: NodePort") + &slice(&endpoints),
            None,
        ),
        ("only with a port", service(more) + &slice(&endpoints), None),
    ] {
        let (state, _) = cluster(Options::default(), &yaml);
        let found: Vec<_> = state.health().into_values().collect();
        let wanted: Vec<_> = local.map(|local| HealthPort { port: 31000, local }).into_iter().collect();
        assert_eq!(found, wanted, "{about}");
    }
    let (state, _) = cluster(
        Options::default(),
        &(with("externalTrafficPolicy: Local, internalTrafficPolicy: Local") + &slice(THERE)),
    );
    assert_eq!(state.without_local(), [1, 1]);
}
