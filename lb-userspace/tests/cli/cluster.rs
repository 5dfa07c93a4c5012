//! `flowpin cluster`: what is shown, and certificates.

use crate::{fake::Agent, ran::has};
use serde_json::json;

#[test]
fn a_cluster_s_members_and_counts() {
    let agent = Agent::new();
    let all = agent.run(&["cluster"]).ok();
    has(&all, &["cluster \"prod\", 2 nodes", "this node, adds up", "node-3:7473: no such host"]);
    has(&all, &["certificate, 4 times", "1,200 received", "16", "1.25"]);
    assert!(!all.contains("flood"), "{all}");
    has(&agent.run(&["cluster", "app"]).ok(), &["10.0.1.12", "8", "fullest over mean, by weight: 1.25"]);
    let both = agent.run(&["service", "show", "app", "--cluster"]).ok();
    has(&both, &["Algorithm:", "Over all nodes:", "fullest over mean, by weight: 1.25"]);
    let json = agent.run(&["service", "show", "app", "--cluster", "-o", "json"]).json();
    assert_eq!((&json["name"], &json["cluster"]["backends"][0]["others"]), (&json!("app"), &json!(5)));
    let ran = agent.run(&["cluster", "nobody"]);
    assert!(ran.err.contains("service \"nobody\" isn't shared"), "{}", ran.err);
    assert_eq!(agent.run(&["cluster", "-o", "json"]).json()["services"][0]["backends"][0]["others"], 5);
}

#[test]
fn certificates_for_a_cluster() {
    let agent = Agent::new();
    let directory = tempfile::tempdir().unwrap();
    let keygen = |more: &[&str]| {
        let place = directory.path().to_str().unwrap();
        agent.run(&[&["cluster", "keygen", place, "--cluster", "prod"], more].concat())
    };
    let made = keygen(&["node-1", "node-2"]).ok();
    has(&made, &["ca.pem", "ca.key", "node-1.pem", "node-2.key"]);
    has(&keygen(&["node-1"]).ok(), &["nothing to do"]);
    assert!(keygen(&["Node_1"]).err.contains("\"Node_1\" can't be"));
}

#[test]
fn what_rebalancing_would_do() {
    let agent = Agent::new();
    let dry = agent.run(&["rebalance", "app", "--dry-run"]).ok();
    has(
        &dry,
        &["5%/min of all connections, handed out by node-2", "waiting: the fullest has less than 1.2 times"],
    );
    has(&dry, &["1.15", "10.0.1.11", "40", "in 2m4s at this budget"]);
    has(&agent.run(&["rebalance", "app", "--now"]).ok(), &["moving: 7 so far"]);
    assert_eq!(agent.run(&["rebalance", "app", "--now", "-o", "json"]).json()["moved"], 7);
    has(&agent.run(&["rebalance", "app"]).failed(2), &["--dry-run", "--now"]);
    has(&agent.run(&["rebalance", "app", "--now", "--dry-run"]).failed(2), &["cannot be used with"]);
    let bad = agent.run(&["service", "set", "app", "--rebalance", "1%/h"]).failed(2);
    has(&bad, &["write a part of all connections a minute, as 1%/min, or none"]);
}
