//! Promise: a node that is strict about the ways by which packets come (`rp_filter = 1`) carries whatever it carries
//! otherwise: source NAT, itself as a backend, its own processes, pods; or says what it can't.

use std::time::Duration;

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
    udp,
};

/// Connections of a client at a time.
const MANY: usize = 20;

/// Strict on every interface, with a default route as nodes have it.
fn strict(node: &Ns) {
    node.ip("route add default via 10.1.0.2");
    for link in ["all", "default", "c0", "b0", "b1"] {
        node.must(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter=1"));
    }
}

/// `count`: so many of the services.
fn carried(hook: &str, count: usize) {
    let net = Net::new(2);
    net.backends.iter().for_each(|ns| drop(ns.must("ethtool -K eth0 gro on")));
    strict(&net.node);
    let _servers = [Server::start(&net.backends[0], "b0", [80]), Server::start(&net.node, "node", [80])];
    udp::echo(&net.backends[0], 53);
    let own = "10.1.0.1".to_string();
    udp::echo_at(&net.node, at(&own, 53));
    let ports = "\"80/tcp\", \"53/udp\"";
    let services =
        [("nat", V4.backend(0), ""), ("itself", own, ""), ("snat", V4.backend(0), "forward = \"snat\"")];
    let text: String = (services.iter().take(count).enumerate())
        .map(|(i, (name, target, more))| service(name, &V4.vip(i), ports, std::slice::from_ref(target), more))
        .collect();
    let config =
        "[sockets]\nscope = \"host\"\n".to_string() + &interfaces(&[("c0", hook), ("b*", "tc")]) + &text;
    let agent = Agent::start(&net.node, &config);
    for (i, (name, ..)) in services.iter().take(count).enumerate() {
        for (who, ns) in [("client", &net.client), ("pod", &net.backends[1]), ("process", &net.node)] {
            let name = format!("{name}, {who}, {hook}");
            let open = |n| Conn::open(at(&V4.vip(i), 80)).unwrap_or_else(|e| panic!("{name}, {n}: {e}"));
            let mut conns: Vec<Conn> = ns.run(|| (0..MANY).map(open).collect());
            conns.iter_mut().for_each(|c| c.exchange(50_000).unwrap_or_else(|e| panic!("{name}: {e}")));
            let socket = ns.run(|| udp::connect(at(&V4.vip(i), 53)));
            for number in 0..5 {
                udp::exchange(&socket, number, 1_000);
            }
        }
    }
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn source_nat_itself_processes_and_pods_by_tc() {
    carried("tc", 3);
}

#[test]
fn itself_processes_and_pods_by_xdp() {
    carried("xdp", 2);
}

/// What XDP has translated is the stack's to carry on, and its source is the node itself by then, or the VIP.
#[test]
fn source_nat_by_xdp_is_said_to_be_dropped() {
    let net = Net::new(2);
    strict(&net.node);
    net.node.must("iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP");
    let snat = service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "forward = \"snat\"");
    let warnings = |agent: &Agent| agent.json(&["status"])["warnings"].clone();
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "xdp"), ("b*", "xdp")]) + &snat));
    for (about, part) in [("rp_filter", "on b0, b1, c0: "), ("netfilter", "(by b0)")] {
        eventually("it is said", Duration::from_secs(20), || {
            let said = warnings(&agent);
            let all = said.as_array().expect("a list");
            let fits = |w: &&serde_json::Value| w["text"].as_str().is_some_and(|text| text.contains(part));
            match all.iter().filter(|w| w["about"] == about).find(fits) {
                Some(_) => Ok(()),
                None => Err(said.to_string()),
            }
        });
    }
    assert!(agent.cli(&["status"]).status.success(), "a warning is no problem");
    drop(agent);
    // As the remedy says.
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &snat));
    net.client
        .run(|| Conn::open(at(&V4.vip(0), 80)).expect("answered").exchange(50_000).expect("its own bytes"));
    assert_eq!(warnings(&agent), serde_json::json!([]));
}
