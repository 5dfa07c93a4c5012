//! Promise: all connections of a client go to one backend, clients are spread evenly, and nobody else moves when a backend goes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Cgroup, Net,
    agent::{interfaces, interfaces_of_pods, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
};

const LIMIT: Duration = Duration::from_secs(40);
const PORTS: [u16; 3] = [8001, 8002, 8003];

fn servers(net: &Net) -> Vec<Server> {
    net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), PORTS)).collect()
}

/// Client `i`'s address, which its namespace has.
fn address(family: Family, i: usize) -> IpAddr {
    match family {
        V4 => format!("10.3.{}.{}", i / 200, i % 200 + 1).parse(),
        V6 => format!("fd03::{:x}:1", i + 1).parse(),
    }
    .expect("an address")
}

/// Gives the client's namespace the addresses of so many clients.
fn clients(net: &Net, count: usize) {
    let list: String = (0..count)
        .flat_map(|i| {
            [
                format!("addr add {}/32 dev eth0\n", address(V4, i)),
                format!("addr add {}/128 dev eth0 nodad\n", address(V6, i)),
            ]
        })
        .collect();
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("batch");
    std::fs::write(&path, list).expect("a file");
    net.client.ip(&format!("-batch {}", path.display()));
    net.node.ip("route add 10.3.0.0/16 via 10.1.0.2");
    net.node.ip("-6 route add fd03::/64 via fd01::2");
    for (i, backend) in net.backends.iter().enumerate() {
        backend.ip(&format!("route replace default via 10.2.{i}.1"));
    }
}

/// An agent with one service, at port 8001, that binds clients like this.
fn start(net: &Net, family: Family, how: &str) -> Agent {
    let targets: Vec<String> = (0..net.backends.len()).map(|i| family.backend(i)).collect();
    let affinity = format!("affinity = {{ client_ip = true, {how} }}");
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &family.vip(0), "\"8001/tcp\"", &targets, &affinity);
    Agent::start(&net.node, &config)
}

/// A connection from a client's address, in the client's namespace.
fn connect(net: &Net, from: IpAddr, to: SocketAddr) -> std::io::Result<Conn> {
    net.client.run(|| Conn::open_from(SocketAddr::new(from, 0), to))
}

/// How many clients each backend has, and that none has two.
fn homes(conns: &[(usize, Conn)]) -> BTreeMap<&str, usize> {
    let mut of: BTreeMap<usize, &str> = BTreeMap::new();
    for (client, conn) in conns {
        let home = of.entry(*client).or_insert(&conn.backend);
        assert_eq!(*home, conn.backend, "client {client} is at two backends");
    }
    let mut count = BTreeMap::new();
    for home in of.into_values() {
        *count.entry(home).or_default() += 1;
    }
    count
}

fn spread<'a>(counts: impl IntoIterator<Item = &'a usize> + Clone) -> usize {
    counts.clone().into_iter().max().expect("some") - counts.into_iter().min().expect("some")
}

fn bound(agent: &Agent, name: &str) -> Vec<u64> {
    let view = agent.json(&["service", "show", name]);
    let backends = view["backends"].as_array().expect("backends");
    backends.iter().map(|b| b["clients"].as_u64().expect("a count")).collect()
}

#[test]
fn sockets_of_a_client_stay_together_over_ports_and_services() {
    for (family, hook) in [(V4, "tc"), (V6, "tc"), (V4, "xdp")] {
        let net = Net::new(4);
        let _servers = servers(&net);
        clients(&net, 40);
        let targets: Vec<String> = (0..4).map(|i| family.backend(i)).collect();
        // Two services of one group; the second's backends in another order.
        let reversed: Vec<String> = targets.iter().rev().cloned().collect();
        let affinity = "affinity = { client_ip = true, timeout = \"3h\", group = \"g\" }";
        let config = interfaces(&[("c0", hook), ("b*", "tc")])
            + &service("one", &family.vip(0), "\"8001-8002/tcp\"", &targets, affinity)
            + &service("two", &family.vip(1), "\"8003/tcp\"", &reversed, affinity);
        let agent = Agent::start(&net.node, &config);
        let open = |i: usize| {
            let to = |port: u16| at(&family.vip(usize::from(port == 8003)), port);
            // Each client begins with another port.
            (0..3)
                .map(|k| (i, connect(&net, address(family, i), to(PORTS[(i + k) % 3])).expect("answered")))
                .collect::<Vec<_>>()
        };
        let mut conns: Vec<(usize, Conn)> = (0..40).flat_map(open).collect();
        let counts = homes(&conns);
        // Each service spreads those evenly who came to it first.
        assert!(counts.len() == 4 && spread(counts.values()) <= 2, "{counts:?}");
        assert_eq!(agent.json(&["status"])["accounting_drift"], 0);

        // A draining backend gets no further socket of anybody, and its clients move as a whole.
        agent.done(&["backend", "drain", "one", &targets[0]]);
        agent.done(&["backend", "drain", "two", &targets[0]]);
        let of_b0: Vec<usize> = conns.iter().filter(|(_, c)| c.backend == "b0").map(|(i, _)| *i).collect();
        let moved: Vec<(usize, Conn)> = of_b0.iter().take(9).flat_map(|i| open(*i)).collect();
        assert!(!homes(&moved).contains_key("b0"), "{:?}", homes(&moved));
        for (_, conn) in &mut conns {
            conn.exchange(1_000).expect("what is open stays");
        }
        agent.done(&["backend", "undrain", "one", &targets[0]]);
        agent.done(&["backend", "undrain", "two", &targets[0]]);
        let again = open(of_b0[0]);
        assert_eq!(
            again[0].1.backend,
            moved.iter().find(|(i, _)| *i == of_b0[0]).expect("it moved").1.backend,
            "once moved, it stays"
        );

        drop((conns, moved, again));
        eventually("no client has a connection", LIMIT, || {
            let left: u64 = bound(&agent, "one").iter().chain(&bound(&agent, "two")).sum();
            if left == 0 { Ok(()) } else { Err(format!("{left} clients")) }
        });
        // Remembered, though.
        eventually("clients are counted", LIMIT, || {
            match agent.json(&["status"])["affinity_entries"].as_u64() {
                Some(40) => Ok(()),
                n => Err(format!("{n:?}")),
            }
        });
    }
}

/// By packets a client has its own address; at its socket it has none yet.
#[test]
fn pods_whose_sockets_are_led_are_clients_of_their_own() {
    let cgroup = Cgroup::enter();
    let sockets = format!("[sockets]\nscope = \"all\"\ncgroup = \"{}\"\n", cgroup.path().display());
    for family in [V4, V6] {
        let net = Net::new(4);
        let _servers = servers(&net);
        clients(&net, 8);
        let targets: Vec<String> = (0..4).map(|i| family.backend(i)).collect();
        let affinity = "affinity = { client_ip = true, timeout = \"3h\" }";
        let pods = interfaces_of_pods(&[("c0", "tc"), ("b*", "tc")]);
        let config = pods + &service("app", &family.vip(0), "\"8001-8002/tcp\"", &targets, affinity);
        let agent = Agent::start(&net.node, &(sockets.clone() + &config));
        let vip = |port| at(&family.vip(0), port);
        let conns: Vec<(usize, Conn)> = (0..16)
            .map(|k| (k / 2, connect(&net, address(family, k / 2), vip(PORTS[k % 2])).expect("answered")))
            .collect();
        assert_eq!(homes(&conns).into_values().collect::<Vec<_>>(), [2, 2, 2, 2]);
        // The node is one more, by its sockets.
        let own: Vec<(usize, Conn)> =
            net.node.run(|| (0..3).map(|_| (0, Conn::open(vip(PORTS[0])).expect("answered"))).collect());
        assert_eq!(homes(&own).len(), 1);
        assert_eq!(bound(&agent, "app").iter().sum::<u64>(), 9);
        assert_eq!(agent.json(&["status"])["accounting_drift"], 0);
    }
}

#[test]
fn a_client_is_forgotten_when_its_time_is_up_and_not_before() {
    let net = Net::new(2);
    let _servers = servers(&net);
    clients(&net, 10);
    let agent = start(&net, V4, "timeout = \"4s\"");
    let to = at(&V4.vip(0), 8001);
    let open = |i| connect(&net, address(V4, i), to).expect("answered");
    // Nobody else's connections: without affinity the second would go to the other backend.
    let held = open(0);
    for _ in 0..6 {
        assert_eq!(open(0).backend, held.backend);
    }
    // An open connection is remembered for as long as it is open.
    let began = Instant::now();
    eventually("longer than the timeout", LIMIT, || {
        if began.elapsed() > Duration::from_secs(6) { Ok(()) } else { Err("not yet".into()) }
    });
    assert_eq!(open(0).backend, held.backend);
    drop(held);
    let entries = || agent.json(&["status"])["affinity_entries"].as_u64();
    eventually("forgotten", LIMIT, || {
        if entries() == Some(0) { Ok(()) } else { Err(format!("{:?}", entries())) }
    });
    assert_eq!(bound(&agent, "app"), [0, 0]);
}

#[test]
fn one_address_that_many_hide_behind_does_not_overload_its_backend() {
    let net = Net::new(4);
    let _servers = servers(&net);
    clients(&net, 8);
    let agent = start(&net, V4, "bound = 20");
    let to = at(&V4.vip(0), 8001);
    let crowd: Vec<Conn> = (0..200).map(|_| connect(&net, address(V4, 0), to).expect("answered")).collect();
    let counts = agent.active("app");
    assert_eq!(counts.iter().sum::<u64>(), 200);
    assert!(counts.iter().all(|c| (49..=51).contains(c)), "200 connections of one address: {counts:?}");
    let few: Vec<(usize, Conn)> = (1..8)
        .flat_map(|i| (0..3).map(move |_| i))
        .map(|i| (i, connect(&net, address(V4, i), to).expect("answered")))
        .collect();
    homes(&few);
    drop((crowd, few));
}

#[test]
fn neighbours_of_an_ipv6_prefix_are_one_client_if_so_configured() {
    let net = Net::new(3);
    let _servers = servers(&net);
    clients(&net, 30);
    for (prefix, wanted) in [(64, 1), (128, 3)] {
        let _agent = start(&net, V6, &format!("ipv6_prefix = {prefix}"));
        let conns: Vec<(usize, Conn)> = (0..30)
            .map(|i| (i, connect(&net, address(V6, i), at(&V6.vip(0), 8001)).expect("answered")))
            .collect();
        assert_eq!(homes(&conns).len(), wanted, "/{prefix}");
    }
}

#[test]
fn affinity_outlives_the_agent() {
    let net = Net::new(4);
    let _servers = servers(&net);
    clients(&net, 12);
    let agent_config = interfaces(&[("c0", "tc"), ("b*", "tc")]);
    let mut agent = Agent::start(&net.node, &agent_config);
    let out = agent.cli(&[
        "service",
        "add",
        "app",
        "--vip",
        &V4.vip(0),
        "--port",
        "8001/tcp",
        "--affinity",
        "client-ip",
        "--affinity-timeout",
        "3h",
        "--affinity-bound",
        "0",
    ]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("affinity.bound \"0\""), "{out:?}");
    agent.done(&[
        "service",
        "add",
        "app",
        "--vip",
        &V4.vip(0),
        "--port",
        "8001/tcp",
        "--affinity",
        "client-ip",
        "--affinity-timeout",
        "3h",
    ]);
    for i in 0..4 {
        agent.done(&["backend", "add", "app", &V4.backend(i)]);
    }
    let open = |i: usize| (i, connect(&net, address(V4, i), at(&V4.vip(0), 8001)).expect("answered"));
    let before: Vec<(usize, Conn)> = (0..12).map(open).collect();
    assert_eq!(spread(homes(&before).values()), 0);
    agent.end(nix::sys::signal::Signal::SIGKILL);
    let meanwhile: Vec<(usize, Conn)> = (0..12).map(open).collect();
    agent.up();
    let after: Vec<(usize, Conn)> = (0..12).map(open).collect();
    let all: Vec<(usize, Conn)> = before.into_iter().chain(meanwhile).chain(after).collect();
    assert_eq!(homes(&all).values().sum::<usize>(), 12);
    assert_eq!(bound(&agent, "app"), [3; 4]);
}
