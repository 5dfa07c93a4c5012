//! Promise: a pinned connection is not reset, not moved and loses no byte, whatever is done to its service and to the agent.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
};
use nix::sys::signal::Signal;

/// 200 connections that never stop exchanging data, while `disturb` does what it does between rounds.
fn endure(family: Family, client: &str, backend: &str, algorithm: &str) {
    let net = Net::new(5);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [8080])).collect();
    let targets: Vec<String> = (0..4).map(|i| family.target(i, 8080)).collect();
    let rules = interfaces(&[("c0", client), ("b*", backend)]);
    let algorithm = format!("algorithm = \"{algorithm}\"");
    let config =
        |n: usize| rules.clone() + &service("app", &family.vip(0), "\"80/tcp\"", &targets[..n], &algorithm);
    let mut agent = Agent::start(&net.node, &config(4));

    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let conns = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            net.client.run(|| {
                let mut conns: Vec<Conn> =
                    (0..200).map(|_| Conn::open(at(&family.vip(0), 80)).expect("connect")).collect();
                while !stop.load(Ordering::Relaxed) {
                    for (i, conn) in conns.iter_mut().enumerate() {
                        let result = conn.exchange(64 + i * 40);
                        result.unwrap_or_else(|e| panic!("connection {i} on {} broke: {e}", conn.backend));
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                conns
            })
        });
        // Each disturbance is followed by whole rounds of all connections.
        let endured = |what: &str| {
            let target = rounds.load(Ordering::Relaxed) + 2;
            eventually(what, Duration::from_secs(120), || {
                assert!(!traffic.is_finished(), "after: {what}");
                let now = rounds.load(Ordering::Relaxed);
                if now >= target { Ok(()) } else { Err(format!("{now} rounds")) }
            });
        };
        endured("connected");
        let before: u64 = agent.active("app").iter().sum();
        assert_eq!(before, 200);
        agent.done(&["backend", "add", "app", &family.target(4, 8080), "--weight", "7"]);
        endured("a backend added");
        agent.done(&["backend", "add", "app", &family.target(4, 8080), "--weight", "1"]);
        endured("a weight changed");
        agent.done(&["backend", "drain", "app", &targets[0]]);
        endured("a backend drained");
        agent.done(&["backend", "undrain", "app", &targets[0]]);
        agent.done(&["backend", "remove", "app", &family.target(4, 8080)]);
        endured("a backend removed");
        agent.write_config(&config(3));
        agent.signal(Signal::SIGHUP);
        endured("a backend taken out of the file");
        agent.end(Signal::SIGKILL);
        endured("the agent killed");
        agent.up();
        endured("the agent started again");
        // Another file, so that nothing of the old one is mapped; an upgrade is no more than that to the datapath.
        let other = agent.config().with_file_name("flowpin-other");
        flowpin_tests::harness::netns::must(&format!("cp {} {}", agent.binary.display(), other.display()));
        agent.end(Signal::SIGTERM);
        endured("the agent ended");
        agent.binary = other;
        agent.up();
        endured("the agent replaced");
        stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let names: std::collections::BTreeSet<_> = conns.iter().map(|c| c.backend.clone()).collect();
    assert!(names.len() >= 4, "spread over {names:?}");
    // What was taken out of the file still has its connections; the counters know of all.
    let listed = agent.json(&["connection", "list", "--service", "app", "--state", "established"]);
    assert_eq!(listed.as_array().unwrap().len(), 200);
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
    drop(conns);
}

#[test]
fn v4_by_tc() {
    endure(V4, "tc", "tc", "least-connections");
}

#[test]
fn v6_by_tc() {
    endure(V6, "tc", "tc", "consistent-hash");
}

#[test]
fn v4_by_xdp() {
    endure(V4, "xdp", "xdp", "consistent-hash");
}

#[test]
fn v6_by_xdp() {
    endure(V6, "xdp", "xdp", "least-connections");
}

#[test]
fn v4_in_by_xdp_back_by_tc() {
    endure(V4, "xdp", "tc", "least-connections");
}

#[test]
fn v6_in_by_tc_back_by_xdp() {
    endure(V6, "tc", "xdp", "least-connections");
}

#[test]
fn v4_past_the_ip_stack() {
    endure(V4, "fast", "fast", "least-connections");
}

#[test]
fn v6_in_by_xdp_back_past_the_ip_stack() {
    endure(V6, "xdp", "fast", "consistent-hash");
}
