//! Promise: a connection that the operator closes is over for both ends at once, and no other is touched.

use std::{
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually, program,
    server::Server,
    topology::Family,
};
use nix::sys::signal::Signal;

/// Both ends of each are in this process.
const MANY: usize = 4_000;
const LIMIT: Duration = Duration::from_secs(20);

fn start(net: &Net, family: Family, hook: &str) -> (Vec<Server>, Agent) {
    let servers = net.backends.iter().map(|ns| Server::start(ns, "b", [80, 81])).collect();
    let targets: Vec<String> = (0..net.backends.len()).map(|i| family.backend(i)).collect();
    let pods = if hook.ends_with("-ingress") { "tc-ingress" } else { "tc" };
    let config = interfaces(&[("c0", hook), ("b*", pods)])
        + &service("ours", &family.vip(0), "\"80/tcp\"", &targets, "")
        + &service("theirs", &family.vip(0), "\"81/tcp\"", &targets, "");
    (servers, Agent::start(&net.node, &config))
}

fn open(net: &Net, family: Family, port: u16, count: usize) -> Vec<Conn> {
    net.client.run(|| (0..count).map(|_| Conn::open(at(&family.vip(0), port)).expect("answered")).collect())
}

/// Waits until a connection has ended, and how.
fn end(conn: &mut Conn) -> ErrorKind {
    let result = conn.stream.read(&mut [0]);
    result.map_or_else(|e| e.kind(), |n| panic!("{n} bytes instead of an end"))
}

fn idle_connections(family: Family, hook: &str, count: usize) {
    let net = Net::new(2);
    let (servers, agent) = start(&net, family, hook);
    let mut ours = open(&net, family, 80, count);
    let mut theirs = open(&net, family, 81, 10);
    for conn in &mut ours {
        conn.exchange(100).expect("it is open");
    }
    let began = Instant::now();
    let said = agent.done(&["connection", "close", "--service", "ours", "--rate", "1000"]);
    let took = began.elapsed();
    assert!(said.starts_with(&format!("{}", count / 1000)), "{said}");
    assert!(took.as_secs_f64() > count as f64 / 1000.0 - 0.1, "faster than was asked for: {took:?}");
    for conn in &mut ours {
        assert_eq!(end(conn), ErrorKind::ConnectionReset);
    }
    eventually("the servers' ends", LIMIT, || match servers.iter().map(Server::open).sum::<usize>() {
        10 => Ok(()),
        n => Err(format!("{n} are open")),
    });
    assert_eq!(agent.active("ours"), [0, 0]);
    for conn in &mut theirs {
        conn.exchange(1_000).expect("nobody asked for this one to be closed");
    }
    let again = open(&net, family, 80, 2);
    assert_eq!(agent.active("ours"), [1, 1], "who connects again is served");
    drop(again);
    let census = agent.sweeps(2);
    assert_eq!(census["accounting_drift"], 0);
}

#[test]
fn thousands_over_ipv4_at_the_rate_that_was_asked_for() {
    idle_connections(Family::V4, "tc", MANY);
}

#[test]
fn over_ipv6_and_by_xdp() {
    idle_connections(Family::V6, "tc", 1_000);
    idle_connections(Family::V4, "xdp", 1_000);
    idle_connections(Family::V6, "xdp", 1_000);
}

#[test]
fn with_answers_translated_where_they_come_in() {
    idle_connections(Family::V4, "tc-ingress", 1_000);
    idle_connections(Family::V6, "xdp-ingress", 1_000);
}

#[test]
fn only_the_idle_ones_if_asked() {
    let net = Net::new(2);
    let (_servers, agent) = start(&net, Family::V4, "tc");
    let mut idle = open(&net, Family::V4, 80, 20);
    let mut busy = open(&net, Family::V4, 80, 20);
    eventually("twenty that are idle", LIMIT, || {
        for conn in &mut busy {
            conn.exchange(10).expect("it is open");
        }
        let list = agent.json(&["connection", "list", "--service", "ours"]);
        let seconds = |c: &serde_json::Value| c["idle_seconds"].as_f64().expect("a number");
        let over = list.as_array().expect("a list").iter().filter(|c| seconds(c) >= 2.0).count();
        if over == 20 { Ok(()) } else { Err(format!("{over} are")) }
    });
    for conn in &mut busy {
        conn.exchange(10).expect("it is open");
    }
    let said = agent.done(&["connection", "close", "--service", "ours", "--idle-for", "2s"]);
    assert_eq!(said.trim(), "20 connections closed");
    for conn in &mut idle {
        assert_eq!(end(conn), ErrorKind::ConnectionReset);
    }
    for conn in &mut busy {
        conn.exchange(1_000).expect("it was busy");
    }
    let error = agent.cli(&["connection", "close"]);
    assert_eq!(error.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&error.stderr).contains("name a service"));
    let error = agent.cli(&["connection", "close", "--service", "ohter"]);
    assert_eq!(error.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&error.stderr).contains("no service \"ohter\""));
}

fn with_policy(net: &Net, policy: &str) -> (Vec<Server>, Agent) {
    let servers =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let targets: Vec<String> = (0..net.backends.len() - 1).map(|i| Family::V4.backend(i)).collect();
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("ours", &Family::V4.vip(0), "\"80/tcp\"", &targets, policy);
    let agent = Agent::start(&net.node, &config);
    agent.done(&["backend", "add", "ours", &Family::V4.backend(net.backends.len() - 1)]);
    (servers, agent)
}

/// Insists that the connections of this backend end with a reset, and that the others are whole.
fn only(conns: &mut [Conn], name: &str) {
    let (theirs, others): (Vec<&mut Conn>, Vec<&mut Conn>) =
        conns.iter_mut().partition(|c| c.backend == name);
    assert!(!theirs.is_empty() && !others.is_empty());
    for conn in theirs {
        assert_eq!(end(conn), ErrorKind::ConnectionReset);
    }
    for conn in others {
        conn.exchange(1_000).expect("it is somebody else's");
    }
}

#[test]
fn a_drain_closes_the_rest_at_its_deadline_whoever_the_agent_is_then() {
    for restart in [false, true] {
        let net = Net::new(3);
        let (_servers, mut agent) = with_policy(&net, "on_deadline = \"reset\"");
        let mut conns = open(&net, Family::V4, 80, 600);
        let drain = ["backend", "drain", "ours", &Family::V4.backend(0), "--deadline", "4s"];
        if restart {
            agent.done(&drain);
            agent.end(Signal::SIGKILL);
            agent.up();
        } else {
            let said = agent.done(&[&drain[..], &["--wait"]].concat());
            assert!(said.contains("0 connections left"), "{said}");
        }
        let fresh = open(&net, Family::V4, 80, 20);
        assert!(fresh.iter().all(|c| c.backend != "b0"), "a drained backend got a new connection");
        only(&mut conns, "b0");
        assert_eq!(agent.active("ours")[0], 0);
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

#[test]
fn an_unhealthy_backends_clients_are_told_at_once_if_so_configured() {
    let net = Net::new(3);
    let checks = "health = { type = \"tcp\", interval = \"1s\", fall = 2 }\non_unhealthy = \"reset\"";
    let (_servers, _agent) = with_policy(&net, checks);
    let mut conns = open(&net, Family::V4, 80, 60);
    program::run(&net.backends[1], "iptables", &["-A", "INPUT", "-j", "DROP"]);
    only(&mut conns, "b1");
}

#[test]
fn a_removed_backends_connections_are_reset_if_so_configured() {
    for (policy, resets) in [("on_removal = \"reset\"", true), ("", false)] {
        let net = Net::new(3);
        let (_servers, agent) = with_policy(&net, policy);
        let mut conns = open(&net, Family::V4, 80, 60);
        agent.done(&["backend", "remove", "ours", &Family::V4.backend(2)]);
        if resets {
            only(&mut conns, "b2");
        } else {
            agent.sweeps(4);
            for conn in &mut conns {
                conn.exchange(1_000).expect("what is open stays");
            }
        }
    }
}

#[test]
fn a_removed_backend_is_seen_until_its_last_connection_if_so_configured() {
    let net = Net::new(3);
    let (_servers, agent) = with_policy(&net, "on_removal = \"drain\"");
    let mut conns = open(&net, Family::V4, 80, 30);
    let gone = Family::V4.backend(2);
    agent.done(&["backend", "remove", "ours", &gone]);
    let seen = || {
        let list = agent.json(&["backend", "list", "ours"]);
        list.as_array().expect("a list").iter().find(|b| b["address"] == gone.as_str()).cloned()
    };
    let view = seen().expect("it has connections");
    assert_eq!((&view["state"], &view["origin"]), (&"draining".into(), &"removed".into()));
    assert_eq!(view["active_connections"], 10);
    assert!(open(&net, Family::V4, 80, 10).iter().all(|c| c.backend != "b2"));
    for conn in &mut conns {
        conn.exchange(1_000).expect("what is open stays");
    }
    conns.retain(|c| c.backend != "b2");
    eventually("its last connection", LIMIT, || seen().map_or(Ok(()), |b| Err(b.to_string())));
    let error = agent.cli(&["backend", "undrain", "ours", &gone]);
    assert_eq!(error.status.code(), Some(1), "it is not there to be undrained");
}

#[test]
fn connections_of_a_service_that_goes_are_reset_if_so_configured() {
    for (policy, resets) in [("on_removal = \"reset\"", true), ("on_removal = \"keep\"", false)] {
        let net = Net::new(2);
        let (servers, agent) = start(&net, Family::V4, "tc");
        let with = |ours: bool| {
            let targets = [Family::V4.backend(0), Family::V4.backend(1)];
            let mine = service("ours", &Family::V4.vip(0), "\"80/tcp\"", &targets, policy);
            let theirs = service("theirs", &Family::V4.vip(0), "\"81/tcp\"", &targets, "");
            let services = if ours { mine + &theirs } else { theirs };
            agent.write_config(&(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &services));
            agent.signal(Signal::SIGHUP);
            eventually("the reload", LIMIT, || match agent.json(&["status"])["services"].as_u64() {
                Some(n) if n == 1 + u64::from(ours) => Ok(()),
                n => Err(format!("{n:?}")),
            });
        };
        with(true);
        eventually("its policy is known", LIMIT, || match agent.log().matches("config reloaded").count() {
            0 => Err("not yet".into()),
            _ => Ok(()),
        });
        let mut ours = open(&net, Family::V4, 80, 20);
        let mut theirs = open(&net, Family::V4, 81, 20);
        with(false);
        if resets {
            ours.iter_mut().for_each(|conn| assert_eq!(end(conn), ErrorKind::ConnectionReset));
        } else {
            agent.sweeps(6);
            ours.iter_mut().for_each(|conn| conn.exchange(100).expect("what is open stays"));
        }
        theirs.iter_mut().for_each(|conn| conn.exchange(100).expect("another service's"));
        drop(servers);
    }
}
