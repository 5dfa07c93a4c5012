//! Promise: a task of the agent's that panics is reported by its name, counted, and started again, and then does what it did. The
//! version that tests take for a later one can be provoked to panic; nothing else is asked of it here.

use std::{collections::BTreeSet, io::Write, process::Stdio, time::Duration};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, next_version, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// Tasks by the metrics page, and how often each was started again; nothing while nobody answers.
fn restarts(net: &Net) -> Option<Vec<(String, u64)>> {
    let out = net.node.command("curl").args(["-sf", "http://127.0.0.1:9479/metrics"]).output().expect("curl");
    let page = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = |line: &str| {
        let rest = line.strip_prefix("flowpin_task_restarts_total{task=\"")?;
        let (task, count) = rest.split_once("\"} ")?;
        Some((task.to_string(), count.parse().expect("a count")))
    };
    out.status.success().then(|| page.lines().filter_map(line).collect())
}

#[test]
fn each_comes_back() {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let checks = "health = { type = \"tcp\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }\n\
        on_deadline = \"reset\"";
    let targets = [V4.backend(0), V4.backend(1)];
    let file = |more: &str| {
        interfaces(&[("c0", "tc"), ("b*", "tc")])
            + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, checks)
            + more
    };
    let mut agent = Agent::prepare(&net.node, &file(""));
    agent.binary = next_version();
    let told = agent.config().with_file_name("panic");
    agent.env = vec![
        ("FLOWPIN_PANIC".into(), told.display().to_string()),
        ("RUST_LOG".into(), "info,flowpin::flows=debug".into()),
    ];
    agent.up();
    let mut conn = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("answered"));
    let tasks: BTreeSet<String> = restarts(&net).expect("a page").into_iter().map(|(task, _)| task).collect();
    println!("{tasks:?}");
    for known in [
        "api",
        "metrics",
        "netlink",
        "sweeper",
        "health checks",
        "deadlines",
        "events",
        "upkeep",
        "closer",
        "rebalancing",
    ] {
        assert!(tasks.contains(known), "{known}: {tasks:?}");
    }
    for task in &tasks {
        let aside = told.with_extension("new");
        std::fs::File::create(&aside).and_then(|mut file| file.write_all(task.as_bytes())).expect("written");
        std::fs::rename(&aside, &told).expect("told");
        eventually(&format!("\"{task}\" is counted"), LIMIT, || match restarts(&net) {
            Some(all) if all.iter().any(|(name, count)| name == task && *count == 1) => Ok(()),
            all => Err(format!("{all:?}\n{}", agent.log())),
        });
        // Once, and of no other.
        let log = agent.log();
        assert_eq!(
            log.matches(&format!("task \"{task}\" panicked: provoked; it is started again")).count(),
            1,
            "{log}"
        );
        eventually(&format!("\"{task}\" is in the status"), LIMIT, || {
            let out = agent.cli(&["status", "-o", "json"]);
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let said = text.contains(&format!("task \\\"{task}\\\" has been started again once"));
            if said { Ok(()) } else { Err(text) }
        });
        conn.exchange(100).expect(task);
    }
    let all = restarts(&net).expect("a page");
    assert!(all.iter().all(|(_, count)| *count == 1) && all.len() == tasks.len(), "{all:?}");
    // Each rests a second; then all do what they did.
    agent.sweeps(2);
    let first = |agent: &Agent| agent.json(&["service", "show", "app"])["backends"][0].clone();
    let mut follower = agent.spawn_cli(&["events", "-f", "-o", "json"], Stdio::null());
    net.node.ip("link set b0 down");
    eventually("health checks are made", LIMIT, || {
        if first(&agent)["healthy"] == false { Ok(()) } else { Err("healthy".into()) }
    });
    net.node.ip("link set b0 up");
    eventually("and made again", LIMIT, || {
        if first(&agent)["healthy"] == true { Ok(()) } else { Err("unhealthy".into()) }
    });
    agent.write_config(&file(&service("more", &V4.vip(1), "\"80/tcp\"", &targets, "")));
    agent.signal(Signal::SIGHUP);
    eventually("the file is read", LIMIT, || match agent.json(&["status"])["services"].as_u64() {
        Some(2) => Ok(()),
        n => Err(format!("{n:?}")),
    });
    agent.done(&["backend", "drain", "app", &targets[0], "--deadline", "1s", "--wait"]);
    agent.done(&["backend", "drain", "app", &targets[1], "--deadline", "1s", "--wait"]);
    assert_eq!(agent.active("app"), [0, 0]);
    assert!(conn.exchange(100).is_err(), "its deadline has passed");
    std::fs::remove_file(agent.pins().join("maps/BACKENDS")).expect("a pin");
    eventually("pins are looked after", LIMIT, || {
        if agent.pins().join("maps/BACKENDS").exists() { Ok(()) } else { Err("missing".into()) }
    });
    follower.kill().expect("it follows");
    follower.wait().expect("it ends");
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
