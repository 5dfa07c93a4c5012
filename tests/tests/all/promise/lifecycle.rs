//! Promise: bad input gets one clear line and changes nothing; a large configuration is in force in seconds, a change in
//! milliseconds.

use std::{
    fmt::Write,
    process::Command,
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{binary, interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use lb_common::abi::{limits::MAX_SERVICES, table::Chunk};
use nix::sys::signal::Signal;

#[test]
fn bad_input_on_the_command_line() {
    let net = Net::new(1);
    let file = service("declared", &V4.vip(1), "\"80/tcp\"", &[V4.backend(0)], "");
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "tc")]) + &file));
    agent.done(&["service", "add", "app", "--vip", "10.96.0.10", "--port", "80/tcp"]);
    agent.done(&["backend", "add", "app", "10.2.0.2:8080"]);
    let before = agent.json(&["service", "list"]);
    for (args, expect) in [
        ("service add x --vip 10.96.0 --port 80/tcp", "\"10.96.0\" is not an address"),
        ("service add x --vip 10.96.0.20 --port 0/tcp", "port 0 is not a port"),
        ("service add x --vip 10.96.0.20 --port 9-8/tcp", "runs backwards"),
        ("service add x --vip 10.96.0.20 --port 80", "\"80\" is not a port"),
        ("service add x --vip 10.96.0.10 --port 70-90/tcp", "\"app\" and \"x\" overlap at 10.96.0.10"),
        ("service add app --vip 10.96.0.20 --port 80/tcp", "\"app\" exists"),
        ("service remove nobody", "no service \"nobody\""),
        ("service remove declared", "is declared in"),
        ("backend add app fd00::1", "not of the VIP's family"),
        ("backend add app 10.2.0.3 --weight -1", "weight -1"),
        ("backend add app 10.2.0.3 --weight 65536", "weight 65536"),
        ("backend add app 10.2.0.3 --max-connections 0", "max_connections 0"),
        ("backend add app 10.2.0.2:8080", "has backend 10.2.0.2:8080 already"),
        ("backend add app 10.96.0.10:80", "is the VIP of service"),
        ("backend add app nonsense", "\"nonsense\" is not an address"),
        ("backend add nobody 10.2.0.3", "no service \"nobody\""),
        ("backend drain app 10.2.0.9", "has no backend 10.2.0.9"),
        ("backend undrain app 10.2.0.2:8080", "is not draining"),
        ("backend remove declared 10.2.0.2", "is declared in"),
        ("connection list --client nonsense", "\"nonsense\" is neither"),
    ] {
        let out = agent.cli(&args.split(' ').collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args}: {text}");
        assert!(text.contains(expect) && text.lines().count() == 1, "{args}: {text}");
    }
    assert_eq!(agent.json(&["service", "list"]), before, "nothing has changed");
    for wrong in [
        "service add x",
        "service add x --vip 10.96.0.20 --port 80/tcp --algorithm random",
        "connection list --state open",
    ] {
        let out = agent.cli(&wrong.split(' ').collect::<Vec<_>>());
        assert_eq!(out.status.code(), Some(2), "wrong usage: {wrong}");
    }
    let nobody =
        Command::new(binary()).args(["--api-socket", "/nonexistent.sock", "status"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3), "nobody there");
}

#[test]
fn a_reload_with_an_error_changes_nothing() {
    let net = Net::new(1);
    let rules = interfaces(&[("c0", "tc")]);
    let good = service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    let agent = Agent::start(&net.node, &(rules.clone() + &good));
    let list = || {
        let mut list = agent.json(&["service", "list"]);
        let said = list[0].as_object_mut().expect("a service").remove("rejected");
        (list, said.is_some())
    };
    let before = list();
    assert!(!before.1);
    agent.write_config(&(rules.clone() + &good + "wieght = 3\n"));
    agent.signal(Signal::SIGHUP);
    eventually("the refusal is in the status", Duration::from_secs(60), || {
        let status = agent.json(&["status"]);
        let text = status["problems"].to_string();
        if text.contains("unknown field `wieght`") { Ok(()) } else { Err(text) }
    });
    assert_eq!(
        list(),
        (before.0, true),
        "it is said there that something is refused, and nothing else has changed"
    );
    agent.write_config(&(rules + &good));
    agent.signal(Signal::SIGHUP);
    eventually("a good file ends it", Duration::from_secs(60), || {
        let status = agent.json(&["status"]);
        if status["state"] == "ok" { Ok(()) } else { Err(status["problems"].to_string()) }
    });
}

/// The kernel gives up a program that it verifies when a signal comes for whoever loads it.
#[test]
fn signals_while_programs_are_loaded() {
    let net = Net::new(2);
    let rules = interfaces(&[("c0", "xdp"), ("b0", "tc"), ("b1", "fast")]);
    let app = service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    let mut agent = Agent::prepare(&net.node, &(rules + &app));
    agent.spawn(&[]);
    agent.answers();
    let mut sent = 0;
    eventually("all is attached", Duration::from_secs(120), || {
        let attached = agent.log().matches("attached interface=").count();
        if attached < 3 {
            agent.signal(Signal::SIGHUP);
            sent += 1;
            return Err(format!("{attached} of 3"));
        }
        Ok(())
    });
    assert!(sent > 3, "{sent} signals");
    let log = agent.log();
    assert!(!log.contains("refused by this kernel") && !log.contains("not attached"), "{log}");
}

#[test]
fn bad_files_and_places() {
    let net = Net::new(1);
    let check = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, text).unwrap();
        let out = Command::new(binary()).arg("check").arg("--config").arg(&path).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let services = |n: u32| {
        (0..n).fold(String::new(), |mut s, i| {
            let _ = writeln!(
                s,
                "[[service]]\nname='s{i}'\nvip='10.100.{}.{}'\nports=['80/tcp']",
                i / 256,
                i % 256
            );
            s
        })
    };
    assert_eq!(check(&services(MAX_SERVICES)).0, Some(0));
    let (code, text) = check(&services(MAX_SERVICES + 1));
    assert_eq!(code, Some(1));
    assert!(text.contains("16001 services are too many; the limit is 16000"), "{text}");

    let mut agent = Agent::prepare(&net.node, &interfaces(&[("nosuch0", "tc")]));
    agent.spawn(&[]);
    eventually("a missing interface is a problem, not a failure", Duration::from_secs(20), || {
        let text = String::from_utf8_lossy(&agent.cli(&["status"]).stdout).into_owned();
        if text.contains("nosuch0: there is no such interface") { Ok(()) } else { Err(text) }
    });
    net.node.ip("link add nosuch0 type veth peer name nosuch1");
    eventually("and ends when it appears", Duration::from_secs(60), || {
        if agent.cli(&["status"]).status.success() { Ok(()) } else { Err("degraded".into()) }
    });
}

#[test]
fn half_a_state_file_is_kept_aside_and_reported() {
    let net = Net::new(1);
    let mut agent = Agent::start(&net.node, &interfaces(&[("c0", "tc")]));
    agent.done(&["service", "add", "app", "--vip", "10.96.0.10", "--port", "80/tcp"]);
    agent.end(Signal::SIGKILL);
    let whole = std::fs::read(agent.state()).unwrap();
    std::fs::write(agent.state(), &whole[..whole.len() / 2]).unwrap();
    agent.spawn(&[]);
    let status = eventually("the agent starts", Duration::from_secs(20), || {
        let out = agent.cli(&["status", "-o", "json"]);
        serde_json::from_slice::<serde_json::Value>(&out.stdout).map_err(|e| e.to_string())
    });
    assert!(status["problems"].to_string().contains("state.json.corrupt-"), "{status}");
    agent.end(Signal::SIGTERM);
    agent.up();
}

#[test]
fn what_the_command_line_added_survives() {
    let net = Net::new(1);
    let mut agent = Agent::start(&net.node, &interfaces(&[("c0", "tc")]));
    agent.done(&[
        "svc",
        "add",
        "ns/app",
        "--vip",
        "fd96::10",
        "--port",
        "80/tcp",
        "--algorithm",
        "consistent-hash",
    ]);
    agent.done(&["be", "add", "ns/app", "[fd02::2]:8080", "--weight", "3", "--max-connections", "9"]);
    agent.done(&["be", "drain", "ns/app", "[fd02::2]:8080", "--deadline", "15m"]);
    let shape = |agent: &Agent| {
        let mut view = agent.json(&["service", "show", "ns/app"]);
        let backend = view["backends"][0].as_object_mut().expect("a backend");
        // Time goes on, and how many connections there were when it began isn't kept.
        for key in ["drain_deadline_seconds", "drain_seconds", "drain_from"] {
            backend.remove(key);
        }
        view
    };
    let before = shape(&agent);
    assert_eq!(before["backends"][0]["state"], "drained");
    agent.end(Signal::SIGKILL);
    agent.up();
    assert_eq!(shape(&agent), before);
}

#[test]
fn without_permission_or_bpffs() {
    let net = Net::new(1);
    let agent = Agent::prepare(&net.node, "");
    let nobody = net
        .node
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(binary())
        .arg("agent")
        .env("TMPDIR", "/tmp")
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let elsewhere = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let pins = agent.pins().display().to_string();
    std::fs::write(agent.config(), text.replace(&pins, elsewhere.path().to_str().unwrap())).unwrap();
    let out = net
        .node
        .command(binary().to_str().unwrap())
        .arg("agent")
        .arg("--config")
        .arg(agent.config())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("is not on a BPF file system; mount one"), "{text}");
    // Root without the capabilities: one line that names them.
    let bare = Agent::prepare(&net.node, "");
    let out = net
        .node
        .command("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(binary())
        .args(["agent", "--config"])
        .arg(bare.config())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no permission for BPF; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        "{text}"
    );
}

#[test]
fn two_nodes_build_the_same_table() {
    let table = |order: &[usize]| {
        let ns = Ns::new("t");
        let agent = Agent::start(&ns, "");
        agent.done(&[
            "service",
            "add",
            "app",
            "--vip",
            "10.96.0.10",
            "--port",
            "80/tcp",
            "--algorithm",
            "consistent-hash",
        ]);
        for i in order {
            agent.done(&["backend", "add", "app", &V4.backend(*i)]);
        }
        // Which id a backend has is a node's own affair: compare names.
        let backends = aya::maps::MapData::from_pin(agent.pins().join("maps/BACKENDS")).unwrap();
        let backends: aya::maps::Array<_, lb_common::abi::Backend> =
            aya::maps::Map::Array(backends).try_into().unwrap();
        let tables = aya::maps::MapData::from_pin(agent.pins().join("maps/TABLES")).unwrap();
        let tables: aya::maps::ArrayOfMaps<_, aya::maps::Array<aya::maps::MapData, Chunk>> =
            aya::maps::Map::ArrayOfMaps(tables).try_into().unwrap();
        let table = tables.get(&0, 0).unwrap();
        let words: Vec<u32> = (0..table.len()).flat_map(|i| table.get(&i, 0).unwrap().0).collect();
        let slots = &words[1..=words[0] as usize];
        slots.iter().map(|id| backends.get(id, 0).unwrap().address().unwrap()).collect::<Vec<_>>()
    };
    let one = table(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(one.len(), 16_411);
    assert!(one == table(&[7, 3, 9, 0, 5, 1, 8, 2, 6, 4]), "the tables differ");
}

#[test]
fn ten_thousand_services() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let mut config = interfaces(&[("c0", "tc"), ("b0", "tc")]);
    for i in 0..10_000 {
        let vip = format!("10.100.{}.{}", i / 256, i % 256);
        let backends: Vec<String> = (0..10)
            .map(|b| if i == 9_999 && b == 0 { V4.backend(0) } else { format!("10.200.{b}.{}", i % 256) })
            .collect();
        // The last one's only living backend gets everything.
        let backends = if i == 9_999 { backends[..1].to_vec() } else { backends };
        config += &service(&format!("s{i}"), &vip, "\"80/tcp\"", &backends, "");
    }
    let start = Instant::now();
    let agent = Agent::start(&net.node, &config);
    let whole = start.elapsed();
    let log = agent.log();
    let took = log.split("took=").nth(1).and_then(|t| t.split_whitespace().next()).unwrap().to_string();
    net.client.run(|| Conn::open(at("10.100.39.15", 80)).expect("the last service works"));
    let mut times: Vec<f64> = (0..20)
        .map(|i| {
            let start = Instant::now();
            agent.done(&["backend", "add", "s5000", &format!("10.250.0.{}", i + 1)]);
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    // How long it takes is for the benchmarks to say: other work on the machine would be measured here.
    println!("loaded in {took}, ready {whole:?} after start, one backend in {:.1} ms (median)", times[10]);
    let service = agent.json(&["service", "show", "s5000"]);
    assert_eq!(
        service["backends"].as_array().map(Vec::len),
        Some(30),
        "all were added by the time their commands returned"
    );
    assert_eq!(agent.json(&["status"])["backends"], 9_999 * 10 + 1 + 20);
}
