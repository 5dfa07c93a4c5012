//! Promise: without an agent connections that have ended make room for new ones.

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::Family::{self, V4, V6},
};
use nix::sys::signal::Signal;

/// As many flows as there is room for, several times.
const MAX_FLOWS: usize = 4_000;
const CONNECTIONS: usize = 5 * MAX_FLOWS;
const OPEN: usize = 200;

fn ended_connections_make_room(family: Family, attach: &str) {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let config = format!("[conntrack]\nmax_flows = {MAX_FLOWS}\n")
        + &interfaces(&[("c0", attach), ("b*", "tc")])
        + &service("app", &family.vip(0), "\"80/tcp\"", &[family.backend(0), family.backend(1)], "");
    let mut agent = Agent::start(&net.node, &config);
    let open = || Conn::open(at(&family.vip(0), 80));
    let mut conns: Vec<Conn> = net.client.run(|| (0..OPEN).map(|_| open().expect("answered")).collect());
    agent.end(Signal::SIGKILL);
    net.client.run(|| {
        for i in 0..CONNECTIONS {
            let mut conn = open().unwrap_or_else(|e| panic!("connection {i}: {e}"));
            if i % 10 == 0 {
                conn.exchange(64).unwrap_or_else(|e| panic!("connection {i}: {e}"));
                continue;
            }
            // Those that wait would use the client's ports up.
            conn.reset().expect("it is reset");
        }
    });
    for conn in &mut conns {
        conn.exchange(1_000).expect("it is open");
    }
    agent.up();
    agent.sweeps(2);
    assert_eq!(agent.active("app").iter().sum::<u64>(), OPEN as u64);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn ended_connections_make_room_by_tc() {
    ended_connections_make_room(V4, "tc");
}

#[test]
fn ended_connections_make_room_by_xdp_v6() {
    ended_connections_make_room(V6, "xdp");
}
