//! Promise: what is wrong with one service is that service's; the agent starts whatever its sources say, and what was live stays live.

use std::time::{Duration, Instant};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// The status, once it is as wanted.
fn status(agent: &Agent, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the status says so", SOON, || {
        let out = agent.cli(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&out.stdout)
            .map_err(|_| String::from_utf8_lossy(&out.stderr).into_owned())?;
        if wanted(&status) { Ok(status) } else { Err(status["problems"].to_string()) }
    })
}

/// Name and place of every service.
fn places(agent: &Agent) -> Vec<(String, String)> {
    let list = agent.json(&["service", "list"]);
    let text = |v: &Value| v.as_str().expect("text").to_string();
    list.as_array().expect("a list").iter().map(|s| (text(&s["name"]), text(&s["vip"]))).collect()
}

/// Each kind of error once: what is written instead of what, and what the status says.
const KINDS: [(&str, &str, &str); 9] = [
    ("\"80/tcp\"", "\"0/tcp\"", "port 0 is not a port"),
    ("10.97.0.1\"", "10.97.0\"", "is not an address"),
    ("10.97.0.1\"", "10.97.0.2\"", "overlap at 10.97.0.2 port 80/tcp"),
    ("10.97.0.1\"", "224.0.0.1\"", "can't be a VIP"),
    ("ports = ", "prots = ", "unknown field `prots`"),
    ("10.2.0.2\"", "10.97.0.2\"", "is the VIP of service \"other\""),
    ("10.2.0.2\"", "fd00::1\"", "not of the VIP's family"),
    ("ports = ", "forward = \"dsr\"\nports = ", "forward \"dsr\" is not known"),
    ("ports = ", "weight = \"x\"\nports = ", "unknown field `weight`"),
];

#[test]
fn what_is_wrong_with_one_is_that_ones() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let rules = interfaces(&[("c0", "tc"), ("b0", "tc")]);
    let one = service("one", "10.97.0.1", "\"80/tcp\"", &[V4.backend(0)], "");
    let other = |port: &str| {
        service("other", "10.97.0.2", &format!("\"80/tcp\", \"{port}/tcp\""), &[V4.backend(0)], "")
    };
    let agent = Agent::start(&net.node, &(rules.clone() + &one + &other("100")));
    let mut open = net.client.run(|| Conn::open(at("10.97.0.1", 80)).expect("answered"));
    for (i, (from, to, says)) in KINDS.into_iter().enumerate() {
        assert!(one.contains(from), "{from}");
        let port = format!("{}", 200 + i);
        agent.write_config(&(rules.clone() + &one.replace(from, to) + &other(&port)));
        agent.signal(Signal::SIGHUP);
        let said = status(&agent, |s| s["problems"].to_string().replace('\\', "").contains(says));
        assert_eq!(said["rejected"].as_array().map(Vec::len), Some(1), "{said}");
        let rejected = &said["rejected"][0];
        assert_eq!(
            (&rejected["service"], &rejected["last_good_in_force"]),
            (&"one".into(), &true.into()),
            "{to}"
        );
        // The rest is in force, and so is what it was.
        let other = agent.json(&["service", "show", "other"]);
        assert!(other["ports"].to_string().contains(&port), "{other}");
        assert!(agent.json(&["service", "show", "one"])["rejected"][0].is_string());
        open.exchange(10).expect("its connections go on");
        let metrics = net.node.must("curl -sf http://127.0.0.1:9479/metrics");
        assert!(metrics.contains("flowpin_service_rejected{service=\"one\",origin=\"file\"} 1"), "{metrics}");
    }
    net.client.run(|| Conn::open(at("10.97.0.1", 80)).expect("new ones too"));
    agent.write_config(&(rules + &one + &other("300")));
    agent.signal(Signal::SIGHUP);
    status(&agent, |s| s["state"] == "ok");
    let events = agent.done(&["events", "-o", "json"]);
    let kinds = |kind: &str| events.lines().filter(|line| line.contains(&format!("\"{kind}\""))).count();
    assert_eq!((kinds("rejected"), kinds("accepted")), (KINDS.len(), 1), "{events}");
}

#[test]
fn one_of_ten_thousand() {
    let net = Net::new(1);
    let rules = interfaces(&[("c0", "tc")]);
    let file = |bad: bool| {
        let at = |i: usize| {
            let ports = if bad && i == 5_000 { "\"0/tcp\"" } else { "\"80/tcp\"" };
            service(&format!("s{i}"), &format!("10.100.{}.{}", i / 256, i % 256), ports, &[V4.backend(0)], "")
        };
        (0..10_000).fold(rules.clone(), |all, i| all + &at(i))
    };
    let mut agent = Agent::prepare(&net.node, &file(true));
    agent.spawn(&[]);
    let said = status(&agent, |s| s["services"] == 9_999);
    assert!(said["problems"].to_string().contains("service \\\"s5000\\\""), "{}", said["problems"]);
    let out = agent.cli(&["check", "--config", agent.config().to_str().expect("text")]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && error.contains("s5000") && error.lines().count() == 1, "{error}");
    agent.write_config(&file(false));
    let start = Instant::now();
    agent.signal(Signal::SIGHUP);
    status(&agent, |s| s["services"] == 10_000 && s["state"] == "ok");
    // How long it takes is for the benchmarks to say: other work on the machine would be measured here.
    let log = agent.log();
    let took: Vec<&str> = log.lines().filter(|l| l.contains("reconciled")).collect();
    println!("mended {:?} after the signal: {}", start.elapsed(), took.last().expect("a line"));
}

#[test]
fn the_agent_starts_whatever_its_sources_say() {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let targets = [V4.backend(0), V4.backend(1)];
    let good =
        interfaces(&[("c0", "tc"), ("b*", "tc")]) + &service("file", &V4.vip(0), "\"80/tcp\"", &targets, "");
    let mut agent = Agent::start(&net.node, &good);
    agent.done(&[
        "service",
        "add",
        "cli",
        "--vip",
        &V4.vip(1),
        "--port",
        "80/tcp",
        "--algorithm",
        "consistent-hash",
    ]);
    // The weight of one that drains isn't known to the kernel.
    agent.done(&["backend", "add", "cli", &targets[0]]);
    agent.done(&["backend", "add", "cli", &targets[1], "--weight", "3", "--max-connections", "9"]);
    let mut open: Vec<Conn> =
        net.client.run(|| [0, 1].map(|i| Conn::open(at(&V4.vip(i), 80)).expect("answered")).into());
    for name in ["file", "cli"] {
        agent.done(&["backend", "drain", name, &targets[0]]);
    }
    let shape = |agent: &Agent| -> Vec<Value> {
        let list = agent.json(&["service", "list"]);
        let of = |s: &Value| {
            let backends = s["backends"].as_array().expect("a list").iter();
            let keys = ["address", "weight", "max_connections"];
            let of = |b: &Value| -> Vec<Value> {
                let draining = b["state"] != "active";
                keys.iter().map(|key| b[*key].clone()).chain([draining.into()]).collect()
            };
            serde_json::json!([
                s["name"],
                s["vip"],
                s["ports"],
                s["algorithm"],
                s["origin"],
                backends.map(of).collect::<Vec<_>>()
            ])
        };
        list.as_array().expect("a list").iter().map(of).collect()
    };
    let before = shape(&agent);
    let state = std::fs::read_to_string(agent.state()).expect("a state file");
    let torn = state[..state.len() / 2].to_string();
    let newer = state.replace("\"version\": 1", "\"version\": 2, \"more\": true");
    let broken = good.clone() + "[[service]\nname = broken\n";
    for (what, file, kept, says) in [
        ("a broken file", &broken, &state, "the last good config is in force"),
        ("a torn state file", &good, &torn, "state.json.corrupt-"),
        ("a newer state file", &good, &newer, "version 2 is not 1"),
        ("both", &broken, &torn, "state.json.corrupt-"),
    ] {
        agent.end(Signal::SIGKILL);
        agent.write_config(file);
        std::fs::write(agent.state(), kept).expect("written");
        agent.spawn(&[]);
        let said = status(&agent, |s| s["problems"].to_string().contains(says));
        assert_eq!((&said["state"], shape(&agent)), (&"degraded".into(), before.clone()), "{what}");
        open.iter_mut().for_each(|conn| conn.exchange(10).expect("it goes on"));
        for vip in [0, 1] {
            let new = net.client.run(|| Conn::open(at(&V4.vip(vip), 80)).expect("answered"));
            assert_eq!(new.backend, "b1", "{what}: the other is drained");
        }
    }
    // A file that is mended is taken, and ends what was said of it.
    agent.write_config(&good);
    agent.signal(Signal::SIGHUP);
    status(&agent, |s| !s["problems"].to_string().contains("last good"));
    agent.end(Signal::SIGTERM);
    agent.up();
    // An address that both claim is the file's.
    let clash = good + &service("clash", &V4.vip(1), "\"80/tcp\"", &targets[1..], "");
    agent.end(Signal::SIGKILL);
    agent.write_config(&clash);
    agent.spawn(&[]);
    let said = status(&agent, |s| s["problems"].to_string().contains("\\\"cli\\\" overlap"));
    assert_eq!(said["rejected"][0]["origin"], "cli", "{said}");
    let mut wanted = vec![("clash".to_string(), V4.vip(1)), ("file".to_string(), V4.vip(0))];
    wanted.sort();
    assert_eq!(places(&agent), wanted);
    open.iter_mut().for_each(|conn| conn.exchange(10).expect("it goes on"));
    agent.done(&["service", "remove", "cli"]);
    status(&agent, |s| s["state"] == "ok");
}
