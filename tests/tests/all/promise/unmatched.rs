//! Promise: a backend by an interface that no `[[interface]]` matches is served, or `status` says by which it is
//! reached and what would help.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(20);

struct World {
    net: Net,
    _server: Server,
    agent: Agent,
}

fn name(family: Family) -> String {
    format!("{family:?}")
}

impl World {
    /// The backends of both services are behind b1; c0 is attached as `uplink` says, and `more` besides.
    fn new(uplink: &str, more: &[(&str, &str)], forward: &str) -> Self {
        let net = Net::new(2);
        let server = Server::start(&net.backends[1], "b1", [80]);
        udp::echo(&net.backends[1], 53);
        let services = [V4, V6].map(|family| {
            let ports = "\"80/tcp\", \"53/udp\"";
            let forward = format!("forward = \"{forward}\"");
            service(&name(family), &family.vip(0), ports, &[family.backend(1)], &forward)
        });
        let rules = [&[("c0", uplink)], more].concat();
        let agent = Agent::start(&net.node, &(interfaces(&rules) + &services.concat()));
        Self { net, _server: server, agent }
    }

    /// What is said of b1.
    fn said(&self) -> Option<String> {
        let status = self.agent.json(&["status"]);
        let all = status["warnings"].as_array().expect("a list");
        all.iter().map(ToString::to_string).find(|warning| warning.contains("b1"))
    }

    fn serves(&self) {
        for family in [V4, V6] {
            self.net.client.run(|| {
                let open = |i| {
                    Conn::open(at(&family.vip(0), 80))
                        .unwrap_or_else(|e| panic!("{family:?}, connection {i}: {e}"))
                };
                let mut conns: Vec<Conn> = (0..10).map(open).collect();
                conns.iter_mut().for_each(|conn| conn.exchange(50_000).expect("its own bytes"));
                let socket = udp::connect(at(&family.vip(0), 53));
                for number in 0..5 {
                    udp::exchange(&socket, number, 1_000);
                }
                assert_eq!(self.agent.active(&name(family)), [11]);
            });
        }
        assert_eq!(self.said(), None, "it works");
    }

    /// It can't work, and that is said, with the remedy; done, it works.
    fn told(self, wanted: &[(&str, &str)], forward: &str) {
        eventually("it is said", LIMIT, || match self.said() {
            Some(text) if text.contains("match = \\\"b1\\\"") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let config = self.agent.config();
        let checked = ["check", "--config", config.to_str().expect("text")];
        let checked = self.net.node.run(|| self.agent.done(&checked));
        assert!(checked.contains("warning: route: ") && checked.contains("match = \"b1\""), "{checked}");
        let vip: SocketAddr = at(&V4.vip(0), 80);
        let lost = self.net.client.run(|| TcpStream::connect_timeout(&vip, Duration::from_millis(300)));
        assert!(lost.is_err(), "it works, and status says that it doesn't");
        drop(self);
        World::new(wanted[0].1, &wanted[1..], forward).serves();
    }
}

#[test]
fn behind_an_uplink_by_tc() {
    World::new("tc", &[("b0", "tc")], "nat").serves();
}

#[test]
fn behind_an_uplink_by_xdp() {
    World::new("xdp", &[("b0", "tc")], "nat").serves();
}

/// Where others' answers are translated as they come in.
#[test]
fn beside_an_interface_that_is_past_the_stack() {
    World::new("tc", &[("b0", "fast")], "nat").serves();
    World::new("fast", &[("b0", "tc")], "nat").serves();
}

#[test]
fn where_all_answers_are_translated_as_they_come_in() {
    World::new("tc-ingress", &[("b0", "tc-ingress")], "nat").serves();
    World::new("fast", &[("b0", "fast")], "nat").serves();
}

/// Answers go to the node itself.
#[test]
fn by_source_nat() {
    World::new("tc", &[("b0", "tc")], "snat").told(&[("c0", "tc"), ("b*", "tc")], "snat");
}
