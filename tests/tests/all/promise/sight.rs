//! Promise: what the operator is shown is so: connections, events, explanations, durations.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{V4, V6},
};
use serde_json::Value;

fn list(agent: &Agent, more: &[&str]) -> Vec<Value> {
    let all = agent.json(&[&["connection", "list"], more].concat());
    all.as_array().expect("a list").clone()
}

fn column(list: &[Value], key: &str) -> Vec<f64> {
    list.iter().map(|c| c[key].as_f64().expect("a number")).collect()
}

#[test]
fn the_first_few_by_age_silence_and_bytes() {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let mut config = interfaces(&[("c0", "tc"), ("b*", "tc")]);
    for (name, family) in [("four", V4), ("six", V6)] {
        let targets = [family.backend(0), family.backend(1)];
        config += &service(name, &family.vip(0), "\"80/tcp\"", &targets, "");
    }
    let agent = Agent::start(&net.node, &config);
    let mut conns: Vec<Conn> = net
        .client
        .run(|| (0..40).map(|i| Conn::open(at(&[V4, V6][i % 2].vip(0), 80)).expect("answered")).collect());
    // Of each: one that has said more than all the others.
    for (i, conn) in conns.iter_mut().enumerate() {
        conn.exchange(if i < 2 { 100_000 } else { 10 * i }).expect("it is open");
    }
    let clients = |list: &[Value]| -> Vec<String> {
        list.iter().map(|c| c["client"].as_str().expect("a name").into()).collect()
    };
    let loud: Vec<String> =
        conns[..2].iter().map(|c| c.stream.local_addr().expect("an address").to_string()).collect();

    assert_eq!(list(&agent, &[]).len(), 40);
    assert_eq!(list(&agent, &["--limit", "7"]).len(), 7);
    assert_eq!(list(&agent, &["--limit", "0"]).len(), 0);
    assert_eq!(list(&agent, &["--service", "six", "--limit", "100"]).len(), 20);

    let most = list(&agent, &["--sort", "bytes", "--limit", "2"]);
    let (mut found, mut wanted) = (clients(&most), loud);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "one is IPv4, one is IPv6, and both are found");
    for (order, key) in [("age", "age_seconds"), ("idle", "idle_seconds")] {
        let all = list(&agent, &["--sort", order]);
        assert_eq!(all.len(), 40);
        let values = column(&all, key);
        // Each is read off the clock in its turn: a later look may find a tick more.
        assert!(values.windows(2).all(|w| w[0] + 0.1 >= w[1]), "{order}: {values:?}");
        let first = column(&list(&agent, &["--sort", order, "--limit", "3"]), key);
        assert!(first.iter().all(|v| *v + 0.1 >= values[2]), "{order}: {first:?} of {values:?}");
    }
    let metrics = net.node.must("curl -sf http://127.0.0.1:9479/metrics");
    for name in ["four", "six"] {
        let line = format!("flowpin_service_imbalance{{service=\"{name}\"}} 1.0");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let error = agent.cli(&["connection", "list", "--sort", "size"]);
    assert_eq!(error.status.code(), Some(2));
}

/// What `flowpin events -f` says, line by line.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(agent: &Agent) -> Self {
        let mut child = agent.spawn_cli(&["events", "-f", "-o", "json"], Stdio::piped());
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("text");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// The next event about one of these clients, of this kind.
    fn about(&mut self, kind: &str, clients: &[String]) -> Value {
        loop {
            let event = self.next();
            let client = event["client"].as_str().unwrap_or_default();
            if event["kind"] == kind && (clients.is_empty() || clients.iter().any(|c| c == client)) {
                return event;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_follows_hears_of_every_connection_and_why_it_ended() {
    for (family, hook) in [(V4, "tc"), (V6, "xdp")] {
        let net = Net::new(2);
        let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
        // As the agent writes them.
        let targets =
            [0, 1].map(|i| family.backend(i).parse::<std::net::IpAddr>().expect("an address").to_string());
        let config = interfaces(&[("c0", hook), ("b*", "tc")])
            + &service("app", &family.vip(0), "\"80/tcp\"", &targets, "");
        let agent = Agent::start(&net.node, &config);
        let open = || net.client.run(|| Conn::open(at(&family.vip(0), 80)).expect("answered"));
        let name = |c: &Conn| c.stream.local_addr().expect("an address").to_string();
        let mut follower = Follower::start(&agent);
        // It follows when it hears of something; it must not take long, and nothing may be missed from then on.
        let heard = std::thread::scope(|scope| {
            let first = scope.spawn(|| follower.about("open", &[]));
            while !first.is_finished() {
                drop(open());
                eventually::pass(Duration::from_millis(20));
            }
            first.join().expect("whole")
        });
        assert_eq!((&heard["service"], &heard["protocol"]), (&"app".into(), &"tcp".into()), "{heard}");

        let began = Instant::now();
        let mut conns: Vec<Conn> = (0..3).map(|_| open()).collect();
        let clients: Vec<String> = conns.iter().map(name).collect();
        for _ in &clients {
            let event = follower.about("open", &clients);
            let target = event["backend"].as_str().expect("a name");
            assert!(targets.iter().any(|t| target.contains(t.as_str())), "{event}");
        }
        conns[0].exchange(50_000).expect("it is open");
        let (finished, reset, closed) = (clients[0].clone(), clients[1].clone(), clients[2].clone());
        let mut rest = conns.drain(..);
        drop(rest.next());
        rest.next().expect("the second").reset().expect("a RST");
        agent.done(&["connection", "close", "--client", &closed]);
        for _ in 0..3 {
            let event = follower.about("close", &clients);
            let client = event["client"].as_str().expect("a name").to_string();
            let reason = match &client {
                c if *c == finished => "finished",
                c if *c == reset => "client_reset",
                _ => "closed",
            };
            assert_eq!(event["reason"], reason, "{event}");
            let lasted = event["duration_seconds"].as_f64().expect("a number");
            assert!(lasted <= began.elapsed().as_secs_f64() + 0.2, "{event}");
            if client == finished {
                let bytes = |key: &str| event[key].as_u64().expect("a count");
                assert!(bytes("bytes_in") > 50_000 && bytes("bytes_out") > 50_000, "{event}");
            }
        }
        agent.done(&["backend", "drain", "app", &targets[0], "--deadline", "1h"]);
        let drain = follower.about("drain", &[]);
        assert_eq!(
            (&drain["backend"], &drain["detail"]),
            (&targets[0].as_str().into(), &"for 3600 s at most".into())
        );
        // Who comes later hears of the drain too.
        let late = agent.done(&["events", "-o", "json"]);
        assert!(late.lines().count() == 1 && late.contains("\"drain\""), "{late}");
    }
}

#[test]
fn explanations_come_true() {
    let net = Net::new(3);
    let _servers: Vec<Server> = net
        .backends
        .iter()
        .enumerate()
        .map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80, 81, 82]))
        .collect();
    let targets: Vec<String> = (0..3).map(|i| V4.backend(i)).collect();
    let hash = "algorithm = \"consistent-hash\"";
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("least", &V4.vip(0), "\"80/tcp\"", &targets, "")
        + &service("hash", &V4.vip(0), "\"81/tcp\"", &targets, hash)
        + &service("bound", &V4.vip(0), "\"82/tcp\"", &targets, "affinity = { client_ip = true }");
    let agent = Agent::start(&net.node, &config);
    let explain =
        |client: &str, port: u16| agent.json(&["explain", client, &format!("{}:{port}", V4.vip(0))]);
    let named =
        |view: &Value| targets.iter().position(|t| view["backend"] == t.as_str()).map(|i| format!("b{i}"));
    let open = |port: u16| net.client.run(|| Conn::open(at(&V4.vip(0), port)).expect("answered"));

    // Least-connections: a tie, then not.
    let view = explain("10.1.0.2", 80);
    assert!(view["backend"].is_null() && view["why"].as_str().expect("text").contains("by lot"), "{view}");
    let two = [open(80), open(80)];
    let view = explain("10.1.0.2", 80);
    assert_eq!(named(&view), Some(open(80).backend), "{view}");
    let pinned = explain(&two[0].stream.local_addr().expect("an address").to_string(), 80);
    assert!(pinned["why"].as_str().expect("text").contains("pinned"), "{pinned}");
    assert!(
        pinned["backend"]
            .as_str()
            .expect("a name")
            .contains(&targets[two[0].backend[1..].parse::<usize>().expect("a number")])
    );

    // Consistent hashing: by port; foretold, then done.
    for port in 50_001..50_011u16 {
        let view = explain(&format!("10.1.0.2:{port}"), 81);
        let from = std::net::SocketAddr::from(([10, 1, 0, 2], port));
        let conn = net.client.run(|| Conn::open_from(from, at(&V4.vip(0), 81)).expect("answered"));
        assert_eq!(named(&view), Some(conn.backend), "{view}");
    }

    // Affinity.
    let held = open(82);
    let view = explain("10.1.0.2", 82);
    assert_eq!(named(&view), Some(held.backend.clone()), "{view}");
    assert!(view["why"].as_str().expect("text").contains("affinity"), "{view}");
    agent.done(&[
        "backend",
        "drain",
        "bound",
        &targets[held.backend[1..].parse::<usize>().expect("a number")],
    ]);
    let view = explain("10.1.0.2", 82);
    assert_ne!(named(&view), Some(held.backend), "{view}");
    assert!(view["candidates"].as_array().expect("all").iter().any(|c| c["note"] == "draining"), "{view}");

    for (args, code, text) in [
        (["explain", "10.1.0.2", "10.9.9.9:80"], 1, "no service is at 10.9.9.9:80"),
        (["explain", "fd00::1", "10.96.0.10:80"], 1, "not of one family"),
        (["explain", "somebody", "10.96.0.10:80"], 1, "client \"somebody\""),
    ] {
        let out = agent.cli(&args);
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(text), "{out:?}");
    }
}

#[test]
fn durations_are_those_that_clients_measured() {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0), V4.backend(1)], "");
    let _agent = Agent::start(&net.node, &config);
    let measured: Vec<f64> = net.client.run(|| {
        std::thread::scope(|scope| {
            let one = |i: u64| {
                move || {
                    let began = Instant::now();
                    let mut conn = Conn::open(at(&V4.vip(0), 80)).expect("answered");
                    eventually::pass(Duration::from_millis(200 * i));
                    conn.exchange(100).expect("open");
                    conn.reset().expect("a RST");
                    began.elapsed().as_secs_f64()
                }
            };
            let threads: Vec<_> = (0..24).map(|i| scope.spawn(one(i))).collect();
            threads.into_iter().map(|t| t.join().expect("whole")).collect()
        })
    });
    let page = eventually("all have ended", Duration::from_secs(20), || {
        let page = net.node.must("curl -sf http://127.0.0.1:9479/metrics");
        if page.contains("flowpin_connection_duration_seconds_count{service=\"app\"} 24") {
            Ok(page)
        } else {
            Err(page)
        }
    });
    let value = |start: &str| -> f64 {
        let line = page.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {page}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let sum = value("flowpin_connection_duration_seconds_sum{service=\"app\"}");
    let wanted: f64 = measured.iter().sum();
    assert!((sum - wanted).abs() < 24.0 * 0.12, "{sum} by the datapath, {wanted} by the clients");
    // Cumulative, at bounds that are a unit of the stamps away from any duration here or more.
    for bound in ["0.512", "1.024", "2.048", "4.096"] {
        let found =
            value(&format!("flowpin_connection_duration_seconds_bucket{{service=\"app\",le=\"{bound}\"}}"));
        let limit: f64 = bound.parse().expect("a number");
        let (least, most) =
            [limit - 0.15, limit + 0.15].map(|l| measured.iter().filter(|m| **m <= l).count() as f64).into();
        assert!((least..=most).contains(&found), "{bound}: {found}, not {least} to {most}");
    }
}
