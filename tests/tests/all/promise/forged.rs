//! Promise: who sees nothing of a connection can't end it, nor make one that counts, nor make a backend look ill.

use std::{net::IpAddr, time::Duration};

use flowpin_tests::{
    harness::{
        Agent, Net,
        agent::{interfaces, service},
        client::{Conn, at},
        eventually,
        eventually::pass,
        forge::Forger,
        server::Server,
        topology::Family::{self, V4, V6},
    },
    packet::build::{ACK, FIN, Frame, RST, SYN, Sum, eth},
};

const LIMIT: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 40;

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// A segment with numbers by lot.
fn guess(segment: Frame) -> Frame {
    segment.numbers(rand::random(), rand::random())
}

/// A service over two backends.
fn start(family: Family, attach: &str) -> (Net, Vec<Server>, Agent) {
    let net = Net::new(2);
    let servers = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let config = interfaces(&[("c0", attach), ("b*", "tc")])
        + &service("app", &family.vip(0), "\"80/tcp\"", &[family.backend(0), family.backend(1)], "");
    let agent = Agent::start(&net.node, &config);
    (net, servers, agent)
}

/// Whatever there is to be forged about a connection, from its client's side and from its backend's.
fn forge(net: &Net, forgers: &[Forger], family: Family, conn: &Conn) {
    let client = conn.stream.local_addr().expect("an address");
    let vip = ip(&family.vip(0));
    let segment = |flags| guess(eth().ip(client.ip(), vip).tcp(client.port(), 80, flags));
    for flags in [RST, RST | ACK, FIN | ACK, SYN, ACK, RST, SYN] {
        forgers[0].send(&segment(flags), vip);
        forgers[0].send(&segment(flags).fill(10), vip);
    }
    for (i, forger) in forgers[1..=net.backends.len()].iter().enumerate() {
        let backend = ip(&family.backend(i));
        for flags in [RST, RST | ACK, FIN | ACK, SYN | ACK, ACK] {
            let segment = guess(eth().ip(backend, client.ip()).tcp(80, client.port(), flags));
            forger.send(&segment, client.ip());
            forger.send(&segment.fill(10), client.ip());
        }
    }
}

fn open_connections_survive(family: Family, attach: &str) {
    let (net, _servers, agent) = start(family, attach);
    let forgers: Vec<Forger> = [&net.client].into_iter().chain(&net.backends).map(Forger::new).collect();
    let open = || Conn::open(at(&family.vip(0), 80)).expect("answered");
    let mut conns: Vec<Conn> = net.client.run(|| (0..CONNECTIONS).map(|_| open()).collect());
    for conn in &conns {
        forge(&net, &forgers, family, conn);
    }
    // Silence, for longer than what is over is remembered.
    pass(Duration::from_secs(12));
    agent.sweeps(2);
    assert_eq!(agent.active("app").iter().sum::<u64>(), CONNECTIONS as u64);
    for conn in &mut conns {
        conn.exchange(100).expect("it is open");
    }
    let health = agent.json(&["service", "show", "app"]);
    for backend in health["backends"].as_array().expect("a list") {
        assert_eq!(backend["state"], "active", "{health}");
    }
    drop(conns);
    eventually("all have ended", LIMIT, || match agent.active("app").iter().sum::<u64>() {
        0 => Ok(()),
        some => Err(format!("{some} still count")),
    });
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn open_connections_survive_by_tc() {
    open_connections_survive(V4, "tc");
}

#[test]
fn open_connections_survive_by_tc_v6() {
    open_connections_survive(V6, "tc");
}

#[test]
fn open_connections_survive_by_xdp() {
    open_connections_survive(V4, "xdp");
}

#[test]
fn open_connections_survive_by_xdp_v6() {
    open_connections_survive(V6, "xdp");
}

/// 2,000 clients that don't exist say SYN, and then something that would finish the handshake if they had heard its answer.
#[test]
fn half_handshakes_count_for_seconds() {
    let (net, _servers, agent) = start(V4, "tc");
    // Answers to them go to where they come from, and end there.
    net.node.must("ip route add 172.16.0.0/12 via 10.1.0.2");
    let (forger, vip) = (Forger::new(&net.client), ip(&V4.vip(0)));
    let spoofed = |i: u16| IpAddr::from([172, 16, (i >> 8) as u8, i as u8]);
    for i in 0..2_000 {
        let segment = |flags| eth().ip(spoofed(i), vip).tcp(40_000, 80, flags);
        forger.send(&guess(segment(SYN)), vip);
    }
    eventually("the backends have been asked", LIMIT, || match agent.active("app").iter().sum::<u64>() {
        2_000 => Ok(()),
        other => Err(format!("{other} count")),
    });
    for i in 0..2_000 {
        let segment = guess(eth().ip(spoofed(i), vip).tcp(40_000, 80, ACK));
        forger.send(&segment, vip);
        forger.send(&segment.clone().l4_sum(Sum::Is(0x1234)), vip);
        forger.send(&segment.ttl(1), vip);
    }
    eventually("nothing of it counts", LIMIT, || match agent.active("app").iter().sum::<u64>() {
        0 => Ok(()),
        some => Err(format!("{some} count")),
    });
    let honest: Vec<Conn> =
        net.client.run(|| (0..200).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("answered")).collect());
    assert_eq!(agent.active("app"), [100, 100]);
    drop(honest);
}
