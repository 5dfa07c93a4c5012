//! Promise: frames for other machines, or for all, open nothing and are answered by nobody, wherever a program is; and whose MAC address is
//! another interface's of the node is the node's.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
};

const LIMIT: Duration = Duration::from_secs(30);
/// An answer would come at once.
const SILENCE: Duration = Duration::from_millis(700);

fn gateway(family: Family) -> &'static str {
    match family {
        V4 => "10.1.0.1",
        V6 => "fd01::1",
    }
}

fn start(net: &Net, family: Family, attach: &str) -> (Vec<Server>, Agent) {
    let servers = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let config = interfaces(&[("c0", attach), ("b*", "tc")])
        + &service("app", &family.vip(0), "\"80/tcp\"", &[family.backend(0), family.backend(1)], "");
    (servers, Agent::start(&net.node, &config))
}

fn nothing_comes_of_it(family: Family, attach: &str) {
    let net = Net::new(2);
    let (_servers, agent) = start(&net, family, attach);
    let to = at(&family.vip(0), 80);
    let mut conn = net.client.run(|| Conn::open(to).expect("answered"));
    for mac in ["02:00:00:00:00:99", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"] {
        net.client.ip(&format!("neigh replace {} lladdr {mac} dev eth0 nud permanent", gateway(family)));
        net.client.run(|| {
            for port in [80, 81] {
                let error =
                    TcpStream::connect_timeout(&at(&family.vip(0), port), SILENCE).expect_err("silence");
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{mac}, port {port}: {error}");
            }
        });
        let mut ping = net.client.command("ping");
        let ping = ping.args(["-c", "1", "-W", "1", &family.vip(0)]).output().expect("ping");
        assert!(!ping.status.success(), "{mac}: {}", String::from_utf8_lossy(&ping.stdout));
        assert_eq!(agent.active("app").iter().sum::<u64>(), 1, "{mac}: a flow");
    }
    net.client.ip(&format!("neigh del {} dev eth0", gateway(family)));
    conn.exchange(1_000).expect("it is open");
    net.client.run(|| Conn::open(to).expect("answered"));
    eventually("nothing is left", LIMIT, || match agent.active("app").iter().sum::<u64>() {
        1 => Ok(()),
        other => Err(format!("{other} count")),
    });
}

#[test]
fn nothing_comes_of_it_by_tc() {
    nothing_comes_of_it(V4, "tc");
}

#[test]
fn nothing_comes_of_it_by_tc_v6() {
    nothing_comes_of_it(V6, "tc");
}

#[test]
fn nothing_comes_of_it_by_xdp() {
    nothing_comes_of_it(V4, "xdp");
}

#[test]
fn nothing_comes_of_it_by_xdp_v6() {
    nothing_comes_of_it(V6, "xdp");
}

/// A port of a bridge is shown what is for the bridge, whose address may change while the agent runs.
fn the_bridge_above_is_the_node(attach: &str) {
    let net = Net::new(2);
    net.node.ip("link add br0 address 02:00:00:00:00:77 type bridge");
    net.node.ip("address flush dev c0");
    net.node.ip("link set c0 master br0");
    net.node.ip("address add 10.1.0.1/24 dev br0");
    net.node.ip("link set br0 up");
    let (_servers, agent) = start(&net, V4, attach);
    let open = || net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("answered"));
    let mut conns = vec![open()];
    net.node.ip("link set br0 address 02:00:00:00:00:78");
    net.client.ip("neigh flush dev eth0");
    conns.push(open());
    assert_eq!(agent.active("app").iter().sum::<u64>(), 2);
    for conn in &mut conns {
        conn.exchange(1_000).expect("it is open");
    }
}

#[test]
fn the_bridge_above_is_the_node_by_tc() {
    the_bridge_above_is_the_node("tc");
}

#[test]
fn the_bridge_above_is_the_node_by_xdp() {
    the_bridge_above_is_the_node("xdp");
}
