//! A client, the node and a backend by devices of any kind: data is carried, or it is said why not.

use std::time::Duration;

use serde_json::Value;

use super::{Kind, Link, connect};
use crate::harness::{
    Agent, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(60);

/// client – node – backend, by links of two kinds.
pub struct World {
    /// Where clients are.
    pub client: Ns,
    /// Where the agent is.
    pub node: Ns,
    _backend: Ns,
    /// The node's to clients, and to the backend.
    pub links: [Link; 2],
    _server: Server,
}

impl World {
    /// With an uplink of one kind, and a backend by another.
    ///
    /// # Errors
    /// The kernel lacks a kind.
    pub fn new(uplink: Kind, backends: Kind) -> Result<Self, String> {
        let (client, node, backend) = (Ns::lenient("c"), Ns::lenient("n"), Ns::lenient("b"));
        node.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let links = [connect(uplink, &node, "up", &client, 1)?, connect(backends, &node, "be", &backend, 2)?];
        udp::echo(&backend, 53);
        let server = Server::start(&backend, "b", [80]);
        Ok(Self { client, node, _backend: backend, links, _server: server })
    }

    /// The same, with another client.
    #[must_use]
    pub fn with_client(self, client: Ns) -> Self {
        Self { client, ..self }
    }

    /// Declares a service of each family.
    pub fn services() -> String {
        [(V4, "10.2.0.2"), (V6, "fd02::2")]
            .map(|(family, target)| {
                let ports = "\"80/tcp\", \"53/udp\"";
                service(&format!("{family:?}"), &family.vip(0), ports, &[target.into()], "")
            })
            .concat()
    }

    /// Data both ways, by TCP and UDP, counted.
    ///
    /// # Panics
    /// It isn't.
    pub fn carries(&self, agent: &Agent, name: &str) {
        for family in [V4, V6] {
            let service = format!("{family:?}");
            self.client.run(|| {
                let one = |i| {
                    Conn::open(at(&family.vip(0), 80))
                        .unwrap_or_else(|e| panic!("{name}, {family:?}, {i}: {e}"))
                };
                let mut conns: Vec<Conn> = (0..10).map(one).collect();
                for conn in &mut conns {
                    conn.exchange(200_000).unwrap_or_else(|e| panic!("{name}, {family:?}: {e}"));
                }
                let socket = udp::connect(at(&family.vip(0), 53));
                for number in 0..20 {
                    udp::exchange(&socket, number, 1_000);
                }
                assert_eq!(agent.active(&service), [11], "{name}, {family:?}");
            });
            agent.done(&["connection", "close", "--service", &service]);
            assert_eq!(agent.active(&service), [0], "{name}, {family:?}");
        }
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0, "{name}");
    }
}

/// Why an interface isn't in use, once the agent has decided about all of them.
fn refusal(agent: &Agent, links: &[Link]) -> Option<String> {
    eventually("every interface is attached or refused", LIMIT, || {
        let status = agent.json(&["status"]);
        let all = status["interfaces"].as_array().cloned().unwrap_or_default();
        let found = |name: &str| all.iter().find(|i| i["name"] == name).cloned();
        let views: Vec<Value> = links.iter().filter_map(|link| found(&link.attach)).collect();
        let undecided = |view: &Value| view["error"].is_null() && view["mode"].is_null();
        if views.len() < links.len() || views.iter().any(undecided) {
            return Err(status.to_string());
        }
        Ok(views.iter().find_map(|view| Some(format!("{}: {}", view["name"], view["error"].as_str()?))))
    })
}

/// What became of a pair of devices.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They carry data.
    Carried,
    /// The agent doesn't use one of them, and says why.
    Refused(String),
    /// The kernel has no such devices.
    Lacking(String),
}

/// Tries devices of one kind to clients and of another to the backend. `attach`: how the former are.
///
/// # Panics
/// Neither is data carried nor is it said why.
pub fn carries_or_says(uplink: Kind, backends: Kind, attach: &str) -> Outcome {
    let name = format!("{uplink:?} by {attach} to clients, {backends:?} to backends");
    let world = match World::new(uplink, backends) {
        Ok(world) => world,
        Err(lacks) => return Outcome::Lacking(format!("{name}: {lacks}")),
    };
    let config = interfaces(&[(&world.links[0].attach, attach), (&world.links[1].attach, "tc")]);
    let mut agent = Agent::prepare(&world.node, &(config + &World::services()));
    agent.spawn(&[]);
    agent.answers();
    if let Some(why) = refusal(&agent, &world.links) {
        assert!(why.split_whitespace().count() > 4, "{name}: no reason: {why}");
        assert_eq!(agent.cli(&["status"]).status.code(), Some(1), "{name}: status has nothing against it");
        return Outcome::Refused(format!("{name}: {why}"));
    }
    world.carries(&agent, &name);
    Outcome::Carried
}
