//! Promise: where backends answer past the node, checks see what clients see. Who has no VIP, or doesn't answer there, is out and stays out, however
//! well its own address answers; who has it is in. That costs nobody else anything, and counts nowhere.

use std::{net::TcpListener, time::Duration};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    decap, eventually, program,
    server::Server,
    topology::Family::{self, V4, V6},
};
use serde_json::Value;

/// More than any check needs to come to its conclusion on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);
const CHECKS: &str =
    "health = { type = \"tcp\", interval = \"500ms\", timeout = \"1s\", rise = 1, fall = 2 }";

/// A service whose backends answer past the node, and another one of the same backends whose answers come back through it.
fn config(net: &Net, forward: &str, family: Family, attach: &str) -> String {
    let targets: Vec<String> = (0..net.backends.len()).map(|i| family.backend(i)).collect();
    let direct = format!("forward = \"{forward}\"\n{CHECKS}");
    interfaces(&[("c0", attach), ("b*", attach)])
        + &service("app", &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets, &direct)
        + &service("plain", &family.vip(1), "\"80/tcp\"", &targets, CHECKS)
}

fn backend(agent: &Agent, service: &str, address: &str) -> Value {
    let list = agent.json(&["backend", "list", service]);
    let all = list.as_array().expect("a list");
    all.iter().find(|b| b["address"] == address).expect("the backend").clone()
}

fn await_health(agent: &Agent, address: &str, healthy: bool) {
    eventually("the checks' conclusion", LIMIT, || {
        let now = backend(agent, "app", address);
        if now["healthy"] == healthy { Ok(()) } else { Err(now.to_string()) }
    });
}

/// Waits until so many more of its checks have failed.
fn await_failures(agent: &Agent, address: &str, more: u64) {
    let count = || backend(agent, "app", address)["health_check_failures"].as_u64().expect("a number");
    let wanted = count() + more;
    eventually("failing checks", LIMIT, || match count() {
        now if now >= wanted => Ok(()),
        now => Err(format!("{now} of {wanted}")),
    });
}

fn why(agent: &Agent, address: &str) -> String {
    let now = backend(agent, "app", address);
    now["last_health_check_failure"].as_str().unwrap_or_default().into()
}

fn give_vip(ns: &Ns, family: Family) {
    let (prefix, more) = if family == V4 { (32, "") } else { (128, " nodad") };
    ns.ip(&format!("addr add {}/{prefix} dev lo{more}", family.vip(0)));
}

/// Who took each of so many clients.
fn taken(net: &Net, family: Family, count: usize) -> Vec<String> {
    let to = at(&family.vip(0), 80);
    net.client.run(|| {
        let open = || Conn::open(to).expect("somebody answers");
        let conns: Vec<Conn> = (0..count).map(|_| open()).collect();
        conns.iter().map(|conn| conn.backend.clone()).collect()
    })
}

/// Nothing was dropped, and nobody but clients counts as a connection.
fn nothing_counts(agent: &Agent, clients: u64) {
    let drops = agent.json(&["stats"])["drops"].clone();
    let dropped: u64 = drops.as_object().expect("reasons").values().filter_map(Value::as_u64).sum();
    assert_eq!(dropped, 0, "{drops}");
    let list = agent.json(&["backend", "list", "app"]);
    let total = |b: &Value| b["total_connections"].as_u64().expect("a number");
    assert_eq!(list.as_array().expect("a list").iter().map(total).sum::<u64>(), clients, "{list}");
}

fn goes_and_comes_with_the_vip(forward: &str, family: Family, attach: &str) {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    // The test's own end of the tunnel copies packets by way of raw sockets, where nobody finishes a checksum.
    net.client.must("ethtool -K eth0 tx off");
    let equip = |ns: &Ns| {
        give_vip(ns, family);
        if forward == "dsr-ipip" {
            decap::start(ns);
        }
    };
    equip(&net.backends[0]);
    let agent = Agent::start(&net.node, &config(&net, forward, family, attach));
    // As they are shown.
    let [with, without] = [0, 1].map(|i| at(&family.backend(i), 80).ip().to_string());
    await_health(&agent, &without, false);
    let said = why(&agent, &without);
    assert!(said.contains(&family.vip(0)) && said.contains("has it the VIP on its loopback?"), "{said}");
    await_failures(&agent, &without, 4);
    assert_eq!(taken(&net, family, 10), ["b0"; 10]);
    assert!(!agent.log().contains("healthy again"), "{}", agent.log());
    nothing_counts(&agent, 10);

    equip(&net.backends[1]);
    await_health(&agent, &without, true);
    let shares = taken(&net, family, 10);
    assert_eq!(shares.iter().filter(|name| *name == "b1").count(), 5, "{shares:?}");
    nothing_counts(&agent, 20);
    for (service, address) in [("app", &with), ("plain", &with), ("plain", &without)] {
        assert_eq!(backend(&agent, service, address)["health_check_failures"], 0, "{service} {address}");
    }
    assert_eq!(agent.json(&["status"])["problems"].as_array().map_or(0, Vec::len), 0);
}

#[test]
fn by_mac_address() {
    goes_and_comes_with_the_vip("dsr-l2", V4, "tc");
    goes_and_comes_with_the_vip("dsr-l2", V6, "tc");
}

#[test]
fn in_another_packet() {
    goes_and_comes_with_the_vip("dsr-ipip", V4, "tc");
    goes_and_comes_with_the_vip("dsr-ipip", V6, "tc");
}

#[test]
fn behind_xdp() {
    goes_and_comes_with_the_vip("dsr-l2", V4, "xdp");
    goes_and_comes_with_the_vip("dsr-ipip", V6, "xdp");
}

#[test]
fn whatever_keeps_clients_from_a_vip_keeps_checks_from_it() {
    let net = Net::new(5);
    let _servers: Vec<Server> =
        [0, 1, 3, 4].map(|i| Server::start(&net.backends[i], &format!("b{i}"), [80])).into();
    let (vip, own) = (V4.vip(0), V4.backend(2));
    // One listens at its own address alone.
    let listener = net.backends[2].run(|| TcpListener::bind(at(&own, 80))).expect("a port");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    net.backends[..3].iter().for_each(|ns| give_vip(ns, V4));
    // One drops what is for the VIP, one hasn't got it, and one sends it on, back to the node, which might lead it to another one.
    for line in [
        "add table ip t",
        "add chain ip t in { type filter hook input priority 0; }",
        &format!("add rule ip t in ip daddr {vip} tcp flags syn drop"),
    ] {
        program::run(&net.backends[1], "nft", &[line]);
    }
    net.backends[4].must("sysctl -qw net.ipv4.ip_forward=1");
    let agent = Agent::start(&net.node, &config(&net, "dsr-l2", V4, "tc"));
    for (number, reason) in [
        (1, "doesn't answer at the VIP"),
        (2, "refuses connections at the VIP"),
        (3, "doesn't answer"),
        (4, "has it the VIP"),
    ] {
        let address = V4.backend(number);
        await_health(&agent, &address, false);
        assert!(why(&agent, &address).contains(reason), "{}", why(&agent, &address));
    }
    await_failures(&agent, &V4.backend(4), 4);
    assert_eq!(taken(&net, V4, 10), ["b0"; 10]);
    assert!(!agent.log().contains("healthy again"), "{}", agent.log());
    for number in 0..5 {
        assert_eq!(backend(&agent, "plain", &V4.backend(number))["health_check_failures"], 0);
    }
    program::run(&net.backends[1], "nft", &["flush ruleset"]);
    await_health(&agent, &V4.backend(1), true);
}

/// The node takes no packets from a VIP, since its routes to VIPs lead elsewhere; clients elsewhere are answered all the same.
#[test]
fn rules_of_the_node_keep_no_answer_from_being_seen() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    give_vip(&net.backends[0], V4);
    net.node.must("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.b0.rp_filter=1");
    program::run(
        &net.node,
        "iptables",
        &["-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"],
    );
    let agent = Agent::start(&net.node, &config(&net, "dsr-l2", V4, "tc"));
    agent.sweeps(8);
    let only = backend(&agent, "app", &V4.backend(0));
    assert_eq!(
        (&only["healthy"], &only["health_check_failures"]),
        (&true.into(), &0.into()),
        "{}",
        agent.log()
    );
}

#[test]
fn without_the_right_to_do_so_only_the_own_address_is_checked_and_that_is_said() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let mut agent = Agent::prepare(&net.node, &config(&net, "dsr-l2", V4, "tc"));
    agent.under = ["setpriv", "--bounding-set", "-net_raw"].map(Into::into).into();
    agent.up();
    let problem = eventually("the status says so", LIMIT, || {
        let problems = agent.json(&["status"])["problems"].to_string();
        if problems.contains("at their own addresses only") { Ok(problems) } else { Err(problems) }
    });
    assert!(problem.contains("CAP_NET_RAW"), "{problem}");
    let only = backend(&agent, "app", &V4.backend(0));
    assert_eq!((&only["healthy"], &only["health_check_failures"]), (&true.into(), &0.into()));
}
