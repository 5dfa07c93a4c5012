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
