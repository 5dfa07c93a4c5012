//! Promise: nodes that share their counts go by the connections of all of them; whoever can't be heard of counts by itself, and nobody's connections
//! are disturbed.

use std::{path::Path, process::Command, time::Duration};

use flowpin_tests::harness::{
    Agent, Ns,
    agent::{binary, interfaces},
    client::{Conn, at},
    eventually,
    server::Server,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const VIP: &str = "10.96.0.10";
const LIMIT: Duration = Duration::from_secs(60);

/// Nodes and backends at one switch, each node with a client behind it.
struct World {
    _switch: Ns,
    _backends: Vec<Ns>,
    servers: Vec<Server>,
    nodes: Vec<Node>,
    _certificates: TempDir,
}

struct Node {
    client: Ns,
    _ns: Ns,
    agent: Agent,
}

/// Certificates of an authority of its own in a directory.
fn keygen(directory: &Path, nodes: usize) {
    let mut command = Command::new(binary());
    command.args(["cluster", "keygen", directory.to_str().expect("UTF-8"), "--cluster", "test"]);
    let made = command.args((0..nodes).map(|i| format!("node-{i}"))).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// What a node's agent is told. `weights`: of the backends.
fn config(certificates: &Path, node: usize, nodes: usize, weights: &[u32]) -> String {
    let peers: Vec<_> = (0..nodes).map(|i| format!("\"10.3.0.{}:7473\"", 10 + i)).collect();
    let files = certificates.display();
    let mut text = format!(
        "[cluster]\nname = \"test\"\nnode = \"node-{node}\"\nlisten = \"0.0.0.0:7473\"\npeers = [{}]\nca = \"{files}/ca.pem\"\n\
         certificate = \"{files}/node-{node}.pem\"\nkey = \"{files}/node-{node}.key\"\n",
        peers.join(", ")
    );
    text += &interfaces(&[("c0", "tc"), ("eth0", "tc")]);
    text +=
        &format!("[[service]]\nname = \"app\"\nvip = \"{VIP}\"\nports = [\"80/tcp\"]\nforward = \"snat\"\n");
    for (i, weight) in weights.iter().enumerate() {
        text += &format!("[[service.backend]]\naddress = \"10.3.0.{}\"\nweight = {weight}\n", 100 + i);
    }
    text
}

impl World {
    /// With so many nodes, and a backend for each weight.
    fn new(nodes: usize, weights: &[u32]) -> Self {
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
            let agent = Agent::start(&ns, &config(certificates.path(), i, nodes, weights));
            Node { client, _ns: ns, agent }
        };
        let nodes = (0..nodes).map(start).collect();
        Self { _switch: switch, _backends: backends, servers, nodes, _certificates: certificates }
    }

    /// Waits until every node is connected to so many, itself included.
    fn meet(&self, members: usize) {
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

    fn open(&self, node: usize) -> Conn {
        self.nodes[node].client.run(|| Conn::open(at(VIP, 80)).expect("somebody answers"))
    }

    /// So many, each as soon as the node where it opens has heard of all before.
    fn open_all(&self, count: usize) -> Vec<Conn> {
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
    fn knows(&self, node: usize, count: u64) {
        eventually("the node knows of all connections", LIMIT, || {
            let view = self.nodes[node].agent.json(&["cluster"]);
            if known(&view) == Some(count) { Ok(()) } else { Err(format!("{count}: {view}")) }
        });
    }

    fn counts(&self) -> Vec<usize> {
        self.servers.iter().map(Server::open).collect()
    }
}

/// The service's connections over all nodes, as far as a node knows others'.
fn known(view: &Value) -> Option<u64> {
    let backends = view["services"][0]["backends"].as_array()?;
    backends.iter().map(|it| Some(it["own"].as_u64()? + it["others"].as_u64()?)).sum()
}

fn talk(conns: &mut [Conn]) {
    conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it goes on"));
}

/// What is told takes its time, for which a few connections that may be under way are added by chance: one more or less is none of a defect.
fn close_to(counts: &[usize], wanted: &[usize]) {
    let near = counts.iter().zip(wanted).all(|(count, wanted)| count.abs_diff(*wanted) <= 1);
    assert!(
        near && counts.iter().sum::<usize>() == wanted.iter().sum::<usize>(),
        "{counts:?}, not about {wanted:?}"
    );
}

#[test]
fn all_nodes_together_go_by_the_fewest() {
    let world = World::new(5, &[1, 1, 1, 1]);
    world.meet(5);
    let mut conns = world.open_all(40);
    close_to(&world.counts(), &[10; 4]);
    talk(&mut conns);
    // Each agent's own counts are exact whatever is shared.
    let own: u64 = world.nodes.iter().map(|node| node.agent.active("app").iter().sum::<u64>()).sum();
    assert_eq!(own, 40);
}

#[test]
fn what_another_node_has_decides() {
    let world = World::new(2, &[1, 1, 1, 1]);
    world.meet(2);
    let mut conns: Vec<Conn> = (0..20).map(|_| world.open(0)).collect();
    assert_eq!(world.counts(), [5; 4]);
    // With its first the other node begins to listen.
    conns.push(world.open(1));
    conns.retain(|conn| conn.backend != "b0" && conn.backend != "b1");
    for _ in 0..7 {
        world.knows(1, conns.len() as u64);
        conns.push(world.open(1));
    }
    // By itself it would have two with each.
    let counts = world.counts();
    assert!(counts[0] + counts[1] >= 6, "{counts:?}");
}

#[test]
fn weights_hold_over_all_nodes() {
    let world = World::new(3, &[1, 2, 4]);
    world.meet(3);
    let conns = world.open_all(42);
    close_to(&world.counts(), &[6, 12, 24]);
    drop(conns);
}

#[test]
fn agents_are_killed_and_come_back() {
    let mut world = World::new(3, &[1, 1, 1]);
    world.meet(3);
    let mut conns = world.open_all(18);
    close_to(&world.counts(), &[6; 3]);
    let view = world.nodes[0].agent.json(&["cluster"]);
    let owner = view["services"][0]["owner"].as_str().expect("an owner").to_string();
    let owner = (0..3).find(|i| owner == format!("node-{i}")).expect("one of them");
    for dead in [owner, (owner + 1) % 3] {
        world.nodes[dead].agent.end(Signal::SIGKILL);
        // Nothing in the kernel waits for anybody.
        talk(&mut conns);
        conns.push(world.open(dead));
        conns.push(world.open((dead + 1) % 3));
        world.nodes[dead].agent.up();
        for node in 0..3 {
            world.knows(node, conns.len() as u64);
        }
    }
    talk(&mut conns);
    let before = conns.len();
    for i in 0..6 {
        world.knows(i % 3, conns.len() as u64);
        conns.push(world.open(i % 3));
    }
    let counts = world.counts();
    assert_eq!(counts.iter().sum::<usize>(), before + 6);
    assert!(counts.iter().max() <= counts.iter().min().map(|it| it + 2).as_ref(), "{counts:?}");
}

#[test]
fn who_has_another_authority_s_certificate_is_refused() {
    let mut world = World::new(3, &[1, 1]);
    world.meet(3);
    let other = TempDir::new().expect("a directory");
    keygen(other.path(), 3);
    let stranger = &mut world.nodes[2].agent;
    stranger.end(Signal::SIGTERM);
    stranger.write_config(&config(other.path(), 2, 3, &[1, 1]));
    stranger.up();
    eventually("it is refused", LIMIT, || {
        let view = world.nodes[0].agent.json(&["cluster"]);
        let members = view["members"].as_array().map_or(0, Vec::len);
        let refused = view["refused"]["certificate"].as_u64().unwrap_or(0)
            + view["refused"]["handshake"].as_u64().unwrap_or(0);
        if members == 2 && refused > 0 { Ok(()) } else { Err(view.to_string()) }
    });
    // It counts by itself, and nobody counts its connections.
    let mut conns: Vec<Conn> = (0..4).map(|_| world.open(2)).collect();
    assert_eq!(world.counts(), [2, 2]);
    conns.push(world.open(0));
    conns.push(world.open(1));
    for node in [0, 1] {
        world.knows(node, 2);
    }
    let alone = world.nodes[2].agent.json(&["cluster"]);
    assert_eq!(alone["members"].as_array().map(Vec::len), Some(1), "{alone}");
    talk(&mut conns);
}
