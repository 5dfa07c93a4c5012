//! Promise: what others' config files do, Flowpin's do in their place. Sixteen of them are valid, five are tried with real traffic.

mod datagrams;
mod direct;
mod network;
mod patroni;
mod redis;
mod texts;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{binary, interfaces},
    client::{Conn, at},
    eventually,
    paths::workspace,
    program::finish,
    topology::Family::V4,
};
use serde_json::Value;

/// More than any check needs to come to its conclusion on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// A translation's text. `changes`: words of it, and what stands for them in the test, such as times that a test can wait for.
fn text(name: &str, changes: &[(&str, &str)]) -> String {
    let translation = texts::ALL.iter().find(|one| one.name == name).expect("a translation");
    changes.iter().fold(translation.text.to_string(), |text, (was, is)| {
        assert!(text.contains(was), "{name} doesn't say {was}");
        text.replace(was, is)
    })
}

fn start(net: &Net, services: &str) -> Agent {
    Agent::start(&net.node, &(interfaces(&[("c0", "tc"), ("b*", "tc")]) + services))
}

/// Waits until these backends of a service are healthy, and no others.
fn await_healthy(agent: &Agent, service: &str, wanted: &[&str]) {
    eventually("the checks' conclusion", LIMIT, || {
        let list = agent.json(&["backend", "list", service]);
        let all = list.as_array().expect("a list").iter();
        let mut healthy: Vec<&str> =
            all.filter(|b| b["healthy"] == true).filter_map(|b| b["address"].as_str()).collect();
        healthy.sort_unstable();
        if healthy == wanted { Ok(()) } else { Err(list.to_string()) }
    });
}

fn vip(port: u16) -> SocketAddr {
    at(&V4.vip(0), port)
}

/// So many new connections of the client to a port of the VIP.
fn open(net: &Net, port: u16, count: usize) -> Vec<Conn> {
    net.client.run(|| (0..count).map(|_| Conn::open(vip(port)).expect("somebody answers")).collect())
}

fn on(conns: &[Conn], name: &str) -> usize {
    conns.iter().filter(|conn| conn.backend == name).count()
}

/// All of them are well.
fn go_on(conns: &mut [Conn]) {
    conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("what is open goes on"));
}

/// All of them are reset.
fn are_cut(conns: Vec<Conn>) {
    for mut conn in conns {
        let end = conn.stream.read(&mut [0]);
        assert_eq!(end.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "at {}", conn.backend);
    }
}

/// A web server that answers a request for a path with a status.
fn web(ns: &Ns, port: u16, status: impl Fn(&str) -> u16 + Send + 'static) {
    let listener = ns.run(|| TcpListener::bind(("::", port))).expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let status = status(first.split(' ').nth(1).unwrap_or_default());
            // A check that has gone meanwhile is no matter.
            let _ = write!(&stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
}

#[test]
fn each_is_valid_and_pages_say_what_it_has_instead() {
    let dir = tempfile::TempDir::new().expect("a directory");
    for translation in &texts::ALL {
        let path = dir.path().join(format!("{}.toml", translation.name));
        std::fs::write(&path, interfaces(&[("lo", "tc")]) + translation.text).expect("a file");
        let mut check = std::process::Command::new(binary());
        let said = finish(check.arg("check").arg("--config").arg(&path).args(["-o", "json"]));
        let report: Value = serde_json::from_str(&said).expect("JSON");
        let services = report["services"].as_array().expect("services");
        let backends = services.iter().filter_map(|s| s["backends"].as_array()).map(Vec::len).sum();
        assert_eq!((services.len(), backends), translation.has, "{}: {said}", translation.name);
        let warnings = report["warnings"].as_array().expect("warnings").iter().filter_map(Value::as_str);
        // Of the routes of wherever this runs nothing is asked.
        assert_eq!(warnings.filter(|w| !w.starts_with("route: ")).count(), 0, "{}: {said}", translation.name);
        for (page, words) in translation.instead {
            let file = format!("docs/migration/{page}.md");
            let text = std::fs::read_to_string(workspace().join(&file)).expect(&file);
            // Where a line ends is no matter.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(words), "{}: {file} doesn't say: {words}", translation.name);
        }
    }
}
