//! Promise: the node itself is a backend like any other, for clients outside, for pods and for its own processes.
//!
//! ```text
//! client 10.1.0.2 ─ c0 ┐              ┌ b0, b1 ─ backends
//!                      ├── node ──────┤
//! pod    10.2.2.2 ─ b2 ┘  10.1.0.1 (a backend as well)
//! ```

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read},
    net::UdpSocket,
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    netfilter::load,
    rulesets::{self, Names},
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Connections of a client at a time.
const MANY: usize = 90;

/// The node's address towards the client.
fn own(family: Family) -> &'static str {
    if family == V4 { "10.1.0.1" } else { "fd01::1" }
}

fn targets(family: Family) -> Vec<String> {
    vec![family.backend(0), family.backend(1), own(family).into()]
}

struct World {
    net: Net,
    servers: Vec<Server>,
    agent: Agent,
}

impl World {
    fn new(uplink: &str, pod: &str, more: &str) -> Self {
        let net = Net::new(3);
        net.backends[2].must("ethtool -K eth0 gro on");
        let servers = vec![
            Server::start(&net.backends[0], "b0", [80]),
            Server::start(&net.backends[1], "b1", [80]),
            Server::start(&net.node, "node", [80]),
        ];
        net.backends[..2].iter().for_each(|ns| udp::echo(ns, 53));
        for family in [V4, V6] {
            // A server at all addresses would answer a pod from the one towards the pod, with a balancer and without.
            udp::echo_at(&net.node, at(own(family), 53));
        }
        let services = [V4, V6].map(|family| {
            let ports = "\"80/tcp\", \"53/udp\"";
            service(&format!("{family:?}"), &family.vip(0), ports, &targets(family), more)
        });
        let rules = [("c0", uplink), ("b2", pod), ("b0", "tc"), ("b1", "tc")];
        let config = "[sockets]\nscope = \"host\"\n".to_string() + &interfaces(&rules) + &services.concat();
        let agent = Agent::start(&net.node, &config);
        Self { net, servers, agent }
    }

    fn clients(&self) -> [(&'static str, &Ns); 3] {
        [("outside", &self.net.client), ("pod", &self.net.backends[2]), ("process", &self.net.node)]
    }

    fn left(&self, service: &str, wanted: u64) {
        eventually("what is open counts", LIMIT, || match self.agent.active(service) {
            counts if counts.iter().sum::<u64>() == wanted => Ok(()),
            counts => Err(format!("{counts:?}, not {wanted}")),
        });
    }

    fn open(&self, who: &str, ns: &Ns, family: Family) -> Vec<Conn> {
        let one = |i| {
            Conn::open(at(&family.vip(0), 80))
                .unwrap_or_else(|e| panic!("{who}, {family:?}, connection {i}: {e}"))
        };
        ns.run(|| (0..MANY).map(one).collect())
    }

    /// Thirty connections each by TCP, then thirty each by UDP, with data.
    fn even(&self, who: &str, ns: &Ns, family: Family) {
        let service = format!("{family:?}");
        let mut conns = self.open(who, ns, family);
        let mut at_each = BTreeMap::<&str, usize>::new();
        for conn in &conns {
            *at_each.entry(&conn.backend).or_default() += 1;
        }
        assert_eq!(at_each, BTreeMap::from([("b0", 30), ("b1", 30), ("node", 30)]), "{who}, {family:?}");
        assert_eq!(self.agent.active(&service), [30; 3], "{who}, {family:?}");
        for (i, conn) in conns.iter_mut().enumerate() {
            conn.exchange(50_000).unwrap_or_else(|e| panic!("{who}, {family:?}, {i}: {e}"));
        }
        let vip = at(&family.vip(0), 53);
        let sockets: Vec<UdpSocket> = ns.run(|| (0..MANY).map(|_| udp::connect(vip)).collect());
        for (number, socket) in (0..).zip(&sockets) {
            udp::exchange(socket, number, 1_000);
        }
        assert_eq!(self.agent.active(&service), [60; 3], "{who}, {family:?}, UDP as well");
        drop(conns);
        if who == "process" {
            // Counted as long as the socket is open.
            drop(sockets);
        } else {
            self.left(&service, MANY as u64);
            self.agent.done(&["connection", "close", "--service", &service]);
        }
        self.left(&service, 0);
    }

    fn everybody(&self) {
        for (who, ns) in self.clients() {
            for family in [V4, V6] {
                self.even(who, ns, family);
            }
        }
        eventually("the servers see them go", LIMIT, || {
            match self.servers.iter().map(Server::open).sum::<usize>() {
                0 => Ok(()),
                n => Err(format!("{n} are open")),
            }
        });
        assert_eq!(self.agent.sweeps(2)["accounting_drift"], 0);
    }
}

#[test]
fn one_of_three_by_tc() {
    World::new("tc", "tc", "").everybody();
}

#[test]
fn one_of_three_by_xdp() {
    World::new("xdp", "xdp", "").everybody();
}

#[test]
fn source_nat_is_for_the_others_only() {
    for hook in ["tc", "xdp"] {
        World::new(hook, hook, "forward = \"snat\"").everybody();
    }
}

#[test]
fn one_of_three_behind_a_firewall() {
    let world = World::new("tc", "xdp", "");
    for family in [V4, V6] {
        let clients =
            vec![if family == V4 { "10.1.0.2".into() } else { "fd01::2".into() }, family.backend(2)];
        let backends = (0..2).map(|i| family.backend(i)).collect();
        let (uplinks, pods) = (vec!["c0".into(), "b2".into()], vec!["b0".into(), "b1".into()]);
        let names = Names { clients, backends, uplinks, pods };
        load(&world.net.node, family, &rulesets::UFW.rules(family, &names));
        let open = "*filter\n-A ufw-before-input -p tcp -m tcp --dport 80 -j ACCEPT\n\
            -A ufw-before-input -p udp -m udp --dport 53 -j ACCEPT\nCOMMIT\n";
        load(&world.net.node, family, open);
    }
    world.everybody();
}

#[test]
fn hashed_clients_reach_the_node_too() {
    let world = World::new("tc", "xdp", "algorithm = \"consistent-hash\"");
    for (who, ns) in world.clients() {
        for family in [V4, V6] {
            let mut conns = world.open(who, ns, family);
            assert!(conns.iter().any(|c| c.backend == "node"), "{who}, {family:?}");
            conns.iter_mut().for_each(|c| c.exchange(1_000).expect("its own bytes"));
            drop(conns);
            world.left(&format!("{family:?}"), 0);
        }
    }
    assert_eq!(world.agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn connections_with_the_node_are_closed_for_both_ends() {
    for uplink in ["tc", "xdp"] {
        let world = World::new(uplink, "tc", "");
        for (who, ns) in &world.clients()[..2] {
            for family in [V4, V6] {
                let mut conns = world.open(who, ns, family);
                world.agent.done(&["connection", "close", "--service", &format!("{family:?}")]);
                for conn in &mut conns {
                    let end = conn.stream.read(&mut [0]).expect_err("it is reset");
                    assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{who}, {family:?}, {uplink}");
                }
                eventually("the node's ends", LIMIT, || match world.servers[2].open() {
                    0 => Ok(()),
                    n => Err(format!("{n} are open")),
                });
            }
        }
    }
}

#[test]
fn loopback_is_no_backend() {
    let world = World::new("tc", "tc", "");
    for (service, address) in [("V4", "127.0.0.1"), ("V4", "127.8.8.8"), ("V6", "::1")] {
        let refused = world.agent.cli(&["backend", "add", service, address]);
        assert_eq!(refused.status.code(), Some(1), "{address}");
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains("loopback") && why.contains(address), "{address}: {why}");
    }
}
