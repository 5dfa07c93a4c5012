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

/// An address from its text.
pub fn ip(address: &str) -> IpAddr {
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

/// Clients that don't exist provoke refusals, or say themselves what a backend would say if it refused them.
#[test]
fn no_backend_is_taken_out_by_what_others_say() {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let more = "on_unhealthy = \"reset\"\nhealth = { type = \"tcp\", interval = \"1s\", fall = 3 }";
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0), V4.backend(1)], more);
    let agent = Agent::start(&net.node, &config);
    net.node.must("ip route add 172.16.0.0/12 via 10.1.0.2");
    let (forger, vip) = (Forger::new(&net.client), ip(&V4.vip(0)));
    let open = || Conn::open(at(&V4.vip(0), 80)).expect("answered");
    let mut conns: Vec<Conn> = net.client.run(|| (0..CONNECTIONS).map(|_| open()).collect());
    let spoofed = |i: u32| IpAddr::from((0xac10_0000 + i).to_be_bytes());
    let syn = |i: u32| eth().ip(spoofed(i), vip).tcp(40_000, 80, SYN).numbers(i, 0);
    let mut next = 0;
    for second in 0..10 {
        for _ in 0..100 {
            // It answers an acknowledgement of what it never said with a RST.
            forger.send(&syn(next), vip);
            forger.send(&eth().ip(spoofed(next), vip).tcp(40_000, 80, ACK).numbers(next + 1, 7), vip);
            // What it would say if it refused: by the client's side, in the name of each.
            forger.send(&syn(next + 1), vip);
            for backend in (0..2).map(|b| ip(&V4.backend(b))) {
                let refusal = eth().ip(backend, spoofed(next + 1)).tcp(80, 40_000, RST | ACK);
                forger.send(&refusal.numbers(0, next + 2), spoofed(next + 1));
            }
            next += 2;
            if second % 2 == 0 {
                // In the other seconds all at once.
                pass(Duration::from_millis(10));
            }
        }
        // Those who asked a second ago ask again, as if nobody had answered.
        (next - 200..next).step_by(2).for_each(|i| forger.send(&syn(i), vip));
        pass(Duration::from_millis(if second % 2 == 0 { 100 } else { 1_100 }));
    }
    for conn in &mut conns {
        conn.exchange(100).expect("it is open");
    }
    let list = agent.json(&["backend", "list", "app"]);
    for backend in list.as_array().expect("a list") {
        assert_eq!(backend["healthy"], true, "{list}");
    }
    let told = agent.log();
    assert!(!told.contains("unhealthy"), "{told}");
}
