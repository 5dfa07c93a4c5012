//! Nodes, backends and clients at one switch.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::relay::{self, Delay};
use crate::harness::{
    Agent, Ns,
    agent::{binary, interfaces},
    client::{Conn, at},
    eventually,
    program::{Program, nats_server},
    server::Server,
};

/// Of the service.
pub const VIP: &str = "10.96.0.10";
/// How long something may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 7473;
const RELAY: &str = "10.3.0.250";
const NATS: &str = "10.3.0.251";

/// A node's.
fn address(node: usize) -> String {
    format!("10.3.0.{}", 10 + node)
}

/// Nodes and backends at one switch, each node with a client behind it.
pub struct World {
    _switch: Ns,
    _between: Option<Ns>,
    _nats: Option<Program>,
    /// Where backends are.
    pub backends: Vec<Ns>,
    /// One for each, at port 80.
    pub servers: Vec<Server>,
    /// See [`Node`].
    pub nodes: Vec<Node>,
    /// The nodes' keys.
    pub certificates: TempDir,
}

/// A node, and a client whose packets go by way of it.
pub struct Node {
    /// The client's.
    pub client: Ns,
    /// The node's.
    pub ns: Ns,
    /// On it.
    pub agent: Agent,
}

/// Certificates of an authority of its own in a directory.
///
/// # Panics
/// They can't be made.
pub fn keygen(directory: &Path, nodes: usize) {
    let mut command = Command::new(binary());
    command.args(["cluster", "keygen", directory.to_str().expect("UTF-8"), "--cluster", "test"]);
    let made = command.args((0..nodes).map(|i| format!("node-{i}"))).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// How nodes get at each other.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    /// They don't share counts.
    Nothing,
    /// TCP, one to another.
    Tcp,
    /// The same, by a relay.
    Relay(Delay),
    /// A NATS server.
    Nats,
}

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// How many there are.
    pub nodes: usize,
    /// Of the backends.
    pub weights: &'a [u32],
    /// See [`Via`].
    pub via: Via,
    /// Of the service, as in the file.
    pub ports: &'a str,
    /// More of the service.
    pub service: &'a str,
}

impl<'a> Setting<'a> {
    /// Nodes that share at once. `weights`: of the backends.
    pub const fn new(nodes: usize, weights: &'a [u32]) -> Self {
        Self { nodes, weights, via: Via::Tcp, ports: "\"80/tcp\"", service: "" }
    }

    /// What a node's agent is told.
    pub fn config(&self, certificates: &Path, node: usize) -> String {
        let mut text = self.cluster(certificates, node);
        text += &interfaces(&[("c0", "tc"), ("eth0", "tc")]);
        text += &format!(
            "[[service]]\nname = \"app\"\nvip = \"{VIP}\"\nports = [{}]\nforward = \"snat\"\n",
            self.ports
        );
        text += self.service;
        for (i, weight) in self.weights.iter().enumerate() {
            text += &format!("[[service.backend]]\naddress = \"10.3.0.{}\"\nweight = {weight}\n", 100 + i);
        }
        text
    }

    fn cluster(&self, certificates: &Path, node: usize) -> String {
        let section = format!("[cluster]\nname = \"test\"\nnode = \"node-{node}\"\n");
        let peer = |i: usize| match self.via {
            Via::Relay(_) => format!("\"{RELAY}:{}\"", relay::port(i)),
            _ => format!("\"{}:{PORT}\"", address(i)),
        };
        match self.via {
            Via::Nothing => return String::new(),
            Via::Nats => return format!("{section}transport = \"nats://{NATS}:4222\"\n"),
            Via::Tcp | Via::Relay(_) => {}
        }
        let peers: Vec<_> = (0..self.nodes).map(peer).collect();
        let files = certificates.display();
        format!(
            "{section}listen = \"0.0.0.0:{PORT}\"\npeers = [{}]\nca = \"{files}/ca.pem\"\n\
             certificate = \"{files}/node-{node}.pem\"\nkey = \"{files}/node-{node}.key\"\n",
            peers.join(", ")
        )
    }
}

impl World {
    /// With so many nodes, and a backend for each weight.
    pub fn new(nodes: usize, weights: &[u32]) -> Self {
        Self::of(&Setting::new(nodes, weights))
    }

    /// As it is to be.
    ///
    /// # Panics
    /// It can't be.
    pub fn of(setting: &Setting<'_>) -> Self {
        let Setting { nodes, weights, .. } = *setting;
        let certificates = TempDir::new().expect("a directory");
        keygen(certificates.path(), nodes);
        let switch = Ns::new("s");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let plug = |ns: &Ns, port: &str, address: usize| {
            switch.ip(&format!("link add {port} type veth peer name eth0 netns {}", ns.name));
            switch.ip(&format!("link set {port} master br0 up"));
            ns.ip(&format!("addr add 10.3.0.{address}/24 dev eth0"));
            ns.ip("link set eth0 up");
        };
        let backends: Vec<Ns> = (0..weights.len())
            .map(|i| {
                let ns = Ns::new(&format!("b{i}"));
                plug(&ns, &format!("b{i}"), 100 + i);
                ns
            })
            .collect();
        let servers =
            backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
        let (between, nats) = match setting.via {
            Via::Nothing | Via::Tcp => (None, None),
            Via::Relay(delay) => {
                let ns = Ns::new("relay");
                plug(&ns, "relay", 250);
                let nodes = (0..nodes).map(|i| (relay::port(i), at(&address(i), PORT)));
                relay::start(&ns, nodes, delay);
                (Some(ns), None)
            }
            Via::Nats => {
                let ns = Ns::new("nats");
                plug(&ns, "nats", 251);
                let server = nats_server(&ns);
                (Some(ns), Some(server))
            }
        };
        let start = |i: usize| {
            let (ns, client) = (Ns::new(&format!("n{i}")), Ns::new(&format!("c{i}")));
            plug(&ns, &format!("n{i}"), 10 + i);
            ns.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
            ns.ip(&format!("link add c0 type veth peer name eth0 netns {}", client.name));
            ns.ip(&format!("addr add 10.4.{i}.1/24 dev c0"));
            ns.ip("link set c0 up");
            client.ip(&format!("addr add 10.4.{i}.2/24 dev eth0"));
            client.ip("link set eth0 up");
            client.ip(&format!("route add default via 10.4.{i}.1"));
            let agent = Agent::start(&ns, &setting.config(certificates.path(), i));
            Node { client, ns, agent }
        };
        let nodes = (0..nodes).map(start).collect();
        Self { _switch: switch, _between: between, _nats: nats, backends, servers, nodes, certificates }
    }

    /// Waits until every node is connected to so many, itself included.
    ///
    /// # Panics
    /// They don't find each other.
    pub fn meet(&self, members: usize) {
        for node in &self.nodes {
            eventually("nodes know each other", LIMIT, || {
                let view = node.agent.json(&["cluster"]);
                let found = view["members"]
                    .as_array()
                    .map_or(0, |members| members.iter().filter(|it| it["incoming"] == true).count());
                if found == members { Ok(()) } else { Err(view.to_string()) }
            });
        }
    }

    /// Opens a connection of a node's client.
    ///
    /// # Panics
    /// Nobody answers.
    pub fn open(&self, node: usize) -> Conn {
        self.nodes[node].client.run(|| Conn::open(at(VIP, 80)).expect("somebody answers"))
    }

    /// So many, each as soon as the node where it opens has heard of all before.
    pub fn open_all(&self, count: usize) -> Vec<Conn> {
        let mut conns = Vec::new();
        for i in 0..count {
            let node = i % self.nodes.len();
            if i >= self.nodes.len() {
                self.knows(node, conns.len() as u64);
            }
            conns.push(self.open(node));
        }
        conns
    }

    /// Waits until a node's agent knows of so many connections, over all nodes.
    ///
    /// # Panics
    /// It doesn't.
    pub fn knows(&self, node: usize, count: u64) {
        eventually("the node knows of all connections", LIMIT, || {
            let view = self.nodes[node].agent.json(&["cluster"]);
            if known(&view) == Some(count) { Ok(()) } else { Err(format!("{count}: {view}")) }
        });
    }

    /// Opens connections at these nodes, one after another, within a time.
    pub fn herd(&self, nodes: impl ExactSizeIterator<Item = usize>, within: Duration) -> Vec<Conn> {
        let (start, gap) = (Instant::now(), within / nodes.len().max(1) as u32);
        let open = |(i, node)| {
            wait_until(start + gap * i as u32);
            self.open(node)
        };
        nodes.enumerate().map(open).collect()
    }

    /// Waits until all nodes know that there are no connections.
    pub fn rest(&self) {
        (0..self.nodes.len()).for_each(|node| self.knows(node, 0));
    }

    /// Connections of each backend's server.
    pub fn counts(&self) -> Vec<usize> {
        self.servers.iter().map(Server::open).collect()
    }
}

/// The service's connections over all nodes, as far as a node knows others'.
fn known(view: &Value) -> Option<u64> {
    let backends = view["services"][0]["backends"].as_array()?;
    backends.iter().map(|it| Some(it["own"].as_u64()? + it["others"].as_u64()?)).sum()
}

/// Connections come at moments of their own.
pub fn wait_until(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
