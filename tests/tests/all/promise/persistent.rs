//! Promise: use cases 3 and 5 as users run them. Keep-alive HTTP is even over its servers; thousands of idle connections are closed at the
//! rate asked for; a drain ends; limits hold.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    program::{Program, finish},
    server::Server,
    topology::Family::{self, V4, V6},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

const NGINX: &str = "
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 3600; client_header_timeout 3600;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server { listen 80 backlog=4096; listen [::]:80 backlog=4096; location / { return 200 'hello'; } location = /count { stub_status; } }
}";

fn nginx(ns: &Ns) -> Program {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    finish(std::process::Command::new("chmod").args(["755", path]));
    std::fs::write(Path::new(path).join("conf"), NGINX.replace("{dir}", path)).expect("a file");
    Program::start_in(dir, ns, "nginx", &["-p", "{dir}", "-c", "{dir}/conf", "-e", "{dir}/error.log"])
        .listening(ns, 80)
}

/// Requests that a server has answered, by its own account.
fn answered(ns: &Ns) -> f64 {
    let page = ns.must("curl -sf http://127.0.0.1/count");
    let numbers = page.lines().nth(2).expect("three numbers");
    numbers.split_whitespace().nth(2).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{page}"))
}

fn spread(counts: &[u64]) -> u64 {
    counts.iter().max().expect("some") - counts.iter().min().expect("some")
}

#[test]
fn keep_alive_http_is_even_over_its_servers() {
    let net = Net::new(4);
    let _servers: Vec<Program> = net.backends.iter().map(nginx).collect();
    // Clients that think for 20 ms between requests: with none that don't, the scheduler decides which server answers more.
    // Without the connection that wrk opens beforehand to see whether somebody listens: it counts, and may leave after the others have come.
    let dir = TempDir::new().expect("a directory");
    let script = dir.path().join("think.lua");
    std::fs::write(&script, "function delay() return 20 end\nfunction wrk.connect() return true end")
        .expect("a file");
    for (family, hook) in [(V4, "tc"), (V6, "tc"), (V4, "xdp")] {
        let targets: Vec<String> = (0..4).map(|i| family.backend(i)).collect();
        let timeouts = "timeouts = { idle = \"300s\", client_request = \"60s\", backend_response = \"60s\" }";
        let config = interfaces(&[("c0", hook), ("b*", "tc")])
            + &service("web", &family.vip(0), "\"80/tcp\"", &targets, timeouts);
        let agent = Agent::start(&net.node, &config);
        let host = if family == V4 { V4.vip(0) } else { format!("[{}]", V6.vip(0)) };
        for count in [100, 200] {
            let before: Vec<f64> = net.backends.iter().map(answered).collect();
            let wrk = net
                .client
                .command("wrk")
                .args([
                    "-t2",
                    &format!("-c{count}"),
                    "-d3s",
                    "-H",
                    "Connection: keep-alive",
                    "-s",
                    script.to_str().expect("UTF-8"),
                    &format!("http://{host}/"),
                ])
                .stdout(Stdio::piped())
                .spawn()
                .expect("wrk; scripts/setup installs it");
            eventually("all connections", LIMIT, || {
                let counts = agent.active("web");
                if counts.iter().sum::<u64>() == count { Ok(()) } else { Err(format!("{counts:?}")) }
            });
            let counts = agent.active("web");
            assert!(spread(&counts) <= 1, "{family:?}, {hook}: {counts:?}");
            let out = wrk.wait_with_output().expect("wrk ends");
            let out = String::from_utf8_lossy(&out.stdout);
            assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{out}");
            let requests: Vec<f64> =
                net.backends.iter().map(answered).zip(before).map(|(now, then)| now - then).collect();
            let mean = requests.iter().sum::<f64>() / 4.0;
            assert!(
                requests.iter().all(|r| (r / mean - 1.0).abs() <= 0.05),
                "{family:?}, {hook}, {count}: {requests:?}"
            );
            eventually("all closed", LIMIT, || {
                let counts = agent.active("web");
                if counts.iter().sum::<u64>() == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
            });
        }
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

/// Open TCP sockets of a namespace with this local port.
fn sockets(ns: &Ns, port: u16) -> usize {
    ns.must(&format!("ss -Htn state established sport = :{port}")).lines().count()
}

#[test]
fn ten_thousand_idle_connections_are_closed_at_the_rate_asked_for() {
    let net = Net::new(4);
    let _servers: Vec<Program> = net.backends.iter().map(nginx).collect();
    let bystanders: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [81])).collect();
    let targets: Vec<String> = (0..4).map(|i| V4.backend(i)).collect();
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("ours", &V4.vip(0), "\"80/tcp\"", &targets, "")
        + &service("theirs", &V4.vip(0), "\"81/tcp\"", &targets, "");
    let agent = Agent::start(&net.node, &config);
    let mut ours: Vec<TcpStream> = net.client.run(|| {
        (0..10_000)
            .map(|i| {
                TcpStream::connect_timeout(&at(&V4.vip(0), 80), LIMIT).unwrap_or_else(|e| panic!("{i}: {e}"))
            })
            .collect()
    });
    let mut theirs: Vec<Conn> =
        net.client.run(|| (0..100).map(|_| Conn::open(at(&V4.vip(0), 81)).expect("answered")).collect());
    assert_eq!(agent.active("ours"), [2_500; 4]);
    let began = Instant::now();
    let said = agent.done(&["connection", "close", "--service", "ours", "--rate", "1000"]);
    let took = began.elapsed().as_secs_f64();
    assert!(said.starts_with("10,000 connections closed"), "{said}");
    println!("10,000 connections at 1,000 a second took {took:.2} s");
    assert!(took > 9.9, "faster than was asked for: {took}");
    for stream in &mut ours {
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let end = stream.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
    }
    eventually("the servers' sockets go", LIMIT, || {
        let left: usize = net.backends.iter().map(|ns| sockets(ns, 80)).sum();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    });
    assert_eq!(agent.active("ours"), [0; 4]);
    for conn in &mut theirs {
        conn.exchange(100).expect("nobody asked for this one");
    }
    assert_eq!(bystanders.iter().map(Server::open).sum::<usize>(), 100);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn a_drain_of_five_hundred_ends_whoever_the_agent_is() {
    for restart in [false, true] {
        let net = Net::new(3);
        let _servers: Vec<Server> = net
            .backends
            .iter()
            .enumerate()
            .map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80]))
            .collect();
        let targets: Vec<String> = (0..2).map(|i| V4.backend(i)).collect();
        let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
            + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, "on_deadline = \"reset\"");
        let mut agent = Agent::start(&net.node, &config);
        let open = |n: usize| -> Vec<Conn> {
            net.client.run(|| (0..n).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("answered")).collect())
        };
        let (mut on_b0, mut others): (Vec<Conn>, Vec<Conn>) =
            open(1_000).into_iter().partition(|c| c.backend == "b0");
        assert_eq!(on_b0.len(), 500);
        let drain = ["backend", "drain", "app", &targets[0], "--deadline", "8s", "--wait"];
        let mut wait = agent.spawn_cli(&drain, Stdio::null());
        let view = |agent: &Agent| -> Value {
            let list = agent.json(&["backend", "list", "app"]);
            list.as_array().expect("a list")[0].clone()
        };
        let now = eventually("the drain", LIMIT, || match view(&agent) {
            now if now["state"] == "draining" && now["oldest_seconds"].is_number() => Ok(now),
            now => Err(now.to_string()),
        });
        assert_eq!(now["active_connections"], 500);
        let left = now["drain_deadline_seconds"].as_f64().expect("a deadline");
        assert!(left > 0.0 && left <= 8.0, "{now}");
        // Zero new ones; the count falls as clients leave.
        assert!(open(50).iter().all(|c| c.backend == "b1"));
        on_b0.truncate(300);
        eventually("the count falls", LIMIT, || match view(&agent)["active_connections"].as_u64() {
            Some(300) => Ok(()),
            n => Err(format!("{n:?}")),
        });
        if restart {
            agent.end(Signal::SIGKILL);
            agent.up();
        }
        let status = wait.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "--wait");
        assert_eq!(agent.active("app")[0], 0);
        for conn in &mut on_b0 {
            let end = conn.stream.read(&mut [0]).map_err(|e| e.kind());
            assert_eq!(end, Err(ErrorKind::ConnectionReset));
        }
        for conn in &mut others {
            conn.exchange(100).expect("another backend's");
        }
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

#[test]
fn no_backend_gets_more_than_it_may_whoever_comes_at_once() {
    for (family, hook) in [(V4, "tc"), (V6, "tc"), (V4, "xdp")] {
        rush(family, hook);
    }
}

/// 400 clients at once, room for 50 on each of 4.
fn rush(family: Family, hook: &str) {
    let net = Net::new(4);
    let servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let backends: String = (0..4)
        .map(|i| format!("[[service.backend]]\naddress = \"{}\"\nmax_connections = 50\n", family.backend(i)))
        .collect();
    let config = interfaces(&[("c0", hook), ("b*", "tc")])
        + &service("app", &family.vip(0), "\"80/tcp\"", &[], "")
        + &backends;
    let agent = Agent::start(&net.node, &config);
    let began = Instant::now();
    let results: Vec<std::io::Result<Conn>> = net.client.run(|| {
        std::thread::scope(|scope| {
            let open = || net.client.run(|| Conn::open(at(&family.vip(0), 80)));
            let threads: Vec<_> = (0..400).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|t| t.join().expect("whole")).collect()
        })
    });
    println!("400 clients were told within {:?}", began.elapsed());
    let refused = results
        .iter()
        .filter(|r| r.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused))
        .count();
    let connected = results.iter().filter(|r| r.is_ok()).count();
    assert_eq!((connected, refused), (200, 200));
    assert_eq!(agent.active("app"), [50; 4]);
    assert_eq!(servers.iter().map(|s| s.open()).collect::<Vec<_>>(), [50; 4]);
    assert_eq!(agent.json(&["stats"])["drops"]["backends_full"], 200);
}
