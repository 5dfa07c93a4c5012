//! What is said of why, and that it is what is in force.

use super::{
    super::{Options, State, explain::Question, record::Transport},
    cluster,
};
use crate::{
    api::types::{EndpointView, EndpointsView},
    model::AdminState,
};

const INSIDE: &str = "10.96.0.1:80";
const OUTSIDE: &str = "192.0.2.1:30080";

/// A Service at a cluster address and a node port, with two ports.
fn app(policies: &str, endpoints: &str) -> String {
    format!(
        "- {{kind: Service, metadata: {{namespace: d, name: a}}, spec: {{type: NodePort, clusterIP: 10.96.0.1, {policies},
            ports: [{{name: other, port: 81}}, {{name: http, port: 80, nodePort: 30080}}]}}}}
- {{kind: EndpointSlice, metadata: {{namespace: d, name: a-1, labels: {{kubernetes.io/service-name: a}}}}, addressType: IPv4,
    ports: [{{name: http, port: 8080}}], endpoints: [{endpoints}]}}
"
    )
}

fn ask(state: &State, vip: &str, local: bool) -> Option<EndpointsView> {
    let (service, vip) = ("d/a:http".into(), vip.parse().unwrap());
    state.explain(&Question { service, vip, transport: Transport::Tcp, local })
}

/// Are those used that are on the list which is in force?
fn check(state: &State, view: &EndpointsView, local: bool) {
    let spec = state.specs().find(|spec| spec.name == "d/a:http").unwrap();
    for endpoint in &view.endpoints {
        let backend = spec.backends.get(&endpoint.address);
        let listed = backend.is_some_and(|backend| {
            let lists = backend.lists.unwrap();
            backend.admin == AdminState::Active && if local { lists.local } else { lists.all }
        });
        assert_eq!(endpoint.used, listed, "{endpoint:?} of {view:?}, as {backend:?}");
        assert!(!endpoint.why.is_empty());
    }
}

/// Endpoints in short: `+` used, `-` not, the last number of the address, why.
fn short(view: &EndpointsView) -> Vec<String> {
    let one = |e: &EndpointView| {
        let last = e.address.strip_suffix(":8080").unwrap().rsplit('.').next().unwrap();
        format!("{}{last} {}", if e.used { '+' } else { '-' }, e.why)
    };
    view.endpoints.iter().map(one).collect()
}

const LOCAL: &str = "internalTrafficPolicy: Local, externalTrafficPolicy: Local";
const HERE: &str = "{addresses: [10.1.0.1], nodeName: me}, {addresses: [10.1.0.2], nodeName: other}";

#[test]
fn policies_say_whose_endpoints() {
    let going = "{addresses: [10.1.0.1], nodeName: me, conditions: {ready: false, terminating: true}}";
    let elsewhere = "{addresses: [10.1.0.2], nodeName: other}";
    for (policies, endpoints, vip, local, policy, wanted) in [
        (
            "x: y",
            HERE.to_string(),
            INSIDE,
            false,
            "internalTrafficPolicy is Cluster: endpoints of all nodes",
            &["+1 ready", "+2 ready"][..],
        ),
        (
            "x: y",
            HERE.into(),
            OUTSIDE,
            false,
            "externalTrafficPolicy is Cluster: endpoints of all nodes",
            &["+1 ready", "+2 ready"],
        ),
        (
            LOCAL,
            HERE.into(),
            INSIDE,
            true,
            "internalTrafficPolicy is Local: endpoints of this node",
            &["+1 ready, on this node", "-2 on another node"],
        ),
        (
            LOCAL,
            HERE.into(),
            OUTSIDE,
            true,
            "externalTrafficPolicy is Local: endpoints of this node",
            &["+1 ready, on this node", "-2 on another node"],
        ),
        (
            "externalTrafficPolicy: Local",
            HERE.into(),
            OUTSIDE,
            false,
            "externalTrafficPolicy is Local, but the client is a pod or process of this node: endpoints of all nodes",
            &["+1 ready", "+2 ready"],
        ),
        (
            LOCAL,
            elsewhere.into(),
            INSIDE,
            true,
            "internalTrafficPolicy is Local, and no endpoint of this node can take a client: clients are dropped",
            &["-2 on another node"],
        ),
        (
            LOCAL,
            format!("{going}, {elsewhere}"),
            OUTSIDE,
            true,
            "externalTrafficPolicy is Local: endpoints of this node",
            &["+1 terminating, but none of this node is ready, and it still serves", "-2 on another node"],
        ),
        (
            LOCAL,
            "{addresses: [10.1.0.1], nodeName: me, conditions: {ready: false}}".into(),
            INSIDE,
            false,
            "no endpoint can take a client on any node: clients are refused",
            &["-1 not ready"],
        ),
    ] {
        let (state, _) = cluster(Options::default(), &app(policies, &endpoints));
        let view = ask(&state, vip, local).unwrap();
        let said = short(&view);
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        assert_eq!((view.policy.as_str(), &*said), (policy, wanted), "{view:?}");
        check(&state, &view, local);
    }
}

/// An endpoint: its last number, conditions and hints.
fn endpoint(number: u8, conditions: &str, hints: &str) -> String {
    format!(
        "{{addresses: [10.1.0.{number}], nodeName: other, conditions: {{{conditions}}}, hints: {{{hints}}}}}"
    )
}

#[test]
fn conditions_say_which_of_them() {
    let (state, _) = cluster(
        Options::default(),
        &app(
            "x: y",
            &[
                endpoint(1, "", ""),
                endpoint(2, "ready: false", ""),
                endpoint(3, "ready: false, serving: true, terminating: true", ""),
                endpoint(4, "ready: false, serving: false, terminating: true", ""),
                endpoint(5, "ready: true, terminating: true", ""),
            ]
            .join(", "),
        ),
    );
    let view = ask(&state, INSIDE, false).unwrap();
    assert_eq!(
        short(&view),
        [
            "+1 ready",
            "-2 not ready",
            "-3 terminating, and others are ready",
            "-4 terminating, and no longer serving",
            "+5 ready",
        ]
    );
    let conditions: Vec<_> = view.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    let wanted = [
        (true, true, false),
        (false, true, false),
        (false, true, true),
        (false, false, true),
        (true, true, true),
    ];
    assert_eq!(conditions, wanted);
    check(&state, &view, false);
    let (state, _) = cluster(
        Options::default(),
        &app("x: y", &endpoint(3, "ready: false, serving: true, terminating: true", "")),
    );
    let view = ask(&state, INSIDE, false).unwrap();
    assert_eq!(short(&view), ["+3 terminating, but none is ready, and it still serves"]);
    check(&state, &view, false);
}

#[test]
fn hints_say_how_near() {
    let (a, b) = ("forZones: [{name: a}]", "forZones: [{name: b}, {name: c}]");
    let (me, other) = ("forNodes: [{name: me}]", "forNodes: [{name: other}]");
    for (hints, said, wanted) in [
        (["", ""], "none: endpoints of all zones", ["+1 ready", "+2 ready"]),
        (
            [a, b],
            "followed: endpoints that are for zone \"a\"",
            ["+1 ready, for this zone", "-2 for other zones"],
        ),
        (
            [a, ""],
            "not followed, since ready endpoint 10.1.0.2:8080 has none for zones: endpoints of all zones",
            ["+1 ready", "+2 ready"],
        ),
        (
            [b, b],
            "not followed, since no ready endpoint is for zone \"a\": endpoints of all zones",
            ["+1 ready", "+2 ready"],
        ),
        (
            [me, other],
            "followed: endpoints that are for this node",
            ["+1 ready, for this node", "-2 for other nodes"],
        ),
    ] {
        let endpoints = [endpoint(1, "", hints[0]), endpoint(2, "", hints[1])].join(", ");
        let (state, _) = cluster(Options::default(), &app("x: y", &endpoints));
        let view = ask(&state, INSIDE, false).unwrap();
        assert_eq!((view.hints.as_str(), &*short(&view)), (said, &wanted.map(String::from)[..]));
        assert_eq!(view.zone.as_deref(), Some("a"));
        check(&state, &view, false);
        let local = ask(&state, INSIDE, true).unwrap();
        assert_eq!(local.hints, "not looked at: only endpoints of this node are used");
    }
    // Without a zone there is none that could be near.
    let node = "- {kind: Node, metadata: {name: me}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}\n";
    let (state, _) = cluster(Options::default(), &(app("x: y", &endpoint(1, "", a)) + node));
    let view = ask(&state, INSIDE, false).unwrap();
    assert_eq!((&view.zone, short(&view)), (&None, vec!["+1 ready".into()]));
    let wanted =
        "not followed, since this node has no label topology.kubernetes.io/zone: endpoints of all zones";
    assert_eq!(view.hints, wanted);
}

#[test]
fn every_way_to_a_service_has_its_name() {
    let yaml = app("externalIPs: [10.97.0.1]", HERE).replace(
        "metadata: {namespace: d, name: a},",
        "metadata: {namespace: d, name: a}, status: {loadBalancer: {ingress: [{ip: 10.98.0.1}]}},",
    );
    let (state, _) = cluster(Options::default(), &yaml);
    for (vip, name) in [
        (INSIDE, "cluster IP"),
        (OUTSIDE, "node port"),
        ("10.97.0.1:80", "external IP"),
        ("10.98.0.1:80", "load balancer"),
    ] {
        let view = ask(&state, vip, false).unwrap();
        assert_eq!(
            (view.service.as_str(), view.port.as_str(), view.frontend.as_str()),
            ("d/a", "http", name)
        );
    }
    assert_eq!(ask(&state, "10.96.0.1:81", false), None, "another port");
    let question = |service: &str, transport| {
        let (service, vip) = (service.into(), INSIDE.parse().unwrap());
        state.explain(&Question { service, vip, transport, local: false })
    };
    assert_eq!(question("d/a:http", Transport::Udp), None);
    assert_eq!(question("d/b:http", Transport::Tcp), None);
    assert_eq!(question("d/a", Transport::Tcp), None);
}

#[test]
fn a_weight_of_none_is_said() {
    let yaml =
        app("x: y", HERE).replace("name: a-1,", "name: a-1, annotations: {service.flowpin.io/weight: '0'},");
    let (state, _) = cluster(Options::default(), &yaml);
    let view = ask(&state, INSIDE, false).unwrap();
    assert_eq!(short(&view)[0], "-1 weight 0, by the annotation of its EndpointSlice");
    check(&state, &view, false);
}

#[test]
fn what_is_said_is_in_force() {
    // Pairs of conditions and hints, by every policy.
    let conditions = [
        "",
        "ready: false",
        "ready: false, terminating: true",
        "ready: false, serving: false, terminating: true",
        "ready: true, terminating: true",
    ];
    let hints = [
        "",
        "forZones: [{name: a}]",
        "forZones: [{name: b}]",
        "forNodes: [{name: me}], forZones: [{name: a}]",
    ];
    let all: Vec<String> = conditions
        .iter()
        .flat_map(|c| hints.iter().map(move |h| format!("conditions: {{{c}}}, hints: {{{h}}}")))
        .flat_map(|said| ["me", "other"].map(|node| format!("nodeName: {node}, {said}")))
        .collect();
    for policies in ["x: y", LOCAL, "externalTrafficPolicy: Local", "internalTrafficPolicy: Local"] {
        for (one, other) in all.iter().flat_map(|one| all.iter().step_by(3).map(move |other| (one, other))) {
            let endpoints = format!("{{addresses: [10.1.0.1], {one}}}, {{addresses: [10.1.0.2], {other}}}");
            let (state, _) = cluster(Options::default(), &app(policies, &endpoints));
            for (vip, local) in [(INSIDE, false), (INSIDE, true), (OUTSIDE, false), (OUTSIDE, true)] {
                check(&state, &ask(&state, vip, local).unwrap(), local);
            }
        }
    }
}
