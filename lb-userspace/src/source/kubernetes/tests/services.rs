//! Which Services are served, and where.

use super::{
    super::{Options, node::NodePorts},
    Does, cluster, notes, objects, show_all, table, tell,
};

#[test]
fn s1_s2_s3_services_and_their_cluster_addresses() {
    table(&Options::default(), &[
        ("headless", "[{kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: None, ports: [{port: 80}]}}]", ""),
        ("without an address", "[{kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: '', ports: [{port: 80}]}}]", ""),
        (
            "ExternalName, though there is an address",
            "[{kind: Service, metadata: {namespace: d, name: a}, spec: {type: ExternalName, clusterIP: 10.96.0.1, ports: [{port: 80}]}}]",
            "",
        ),
        (
            "no list of families",
            "[{kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: 'fd96::1', ports: [{port: 80}]}}]",
            "d/a
             fd96::1 80/tcp all nat|snat",
        ),
        (
            "both families, the second first",
            "[{kind: Service, metadata: {namespace: d, name: a},
               spec: {clusterIP: 'fd96::1', clusterIPs: ['fd96::1', 10.96.0.1], ipFamilies: [IPv6, IPv4], ports: [{name: http, port: 80}]}}]",
            "d/a:http
             10.96.0.1 80/tcp all nat|snat
             fd96::1 80/tcp all nat|snat",
        ),
        (
            "an address that isn't of its family",
            "[{kind: Service, metadata: {namespace: d, name: a},
               spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 10.96.0.2], ipFamilies: [IPv4, IPv6], ports: [{port: 80}]}}]",
            "d/a
             10.96.0.1 80/tcp all nat|snat",
        ),
        (
            "no cluster address of a family: nothing of that family",
            "[{kind: Service, metadata: {namespace: d, name: a}, status: {loadBalancer: {ingress: [{ip: 'fd98::1'}, {ip: 10.98.0.1}]}},
               spec: {type: LoadBalancer, clusterIP: 10.96.0.1, ipFamilies: [IPv4], clusterIPs: [10.96.0.1],
                      externalIPs: ['fd99::1', 10.99.0.1], ports: [{port: 80, nodePort: 30080}]}}]",
            "d/a
             10.96.0.1 80/tcp all nat|snat
             10.98.0.1 80/tcp all snat|snat
             10.99.0.1 80/tcp all snat|snat
             192.0.2.1 30080/tcp all snat|snat",
        ),
        (
            "several ports are services of their own",
            "[{kind: Service, metadata: {namespace: d, name: a},
               spec: {clusterIP: 10.96.0.1, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}, {name: m, port: 9153}]}}]",
            "d/a:dns
             10.96.0.1 53/udp all nat|snat
             d/a:dns-tcp
             10.96.0.1 53/tcp all nat|snat
             d/a:m
             10.96.0.1 9153/tcp all nat|snat",
        ),
    ]);
}

#[test]
fn s4_s5_s6_s7_frontends() {
    table(&Options::default(), &[
        (
            "node ports, also the same of two protocols; none where it is 0",
            "[{kind: Service, metadata: {namespace: d, name: a},
               spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{name: t, port: 80, nodePort: 30080}, {name: u, port: 80, nodePort: 30080, protocol: UDP}, {name: v, port: 81, nodePort: 0}]}}]",
            "d/a:t
             10.96.0.1 80/tcp all nat|snat
             192.0.2.1 30080/tcp all snat|snat
             d/a:u
             10.96.0.1 80/udp all nat|snat
             192.0.2.1 30080/udp all snat|snat
             d/a:v
             10.96.0.1 81/tcp all nat|snat",
        ),
        (
            "load balancers: by address and as VIP only; the type isn't asked for",
            "[{kind: Service, metadata: {namespace: d, name: a},
               status: {loadBalancer: {ingress: [{ip: 10.98.0.1}, {ip: 10.98.0.2, ipMode: VIP}, {ip: 10.98.0.3, ipMode: Proxy}, {hostname: lb.example}]}},
               spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}]",
            "d/a
             10.96.0.1 80/tcp all nat|snat
             10.98.0.1 80/tcp all snat|snat
             10.98.0.2 80/tcp all snat|snat",
        ),
        (
            "an address that is there twice",
            "[{kind: Service, metadata: {namespace: d, name: a}, status: {loadBalancer: {ingress: [{ip: 10.98.0.1}]}},
               spec: {clusterIP: 10.96.0.1, externalIPs: [10.98.0.1, 10.96.0.1], ports: [{port: 80}]}}]",
            "d/a
             10.96.0.1 80/tcp all nat|snat
             10.98.0.1 80/tcp all snat|snat",
        ),
        (
            "one that is a load balancer's too has its source ranges",
            "[{kind: Service, metadata: {namespace: d, name: a}, status: {loadBalancer: {ingress: [{ip: 10.98.0.1}]}},
               spec: {clusterIP: 10.96.0.1, externalIPs: [10.98.0.1], loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 80}]}}]",
            "d/a
             10.96.0.1 80/tcp all nat|snat
             10.98.0.1 80/tcp all snat|snat 10.0.0.0/8",
        ),
        (
            "null is what an empty list is",
            "[{kind: Service, metadata: {namespace: d, name: a, labels: null, annotations: null}, status: {loadBalancer: null},
               spec: {clusterIP: 10.96.0.1, clusterIPs: null, externalIPs: null, internalTrafficPolicy: null, sessionAffinityConfig: null, ports: [{port: 80}]}},
              {kind: EndpointSlice, metadata: {namespace: d, name: a-1, labels: {kubernetes.io/service-name: a}}, addressType: IPv4, ports: null, endpoints: null}]",
            "d/a
             10.96.0.1 80/tcp all nat|snat",
        ),
    ]);
    let without = Options { external_ips: false, ..Options::default() };
    let yaml = "[{kind: Service, metadata: {namespace: d, name: a}, spec: {clusterIP: 10.96.0.1, externalIPs: [10.98.0.1], ports: [{port: 80}]}}]";
    table(&without, &[("externalIPs can be switched off", yaml, "d/a\n10.96.0.1 80/tcp all nat|snat")]);
}

#[test]
fn s7_a_change_of_type_takes_all_frontends_away() {
    let service = |kind: &str| {
        format!(
            "{{kind: Service, metadata: {{namespace: d, name: a}}, spec: {{type: {kind}, clusterIP: 10.96.0.1, ports: [{{port: 80, nodePort: 30080}}]}}}}"
        )
    };
    let (mut state, delta) = cluster(Options::default(), &service("NodePort"));
    assert_eq!((delta.first, delta.changed.len()), (true, 1));
    tell(&mut state, Does::Apply, &objects(&service("ExternalName"))[0]);
    let delta = state.follow(Default::default()).unwrap();
    assert_eq!((delta.changed.len(), delta.removed), (0, vec!["d/a".to_string()]));
    assert_eq!(show_all(&state), "");
    tell(&mut state, Does::Apply, &objects(&service("NodePort"))[0]);
    let delta = state.follow(Default::default()).unwrap();
    assert_eq!((delta.changed.len(), delta.removed.len()), (1, 0));
}

#[test]
fn s8_sloppy_and_bad_addresses() {
    let yaml = "[{kind: Service, metadata: {namespace: d, name: a}, status: {loadBalancer: {ingress: [{ip: 10.98.0.300}]}},
                  spec: {type: LoadBalancer, clusterIP: 010.096.0.01, externalIPs: [here, '::ffff:10.99.0.1', 127.0.0.1, 224.0.0.1],
                         loadBalancerSourceRanges: [' 10.0.0.0/8 ', nonsense], ports: [{port: 80}, {port: 0, name: x}, {port: 81, name: y, protocol: DCCP}]}}]";
    table(
        &Options::default(),
        &[(
            "what can be read is served",
            yaml,
            "d/a\n10.96.0.1 80/tcp all nat|snat\n10.99.0.1 80/tcp all snat|snat",
        )],
    );
    let (state, _) = cluster(Options::default(), yaml);
    let said = notes(&state).join("\n");
    for wanted in [
        "\"here\"",
        "\"127.0.0.1\"",
        "\"224.0.0.1\"",
        "\"10.98.0.300\"",
        "\"nonsense\"",
        "port 0",
        "\"DCCP\"",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(said.lines().count(), 7, "{said}");
    assert!(said.lines().all(|line| line.starts_with("Service d/a: ")), "{said}");
}

#[test]
fn s10_sctp_disturbs_nobody() {
    let yaml = "[{kind: Service, metadata: {namespace: d, name: a}, spec: {type: NodePort, clusterIP: 10.96.0.1,
                  ports: [{name: s, port: 80, nodePort: 30080, protocol: SCTP}, {name: t, port: 80, nodePort: 30080, protocol: TCP}]}}]";
    let wanted = "d/a:t\n10.96.0.1 80/tcp all nat|snat\n192.0.2.1 30080/tcp all snat|snat";
    table(&Options::default(), &[("SCTP beside TCP", yaml, wanted)]);
    let (state, _) = cluster(Options::default(), yaml);
    assert!(notes(&state)[0].contains("UnsupportedProtocol: port 80 is SCTP"), "{:?}", notes(&state));
}

#[test]
fn s11_conflicts() {
    let service = |name: &str, ip: &str, created: &str, more: &str| {
        format!(
            "- {{kind: Service, metadata: {{namespace: d, name: {name}, creationTimestamp: '{created}'}}, \
               spec: {{clusterIP: {ip}, ports: [{{port: 80}}], {more}}}}}\n"
        )
    };
    let (old, new) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let shared = "externalIPs: [192.0.2.9]";
    let yaml = service("new", "10.96.0.1", new, shared) + &service("old", "10.96.0.2", old, shared);
    let (mut state, _) = cluster(Options::default(), &yaml);
    assert_eq!(
        show_all(&state),
        "d/new\n  10.96.0.1 80/tcp all nat|snat\nd/old\n  10.96.0.2 80/tcp all nat|snat\n  192.0.2.9 80/tcp all snat|snat"
    );
    let said = notes(&state);
    assert!(
        said.len() == 1 && said[0].contains("d/new: AddressConflict: 192.0.2.9 port 80 is d/old's"),
        "{said:?}"
    );
    // Who held it goes, and the other is told.
    tell(&mut state, Does::Delete, &objects(&service("old", "10.96.0.2", old, shared))[0]);
    let delta = state.follow(Default::default()).unwrap();
    assert_eq!((delta.changed.len(), delta.removed), (1, vec!["d/old".to_string()]));
    assert_eq!(show_all(&state), "d/new\n  10.96.0.1 80/tcp all nat|snat\n  192.0.2.9 80/tcp all snat|snat");
    assert_eq!(notes(&state), Vec::<String>::new());
    // It comes back, and so does what was.
    tell(&mut state, Does::Apply, &objects(&service("old", "10.96.0.2", old, shared))[0]);
    let delta = state.follow(Default::default()).unwrap();
    assert_eq!((delta.changed.len(), delta.removed.len()), (2, 0));
    // Another port of the same address is nobody's business; a cluster address is its Service's, however old who
    // asks for it.
    table(
        &Options::default(),
        &[
            (
                "other ports",
                &(service("a", "10.96.0.1", new, shared)
                    + "- {kind: Service, metadata: {namespace: d, name: b}, spec: {clusterIP: 10.96.0.2, externalIPs: [192.0.2.9], ports: [{port: 81}]}}"),
                "d/a
             10.96.0.1 80/tcp all nat|snat
             192.0.2.9 80/tcp all snat|snat
             d/b
             10.96.0.2 81/tcp all nat|snat
             192.0.2.9 81/tcp all snat|snat",
            ),
            (
                "a cluster address",
                &(service("a", "10.96.0.1", new, "")
                    + &service("b", "10.96.0.2", old, "externalIPs: [10.96.0.1]")),
                "d/a
             10.96.0.1 80/tcp all nat|snat
             d/b
             10.96.0.2 80/tcp all nat|snat",
            ),
        ],
    );
}

fn node_ports(words: &[&str]) -> NodePorts {
    NodePorts::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

#[test]
fn n3_node_ports_at_localhost() {
    let yaml = |policy: &str| {
        format!(
            "- kind: Service
  metadata: {{namespace: d, name: a}}
  spec: {{type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd96::1'], ipFamilies: [IPv4, IPv6],
          externalTrafficPolicy: {policy}, ports: [{{port: 80, nodePort: 30080}}]}}
  status: {{loadBalancer: {{ingress: [{{ip: 127.0.0.1}}]}}}}
- kind: EndpointSlice
  metadata: {{namespace: d, name: a-1, labels: {{kubernetes.io/service-name: a}}}}
  addressType: IPv4
  ports: [{{name: '', port: 8080}}]
  endpoints: [{{addresses: [10.244.1.1], nodeName: other}}]
"
        )
    };
    let options = Options { node_ports: node_ports(&["primary", "localhost"]), ..Options::default() };
    table(
        &options,
        &[
            (
                "beside the primary addresses",
                &yaml("Cluster"),
                "d/a
             10.96.0.1 80/tcp all nat|snat
             fd96::1 80/tcp all nat|snat
             192.0.2.1 30080/tcp all snat|snat
             127.0.0.1 30080/tcp all snat|snat
             2001:db8::1 30080/tcp all snat|snat
             ::1 30080/tcp all snat|snat
             > 10.244.1.1:8080 all",
            ),
            (
                "the scope is as elsewhere: a process of the node gets endpoints of all nodes anyway",
                &yaml("Local"),
                "d/a
             10.96.0.1 80/tcp all nat|snat
             fd96::1 80/tcp all nat|snat
             192.0.2.1 30080/tcp local nat|nat
             127.0.0.1 30080/tcp local nat|nat
             2001:db8::1 30080/tcp all nat|nat
             ::1 30080/tcp all nat|nat
             > 10.244.1.1:8080 all",
            ),
        ],
    );
    // A load balancer's address is never loopback's: whoever writes it there has no say in what is the node's.
    let (state, _) = cluster(Options::default(), &yaml("Cluster"));
    assert!(notes(&state).iter().any(|note| note.contains("127.0.0.1\" is not an address to be reached at")));
}

#[test]
fn n1_node_ports_follow_the_nodes_addresses() {
    let yaml = "[{kind: Service, metadata: {namespace: d, name: a}, spec: {type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}]}}]";
    let options = Options { node_ports: node_ports(&["192.0.2.0/24"]), ..Options::default() };
    let (mut state, _) = cluster(options, yaml);
    let at = |address: &str| format!("  {address} 30080/tcp all snat|snat");
    let first = "d/a\n  10.96.0.1 80/tcp all nat|snat".to_string();
    assert_eq!(show_all(&state), [first.clone(), at("192.0.2.1"), at("192.0.2.2")].join("\n"));
    state.set_own(&["192.0.2.3".parse().unwrap()].into());
    assert_eq!(state.follow(Default::default()).unwrap().changed.len(), 1);
    assert_eq!(show_all(&state), [first, at("192.0.2.3")].join("\n"));
    state.set_own(&["192.0.2.3".parse().unwrap()].into());
    assert!(state.follow(Default::default()).unwrap().is_empty());
}
