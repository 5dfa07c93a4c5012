//! What is sent when something that is in use is changed, or made with every setting.

use serde_json::{Value, json};

use crate::{fake::Agent, ran::has};

#[test]
fn service_add_takes_backends_along() {
    let agent = Agent::empty();
    let line =
        "service add db --vip 10.96.0.10 --port 5432/tcp --backend 10.0.1.11 --backend [fd00::11]:5433";
    let words: Vec<&str> = line.split_whitespace().collect();
    has(&agent.run(&words).ok(), &["\"db\" added at 10.96.0.10 port 5432/tcp, with 2 backends"]);
    let sent = agent.world(|w| w.added.clone()).expect("it arrived");
    let addresses: Vec<&str> = sent.backends.iter().map(|b| b.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.1.11", "[fd00::11]:5433"]);
    has(&agent.run(&[&words[..], &["--backend", ""]].concat()).failed(2), &["--backend <ADDRESS>"]);
}

#[test]
fn every_kind_of_service_can_be_made_without_a_file() {
    let agent = Agent::empty();
    let line = "service add app --vip 10.96.0.10 --port 80/tcp --timeout-idle 15h --timeout-udp 30s --health http \
                --health-path /healthz --health-expect 204 --health-passive false --slow-start 30s \
                --on-removal drain --on-unhealthy reset --on-deadline reset";
    agent.run(&line.split_whitespace().collect::<Vec<_>>()).ok();
    let sent = agent.world(|w| w.added.clone()).expect("it arrived");
    assert_eq!(
        serde_json::to_value(sent).expect("JSON"),
        json!({
            "name": "app", "vip": "10.96.0.10", "ports": ["80/tcp"], "algorithm": "least-connections",
            "timeouts": {"idle": "15h", "udp": "30s"}, "slow_start": "30s",
            "health": {"type": "http", "path": "/healthz", "expect": "204", "passive": false},
            "on_removal": "drain", "on_unhealthy": "reset", "on_deadline": "reset"
        })
    );
}

#[test]
fn service_set_sends_only_what_is_given() {
    let agent = Agent::new();
    agent.world(|w| {
        w.services[0].declared =
            serde_json::from_value(json!({"vip": "10.96.0.10", "ports": ["80/tcp"]})).expect("a declaration")
    });
    let ran = agent.run(&[
        "service",
        "set",
        "app",
        "--slow-start",
        "30s",
        "--health",
        "tcp",
        "--default",
        "timeout-idle",
    ]);
    has(&ran.ok(), &["service \"app\" changed: health, slow_start, timeouts"]);
    let health = json!({"type": "tcp", "path": null, "host": null, "expect": null, "service": null, "send": null,
                        "user": null, "password": null, "database": null, "role": null, "command": null});
    let change = json!({"slow_start": "30s", "health": health, "timeouts": {"idle": null}});
    assert_eq!(agent.world(|w| w.change.clone()).map(Value::Object), Some(change));
    let view = agent.run(&["svc", "set", "app", "--timeout-idle", "2h", "-o", "json"]).json();
    assert_eq!(view["declared"]["timeouts"], json!({"idle": "2h"}));
    let shown = agent.run(&["service", "show", "app"]).ok();
    has(&shown, &["Timeouts:   idle 2h\n", "Health:     tcp\n", "Slow start: 30s\n"]);
    has(&agent.run(&["service", "set", "nope", "--slow-start", "1s"]).failed(1), &["nope"]);
    has(
        &agent.run(&["service", "set", "app", "--health-interval", "1s", "--default", "port"]).failed(2),
        &["port"],
    );
    has(&agent.run(&["service", "set", "app"]).failed(2), &["--slow-start", "usage: flowpin service set"]);
}

#[test]
fn backend_set_sends_only_what_is_given() {
    let agent = Agent::new();
    let set = ["backend", "set", "app", "10.0.1.11", "--weight", "3", "--default", "max-connections"];
    has(&agent.run(&set).ok(), &["backend 10.0.1.11 of service \"app\" changed: weight 3, no limit"]);
    let change = json!({"weight": 3, "max_connections": null});
    assert_eq!(agent.world(|w| w.change.clone()).map(Value::Object), Some(change));
    let local = ["be", "set", "app", "10.0.1.11", "--local", "-o", "json"];
    assert_eq!(agent.run(&local).json()["address"], "10.0.1.11");
    assert_eq!(agent.world(|w| w.change.clone()).map(Value::Object), Some(json!({"local": true})));
    has(&agent.run(&["backend", "set", "app", "10.0.1.11"]).failed(2), &["--weight"]);
    has(&agent.run(&["backend", "set", "app", "10.9.9.9", "--local"]).failed(1), &["10.9.9.9"]);
}
