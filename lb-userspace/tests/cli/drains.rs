//! `backend drain`, with and without `--wait`.

use std::{os::unix::net::UnixListener, process::Stdio};

use serde_json::json;

use crate::{
    fake::{Agent, backend, service},
    ran::{flowpin, has},
};

#[test]
fn drain_says_how_many_are_left() {
    let agent = Agent::new();
    let line = agent.run(&["backend", "drain", "app", "10.0.1.11", "--deadline", "15m"]).ok();
    has(&line, &["draining", "2 connections left"]);
    assert_eq!(agent.world(|w| w.drain.clone()).and_then(|d| d.deadline_seconds), Some(900));
    let view = agent.run(&["backend", "drain", "app", "10.0.1.12:5432", "-o", "json"]).json();
    assert_eq!((&view["state"], &view["active_connections"]), (&json!("draining"), &json!(1)));
    has(&agent.run(&["backend", "list", "app"]).ok(), &["draining (1"]);
}

#[test]
fn drain_wait_ends_when_none_is_left() {
    let agent = Agent::new();
    agent.world(|w| w.ending = 1);
    let ran = agent.run(&["backend", "drain", "app", "10.0.1.11", "--wait"]);
    has(&ran.err, &["draining 10.0.1.11: 2 connections left"]);
    assert_eq!(ran.ok(), "backend 10.0.1.11 of service \"app\" is drained: 0 connections left\n");

    agent.world(|w| w.services.push(service("j", "10.96.0.11", vec![backend("10.0.2.1", 3)])));
    let view = agent.run(&["backend", "drain", "j", "10.0.2.1", "--wait", "-o", "json"]).json();
    assert_eq!((&view["state"], &view["active_connections"]), (&json!("drained"), &json!(0)));
}

#[test]
fn drain_wait_fails_at_the_deadline_with_the_number_left() {
    let agent = Agent::new();
    let ran = agent.run(&["backend", "drain", "app", "10.0.1.11", "--deadline", "2s", "--wait"]);
    assert_eq!(ran.code, 1);
    let last = ran.err.lines().last().expect("a line");
    has(last, &["flowpin: ", "deadline has passed", "10.0.1.11", "2 connections"]);
    has(&ran.out, &["is draining: 2 connections left"]);
}

#[test]
fn drain_wait_notices_that_it_was_taken_back() {
    let agent = Agent::new();
    agent.world(|w| w.undrained_meanwhile = true);
    let ran = agent.run(&["backend", "drain", "app", "10.0.1.11", "--wait"]);
    assert_eq!(ran.code, 1);
    has(&ran.err, &["undrained by somebody else"]);
}

#[test]
fn drain_wait_outlives_a_restart_of_the_agent() {
    let mut agent = Agent::new();
    let waiting = flowpin(&["backend", "drain", "app", "10.0.1.11", "--wait"])
        .env("FLOWPIN_API_SOCKET", agent.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    while agent.world(|w| w.drain.is_none()) {
        std::thread::yield_now();
    }
    agent.stop();
    // It asks in vain, of one who hangs up.
    let mute = UnixListener::bind(agent.socket()).expect("a socket");
    drop(mute.accept().expect("it asks"));
    drop(mute);
    std::fs::remove_file(agent.socket()).expect("the socket was there");
    agent.world(|w| w.ending = 2);
    agent.start();
    let output = waiting.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    has(&String::from_utf8_lossy(&output.stdout), &["is drained: 0 connections left"]);
}

#[test]
fn all_nodes_drain_and_are_waited_for() {
    let agent = Agent::new();
    let ran = agent.run(&["backend", "drain", "app", "10.0.1.11", "--cluster", "--deadline", "15m"]);
    has(&ran.ok(), &["NODE", "node-2", "draining", "15m", "4 connections left over all nodes"]);
    has(&agent.run(&["backend", "undrain", "app", "10.0.1.11", "--cluster"]).ok(), &["node-1", "active"]);

    agent.world(|w| w.ending = 1);
    let ran = agent.run(&["backend", "drain", "app", "10.0.1.11", "--cluster", "--wait"]);
    has(&ran.err, &["draining 10.0.1.11: 4 connections left over all nodes"]);
    has(&ran.ok(), &["drained", "service \"app\": 0 connections left over all nodes"]);
}

#[test]
fn a_node_that_does_not_drain_is_named() {
    let agent = Agent::new();
    agent.world(|w| w.silent = true);
    for wait in [&[][..], &["--wait"]] {
        let ran = agent.run(&[&["backend", "drain", "app", "10.0.1.11", "--cluster"], wait].concat());
        has(&ran.out, &["node-2", "1 node not answering"]);
        has(&ran.failed(1), &["not done at 1 node: node-3:7473: no such host; elsewhere it is"]);
    }
}

#[test]
fn a_drain_over_all_nodes_ends_late_or_by_another() {
    let agent = Agent::new();
    let drain = ["backend", "drain", "app", "10.0.1.11", "--cluster", "--deadline", "2s", "--wait"];
    let ran = agent.run(&drain);
    assert_eq!(ran.code, 1);
    has(&ran.err, &["the deadline has passed", "4 connections over all nodes"]);
    agent.world(|w| w.undrained_meanwhile = true);
    let ran = agent.run(&drain);
    assert_eq!(ran.code, 1);
    has(&ran.err, &["was undrained at node node-1 by somebody else"]);
}
