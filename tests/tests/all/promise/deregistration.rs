//! Promise: what a removed backend has goes on until the deadline of its removal, and is reset then, whoever the agent is.

use std::{
    io::{ErrorKind, Read},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const SETTING: &str = "on_removal = { policy = \"drain\", deadline = \"15s\" }";

fn config(services: &str) -> String {
    interfaces(&[("c0", "tc"), ("b*", "tc")]) + services
}

/// A service with two backends, of which the command line adds the second.
fn start(net: &Net) -> (Vec<Server>, Agent) {
    let servers =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let ours = service("ours", &Family::V4.vip(0), "\"80/tcp\"", &[Family::V4.backend(0)], SETTING);
    let agent = Agent::start(&net.node, &config(&ours));
    agent.done(&["backend", "add", "ours", &Family::V4.backend(1)]);
    (servers, agent)
}

fn open(net: &Net, count: usize) -> Vec<Conn> {
    let open = || Conn::open(at(&Family::V4.vip(0), 80)).expect("answered");
    net.client.run(|| (0..count).map(|_| open()).collect())
}

fn end(conn: &mut Conn) -> ErrorKind {
    let result = conn.stream.read(&mut [0]);
    result.map_or_else(|e| e.kind(), |n| panic!("{n} bytes instead of an end"))
}

#[test]
fn a_removed_backends_connections_end_at_the_deadline_whoever_the_agent_is_then() {
    for restart in [false, true] {
        let net = Net::new(2);
        let (_servers, mut agent) = start(&net);
        let mut conns = open(&net, 40);
        agent.done(&["backend", "remove", "ours", &Family::V4.backend(1)]);
        if restart {
            agent.end(Signal::SIGKILL);
            agent.up();
        }
        for conn in &mut conns {
            conn.exchange(1_000).expect("what is open goes on until the deadline");
        }
        let list = agent.json(&["backend", "list", "ours"]);
        let gone = list.as_array().expect("a list").iter().find(|b| b["origin"] == "removed");
        let left = gone.and_then(|b| b["drain_deadline_seconds"].as_f64()).expect("a deadline");
        assert!(left <= 15.0, "{list}");
        let (mut theirs, mut others): (Vec<Conn>, Vec<Conn>) =
            conns.into_iter().partition(|conn| conn.backend == "b1");
        assert_eq!((theirs.len(), others.len()), (20, 20));
        theirs.iter_mut().for_each(|conn| assert_eq!(end(conn), ErrorKind::ConnectionReset));
        others.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it is another's"));
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
        let noted = || std::fs::read_to_string(agent.state()).expect("a state file").contains("removals");
        eventually("its end is in the state file", LIMIT, || {
            if noted() { Err("not yet".to_string()) } else { Ok(()) }
        });
    }
}

#[test]
fn one_that_is_back_before_the_deadline_has_none_and_a_service_has_one_after_a_restart() {
    let net = Net::new(2);
    let (_servers, mut agent) = start(&net);
    let mut conns = open(&net, 20);
    let second = Family::V4.backend(1);
    agent.done(&["backend", "remove", "ours", &second]);
    agent.done(&["backend", "add", "ours", &second]);
    let list = agent.json(&["backend", "list", "ours"]);
    assert!(list.as_array().expect("a list").iter().all(|b| b["drain_deadline_seconds"].is_null()), "{list}");
    // The service goes from the file, and nobody but the state file knows of its deadline then.
    agent.write_config(&config(""));
    agent.signal(Signal::SIGHUP);
    eventually("it is gone", LIMIT, || match agent.json(&["status"])["services"].as_u64() {
        Some(0) => Ok(()),
        n => Err(format!("{n:?}")),
    });
    agent.end(Signal::SIGKILL);
    agent.up();
    conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("what is open goes on until the deadline"));
    conns.iter_mut().for_each(|conn| assert_eq!(end(conn), ErrorKind::ConnectionReset));
}
