//! Promise: a backend that can't take a flow is passed over, or takes it under an address of the node's; nobody
//! is refused while another could serve.

use std::{net::UdpSocket, time::Duration};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(60);
const MANY: usize = 20;

/// A backend asks its own service, without `[snat]`, of which there are so many backends besides.
fn itself(others: usize, hook: &str, algorithm: &str) {
    let net = Net::new(1 + others);
    for ns in &net.backends {
        ns.must("ethtool -K eth0 gro on");
    }
    let servers = net.backends.iter().enumerate().map(|(i, ns)| {
        udp::echo(ns, 53);
        Server::start(ns, &format!("b{i}"), [80])
    });
    let _servers: Vec<Server> = servers.collect();
    let services = [V4, V6].map(|family| {
        let targets: Vec<String> = (0..=others).map(|i| family.backend(i)).collect();
        let more = format!("algorithm = \"{algorithm}\"");
        service(&format!("{family:?}"), &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets, &more)
    });
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "tc"), ("b*", hook)]) + &services.concat()));
    for family in [V4, V6] {
        let name = format!("{family:?} by {hook}, {algorithm}, {others} others");
        let vip = |port| at(&family.vip(0), port);
        let open = |i| Conn::open(vip(80)).unwrap_or_else(|e| panic!("{name}, connection {i}: {e}"));
        let (mut conns, sockets): (Vec<Conn>, Vec<UdpSocket>) = net.backends[0]
            .run(|| ((0..MANY).map(open).collect(), (0..MANY).map(|_| udp::connect(vip(53))).collect()));
        conns.iter_mut().for_each(|c| c.exchange(50_000).unwrap_or_else(|e| panic!("{name}: {e}")));
        (0..).zip(&sockets).for_each(|(number, socket)| {
            udp::exchange(socket, number, 1_000);
        });
        let count = |agent: &Agent| agent.active(&format!("{family:?}")).iter().sum::<u64>();
        assert_eq!(count(&agent), 2 * MANY as u64, "{name}");
        drop(conns);
        eventually("TCP counts no more", LIMIT, || match count(&agent) {
            n if n == MANY as u64 => Ok(()),
            n => Err(n.to_string()),
        });
        agent.done(&["connection", "close", "--service", &format!("{family:?}")]);
        assert_eq!(count(&agent), 0);
    }
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn a_backend_asks_its_own_service_by_tc() {
    itself(1, "tc", "least-connections");
}

#[test]
fn a_backend_asks_its_own_service_by_xdp() {
    itself(1, "xdp", "least-connections");
}

#[test]
fn a_backend_asks_its_own_hashed_service() {
    itself(2, "tc", "consistent-hash");
}

#[test]
fn the_only_backend_asks_its_own_service() {
    itself(0, "tc", "least-connections");
    itself(0, "xdp", "consistent-hash");
}

/// A client is bound to one backend, which may be itself.
#[test]
fn a_backend_with_affinity_asks_its_own_service() {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let services = [V4, V6].map(|family| {
        let targets: Vec<String> = (0..2).map(|i| family.backend(i)).collect();
        let more = "affinity = { client_ip = true, timeout = \"1h\" }";
        service(&format!("{family:?}"), &family.vip(0), "\"80/tcp\"", &targets, more)
    });
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &services.concat()));
    for family in [V4, V6] {
        for ns in &net.backends {
            let open = |i| {
                Conn::open(at(&family.vip(0), 80))
                    .unwrap_or_else(|e| panic!("{family:?}, {}, {i}: {e}", ns.name))
            };
            let mut conns: Vec<Conn> = ns.run(|| (0..MANY).map(open).collect());
            conns.iter_mut().for_each(|c| c.exchange(1_000).expect("its own bytes"));
            let home = &conns[0].backend;
            assert!(conns.iter().all(|c| c.backend == *home), "{family:?}, {}: not at one backend", ns.name);
        }
    }
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

/// There are eight source ports towards each backend, and one of them is to have three times as much as the other.
#[test]
fn a_backend_to_which_no_source_port_is_left() {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let services = [V4, V6].map(|family| {
        let backends = (0..2).map(|i| (family.backend(i), 3 - 2 * i));
        let backends: String = backends
            .map(|(address, weight)| {
                format!("[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\n")
            })
            .collect();
        service(&format!("{family:?}"), &family.vip(0), "\"80/tcp\"", &[], "forward = \"snat\"") + &backends
    });
    let snat = "[snat]\naddresses = [\"10.2.0.1\", \"fd02:0::1\"]\nports = \"2000-2007\"\n";
    let config = interfaces(&[("c0", "xdp"), ("b*", "tc")]) + snat + &services.concat();
    let agent = Agent::start(&net.node, &config);
    for family in [V4, V6] {
        let to = at(&family.vip(0), 80);
        let open = |i| Conn::open(to).unwrap_or_else(|e| panic!("{family:?}, connection {i}: {e}"));
        let mut conns: Vec<Conn> = net.client.run(|| (0..16).map(open).collect());
        assert_eq!(agent.active(&format!("{family:?}")), [8, 8]);
        conns.iter_mut().for_each(|c| c.exchange(1_000).expect("its own bytes"));
        let none = net.client.run(|| Conn::open(to)).expect_err("no port is left at all");
        assert_eq!(none.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
