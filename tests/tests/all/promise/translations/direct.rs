//! keepalived before two servers that answer clients directly, and one that says sorry.
//!
//! ```text
//! clients 10.6.0.100 ... ─┐          ┌─ 10.6.0.11, 10.6.0.12 the servers
//!      the node 10.6.0.1 ─┴─ switch ─┴─ 10.6.0.13 the sorry server
//! ```

use std::net::SocketAddr;

use flowpin_tests::harness::{
    Agent, Ns,
    agent::interfaces,
    client::{Conn, at},
    program,
    server::Server,
    topology::Family::V4,
};
use serde_json::Value;

use super::{await_healthy, go_on, on, text, vip};

const PORT: u16 = 3306;
const NAMES: [&str; 3] = ["first", "second", "sorry"];
/// Clients, each of an address of its own.
const CLIENTS: usize = 12;
/// Bytes that a client sends, and is sent.
const DATA: usize = 1_000_000;

/// One segment, on which the node has one interface.
struct Segment {
    client: Ns,
    node: Ns,
    servers: Vec<Ns>,
    _switch: Ns,
    _listeners: Vec<Server>,
}

/// An interface on the segment, with an address.
fn plug(switch: &Ns, ns: &Ns, name: &str, host: u8) {
    let port = format!("p{host}");
    switch.ip(&format!("link add {port} type veth peer name {name} netns {}", ns.name));
    switch.ip(&format!("link set {port} master br0 up"));
    ns.ip(&format!("addr add 10.6.0.{host}/24 dev {name}"));
    ns.ip(&format!("link set {name} up"));
}

impl Segment {
    fn new() -> Self {
        let [switch, node, client] = ["s", "n", "c"].map(Ns::lenient);
        let servers: Vec<Ns> = NAMES.iter().map(|name| Ns::lenient(&name[..1])).collect();
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        node.must("sysctl -qw net.ipv4.ip_forward=1");
        plug(&switch, &node, "s0", 1);
        plug(&switch, &client, "eth0", 100);
        for more in 1..CLIENTS {
            client.ip(&format!("addr add 10.6.0.{}/24 dev eth0", 100 + more));
        }
        client.ip(&format!("route add {}/32 via 10.6.0.1", V4.vip(0)));
        for (host, ns) in (11..).zip(&servers) {
            plug(&switch, ns, "eth0", host);
            ns.must("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
            ns.ip(&format!("addr add {}/32 dev lo", V4.vip(0)));
        }
        let listeners =
            NAMES.iter().zip(&servers).map(|(name, ns)| Server::start(ns, name, [PORT])).collect();
        Self { client, node, servers, _switch: switch, _listeners: listeners }
    }

    /// A connection of each client.
    fn open(&self) -> Vec<Conn> {
        let from = |client: usize| -> SocketAddr { at(&format!("10.6.0.{}", 100 + client), 0) };
        let open = |client| Conn::open_from(from(client), vip(PORT)).expect("somebody answers");
        self.client.run(|| (0..CLIENTS).map(open).collect())
    }

    /// Takes in new connections, or refuses them; those that are open go on.
    fn takes_new(&self, server: usize, yes: bool) {
        let rule = format!("INPUT -p tcp --syn --dport {PORT} -j REJECT --reject-with tcp-reset");
        let how = if yes { "-D" } else { "-A" };
        let args: Vec<&str> = [how].into_iter().chain(rule.split(' ')).collect();
        program::run(&self.servers[server], "iptables", &args);
    }

    /// Bytes that have come in to the node.
    fn received(&self) -> u64 {
        let shown: Value = serde_json::from_str(&self.node.ip("-s -j link show s0")).expect("JSON");
        shown[0]["stats64"]["rx"]["bytes"].as_u64().expect("a number")
    }
}

#[test]
fn servers_answer_past_the_node_by_weight_and_sorry_when_none_is_left() {
    let segment = Segment::new();
    let sooner = [("interval = \"6s\"", "interval = \"300ms\""), ("fall = 4", "fall = 2")];
    let agent = Agent::start(&segment.node, &(interfaces(&[("s0", "tc")]) + &text("keepalived", &sooner)));
    let mut conns = segment.open();
    let shares = NAMES.map(|name| on(&conns, name));
    // Where somebody has a server already, a turn may go to the next.
    assert!(shares[0].abs_diff(4) <= 1 && shares[0] + shares[1] == CLIENTS, "one to two: {shares:?}");
    let again = segment.open();
    for (first, second) in conns.iter().zip(&again) {
        assert_eq!(first.backend, second.backend, "a client stays with its server");
    }

    // What clients send comes by the node, what they are sent doesn't.
    let before = segment.received();
    conns[0].exchange(DATA).expect("its own bytes");
    let came = segment.received() - before;
    assert!((DATA as u64..DATA as u64 * 3 / 2).contains(&came), "{came} bytes came in");
    let list = agent.json(&["backend", "list", "mysql"]);
    assert!(list.as_array().expect("a list").iter().all(|b| b["packets_out"] == 0), "{list}");

    let (first, sorry) = ("10.6.0.11", "10.6.0.13");
    segment.takes_new(1, false);
    await_healthy(&agent, "mysql", &[first, sorry]);
    assert_eq!(on(&segment.open(), "first"), CLIENTS, "all clients of the other have moved");
    go_on(&mut conns);

    segment.takes_new(0, false);
    await_healthy(&agent, "mysql", &[sorry]);
    assert_eq!(on(&segment.open(), "sorry"), CLIENTS);
    go_on(&mut conns);

    segment.takes_new(0, true);
    await_healthy(&agent, "mysql", &[first, sorry]);
    assert_eq!(on(&segment.open(), "first"), CLIENTS, "nobody stays with who is sorry");
    go_on(&mut conns);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
