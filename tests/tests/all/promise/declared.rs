//! Promise: whatever a file can say of a service, the command line can; each setting changes while it is in use, and no connection breaks.

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
    topology::Family::{V4, V6},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// Connections, half of them to each service.
const OPEN: usize = 40;

/// The packaged file's service, by hand: the same words, with this world's backends.
const APP: &str = "service add app --vip 10.96.0.10 --vip fd96::10 --port 8001-8003/tcp --port 80:8080/tcp \
    --service-max-connections 10000 --scope all --forward nat --algorithm least-connections --stray reset \
    --affinity client-ip --affinity-timeout 3h --affinity-group app \
    --timeout-idle 15h --timeout-client-request 60s --timeout-backend-response 60s \
    --health tcp --health-interval 2s --health-timeout 1s --health-rise 2 --health-fall 3 --slow-start 30s \
    --on-removal keep --on-unhealthy keep --on-deadline keep \
    --frontend address=0.0.0.0,address=::,port=30080:8080/tcp,scope=all,source-range=,forward=snat";

/// A change, what takes it back, and what is declared in between.
const CHANGES: &[(&str, &str, &str, &str)] = &[
    ("--vip 10.96.0.11 --vip fd96::11", "--vip 10.96.0.11", "/vips", "[\"fd96::11\"]"),
    ("--port 80/tcp --port 81/tcp", "--port 80/tcp", "/ports", "[\"80/tcp\",\"81/tcp\"]"),
    ("--source-range 10.0.0.0/8", "--default source-range", "/source_ranges", "[\"10.0.0.0/8\"]"),
    ("--deny-range 10.9.0.0/16", "--default deny-range", "/deny_ranges", "[\"10.9.0.0/16\"]"),
    ("--scope local", "--default scope", "/scope", "\"local\""),
    ("--forward snat", "--default forward", "/forward", "\"snat\""),
    ("--forward pod=snat", "--forward pod=nat", "/forward", "{\"pod\":\"snat\",\"elsewhere\":\"nat\"}"),
    ("--forward dsr-l2", "--default forward", "/forward", "\"dsr-l2\""),
    ("--stray pass", "--default stray", "/stray", "\"pass\""),
    ("--algorithm consistent-hash", "--default algorithm", "/algorithm", "\"consistent-hash\""),
    (
        "--frontend address=0.0.0.0,port=30081:80/tcp --vip-except 10.2.1.1",
        "--default frontend,vip-except",
        "/vip_except",
        "[\"10.2.1.1\"]",
    ),
    ("--affinity client-ip --affinity-timeout 1h", "--affinity none", "/affinity/timeout", "3600.0"),
    ("--affinity client-ip --affinity-group g", "--default affinity", "/affinity/group", "\"g\""),
    ("--affinity client-ip --affinity-by port", "--default affinity", "/affinity/by", "\"port\""),
    ("--affinity client-ip --affinity-ipv6-prefix 64", "--default affinity", "/affinity/ipv6_prefix", "64"),
    ("--affinity client-ip --affinity-bound 100", "--default affinity", "/affinity/bound", "100"),
    (
        "--rebalance 2%/min --rebalance-idle 1m --rebalance-above 1.5",
        "--rebalance none",
        "/rebalance/budget",
        "\"2%/min\"",
    ),
    ("--rebalance 2%/min --rebalance-above 1.5", "--default rebalance", "/rebalance/above", "1.5"),
    ("--timeout-idle 20h", "--default timeout-idle", "/timeouts/idle", "72000.0"),
    ("--timeout-client-request 60s", "--default timeout-client-request", "/timeouts/client_request", "60.0"),
    (
        "--timeout-backend-response 30s",
        "--default timeout-backend-response",
        "/timeouts/backend_response",
        "30.0",
    ),
    ("--timeout-max-age 10h", "--default timeout-max-age", "/timeouts/max_age", "36000.0"),
    ("--timeout-half-open 20s", "--default timeout-half-open", "/timeouts/half_open", "20.0"),
    ("--timeout-half-closed 2h", "--default timeout-half-closed", "/timeouts/half_closed", "7200.0"),
    ("--timeout-udp 90s", "--default timeout-udp", "/timeouts/udp", "90.0"),
    ("--health tcp --health-interval 1s --health-panic 50", "--health none", "/health/panic", "50"),
    ("--health tcp --health-rise 1 --health-fall 9", "--default health", "/health/fall", "9"),
    (
        "--health tcp --health-timeout 2s --health-passive false",
        "--default health",
        "/health/passive",
        "false",
    ),
    (
        "--health http --health-interval 1h --health-path /x --health-host h --health-expect 204",
        "--default health",
        "/health/expect",
        "204",
    ),
    (
        "--health http --health-interval 1h --health-path /x --health-path /y",
        "--default health",
        "/health/path/1",
        "\"/y\"",
    ),
    ("--health grpc --health-interval 1h --health-service s", "--default health", "/health/service", "\"s\""),
    (
        "--health redis --health-interval 1h --health-user u --health-password p --health-role master",
        "--default health",
        "/health/role",
        "\"master\"",
    ),
    (
        "--health postgres --health-interval 1h --health-user u --health-database d",
        "--default health",
        "/health/database",
        "\"d\"",
    ),
    (
        "--health tcp --health-interval 1h --health-talk expect=x",
        "--default health",
        "/health/talk/0/expect",
        "\"x\"",
    ),
    ("--slow-start 2s", "--default slow-start", "/slow_start", "2.0"),
    ("--quorum 2", "--default quorum", "/quorum", "2"),
    (
        "--service-max-connections 9000",
        "--default service-max-connections",
        "/service_max_connections",
        "9000",
    ),
    ("--on-removal drain", "--default on-removal", "/on_removal", "\"drain\""),
    (
        "--on-removal drain --on-removal-deadline 2s",
        "--default on-removal,on-removal-deadline",
        "/on_removal/deadline",
        "2.0",
    ),
    ("--on-unhealthy reset", "--default on-unhealthy", "/on_unhealthy", "\"reset\""),
    ("--on-deadline reset", "--default on-deadline", "/on_deadline", "\"reset\""),
];

/// What can't be, and what is said of it.
const REFUSED: &[(&str, &str)] = &[
    ("--port 0/tcp", "port 0 is not a port"),
    ("--slow-start 100ms", "slow_start \"100ms\""),
    ("--vip 10.96.0.10", "overlap at 10.96.0.10"),
    ("--vip fd96::77", "not of the VIP's family"),
    ("--health-interval 1s", "health.type"),
    ("--health tcp --health-path /x", "health.path is not for health checks of type \"tcp\""),
    ("--on-removal reset --on-removal-deadline 5s", "on_removal \"reset\" resets at once"),
    ("--quorum 2 --health tcp --health-panic 50", "has quorum = 2 and health.panic = 50"),
    ("--health postgres", "user = \"flowpin\""),
    ("--slow-start 5s --timeout-idle 21days", "timeouts.idle \"21days\""),
    ("--forward dsr-l2 --timeout-backend-response 5s", "backend_response"),
];

struct Scene<'a> {
    net: &'a Net,
    agent: Agent,
    rounds: &'a [AtomicU64],
    broken: &'a AtomicBool,
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

impl Scene<'_> {
    fn declared(&self, name: &str) -> Value {
        self.agent.json(&["service", "show", name])["declared"].clone()
    }

    fn set(&self, name: &str, change: &str) {
        let args = [&["service", "set", name], &words(change)[..]].concat();
        self.agent.done(&args);
    }

    /// Every connection exchanges data from now on, and none has broken.
    fn endured(&self, what: &str) {
        let targets: Vec<u64> = self.rounds.iter().map(|r| r.load(Ordering::Relaxed) + 2).collect();
        eventually(what, SOON, || {
            assert!(!self.broken.load(Ordering::Relaxed), "a connection broke: {what}");
            let late =
                self.rounds.iter().zip(&targets).filter(|(r, t)| r.load(Ordering::Relaxed) < **t).count();
            if late == 0 { Ok(()) } else { Err(format!("{late} connections wait")) }
        });
        let new = self.net.client.run(|| Conn::open(at("10.96.0.11", 80)).and_then(|mut c| c.exchange(100)));
        // Without the VIP a backend doesn't take what comes as it was sent.
        assert!(new.is_ok() || what.contains("dsr"), "{what}: {new:?}");
    }
}

#[test]
fn every_setting_changes_under_traffic() {
    let net = Net::new(2);
    let servers: Vec<Server> = net
        .backends
        .iter()
        .enumerate()
        .map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80, 8001, 8002, 8003, 8080]))
        .collect();
    let rules = interfaces(&[("c0", "tc"), ("b*", "tc")]);
    let filed = service("filed", "10.96.0.12", "\"80/tcp\"", &[V4.backend(0)], "");
    let agent = Agent::start(&net.node, &(rules + &filed));
    // The packaged file's service is made by hand, and is the same.
    agent.done(&words(APP));
    for backend in [V4.backend(0), V6.backend(0)] {
        agent.done(&["backend", "add", "app", &backend, "--weight", "1", "--max-connections", "300"]);
    }
    agent.done(&words("service add plain --vip 10.96.0.11 --port 80/tcp"));
    for i in 0..2 {
        agent.done(&["backend", "add", "plain", &V4.backend(i)]);
    }
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/flowpin.toml");
    let wanted = agent.json(&["check", "--config", packaged])["services"][0]["declared"].clone();
    let shown = agent.json(&["service", "show", "app"]);
    assert_eq!(shown["declared"], wanted);
    assert_eq!(shown["backends"][0]["max_connections"], 300);

    let rounds: Vec<AtomicU64> = (0..OPEN).map(|_| AtomicU64::new(0)).collect();
    let (broken, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (i, rounds) in rounds.iter().enumerate() {
            let to = if i % 2 == 0 { at("10.96.0.11", 80) } else { at("10.96.0.10", 80) };
            let mut conn = net.client.run(|| Conn::open(to)).expect("answered");
            let (broken, over) = (&broken, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if conn.exchange(400).is_err() {
                        return broken.store(true, Ordering::Relaxed);
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    // At a pace that leaves the machine to the agent.
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            });
        }
        let end = Ends(&over);
        let mut scene = Scene { net: &net, agent, rounds: &rounds, broken: &broken };
        changes(&scene);
        refusals(&scene);
        backends(&scene);
        kept(&mut scene);
        drop(end);
    });
    assert!(!broken.load(Ordering::Relaxed));
    let open: usize = servers.iter().map(Server::open).sum();
    assert!(open <= OPEN, "{open} connections are left");
}

/// Lets the connections end, however the test does.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn changes(scene: &Scene<'_>) {
    let before = scene.declared("plain");
    for (set, back, key, value) in CHANGES {
        scene.set("plain", set);
        let value: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!(scene.declared("plain").pointer(key), Some(&value), "{set}");
        scene.endured(set);
        scene.set("plain", back);
        assert_eq!(scene.declared("plain"), before, "{set}, then {back}");
        scene.endured(back);
    }
}

fn refusals(scene: &Scene<'_>) {
    let before = scene.declared("plain");
    let refused = |args: &[&str], says: &str| {
        let out = scene.agent.cli(args);
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && error.lines().count() == 1, "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    };
    for (set, says) in REFUSED {
        refused(&[&["service", "set", "plain"], &words(set)[..]].concat(), says);
        assert_eq!(scene.declared("plain"), before, "{set}");
    }
    refused(&["service", "set", "filed", "--slow-start", "5s"], "flowpin.toml; edit it and send SIGHUP");
    refused(
        &["backend", "set", "filed", &V4.backend(0), "--weight", "2"],
        "flowpin.toml; edit it and send SIGHUP",
    );
    refused(&["service", "set", "nobody", "--slow-start", "5s"], "there is no service \"nobody\"");
    refused(&["backend", "set", "plain", "10.9.9.9", "--weight", "2"], "no backend 10.9.9.9");
    refused(&["backend", "set", "plain", &V4.backend(0), "--weight", "-1"], "weight -1");
    scene.endured("changes that were refused");
}

fn backends(scene: &Scene<'_>) {
    let of = |i: usize| scene.agent.json(&["service", "show", "plain"])["backends"][i].clone();
    let before = of(1);
    let address = V4.backend(1);
    let set = ["backend", "set", "plain", &address];
    scene.agent.done(&[&set[..], &words("--weight 7 --max-connections 1000 --local")].concat());
    let now = of(1);
    assert_eq!(
        (&now["weight"], &now["max_connections"], &now["local"]),
        (&json!(7), &json!(1000), &json!(true))
    );
    scene.endured("a backend's settings");
    scene.agent.done(&[&set[..], &words("--default weight,max-connections,local")].concat());
    let now = of(1);
    for key in ["weight", "max_connections", "local", "state", "origin"] {
        assert_eq!(now[key], before[key], "{key}");
    }
    scene.endured("a backend as it was");
}

/// What was said is there after the agent was killed, and counts are right.
fn kept(scene: &mut Scene<'_>) {
    scene.set("plain", "--slow-start 5s --timeout-idle 3h --health tcp --on-deadline reset");
    let before = [scene.declared("app"), scene.declared("plain")];
    scene.agent.end(Signal::SIGKILL);
    scene.agent.up();
    assert_eq!([scene.declared("app"), scene.declared("plain")], before);
    scene.endured("an agent that was killed");
    eventually("new connections are over", SOON, || {
        let active: u64 = ["app", "plain"].iter().flat_map(|name| scene.agent.active(name)).sum();
        if active == OPEN as u64 { Ok(()) } else { Err(format!("{active} active")) }
    });
    let status = scene.agent.sweeps(2);
    assert_eq!((&status["accounting_drift"], &status["state"]), (&json!(0), &json!("ok")), "{status}");
}
