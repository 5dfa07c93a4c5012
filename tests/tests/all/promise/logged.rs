//! Promise: each balanced connection that ends has one line in the log, with what is to be known of it, whatever happens to the file
//! meanwhile; what has none is counted and said.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{Array, Map, MapData};
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::{PLEASE_CLOSE, PLEASE_RESET, Server},
    topology::Family::{self, V4, V6},
    udp,
};
use lb_common::abi::{event::listen, maps};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
/// A tick of 100 Hz at either end.
const TICKS: Duration = Duration::from_millis(20);
/// Bytes of a connection's headers and handshakes, at most.
const HEADERS: u64 = 4000;

/// An agent that keeps a log, with a backend.
struct Scene {
    net: Net,
    agent: Agent,
    dir: TempDir,
    _server: Server,
}

fn config(file: &Path, services: &str) -> String {
    let log = format!("[log]\nconnections = \"{}\"\n", file.display());
    log + &interfaces(&[("c0", "tc"), ("b0", "tc")]) + services
}

/// TCP at port 80 and UDP at 53 for both families; UDP flows are forgotten in a second.
fn services() -> String {
    let of = |family: Family| {
        let name = if family == V4 { "four" } else { "six" };
        let more = "timeouts = { udp = \"1s\" }\n";
        service(name, &family.vip(0), "\"80/tcp\", \"53/udp\"", &[family.backend(0)], more)
    };
    of(V4) + &of(V6)
}

impl Scene {
    fn new() -> Self {
        let (net, dir) = (Net::new(1), TempDir::new().expect("a directory"));
        let server = Server::start(&net.backends[0], "b0", [80]);
        udp::echo(&net.backends[0], 53);
        let agent = Agent::start(&net.node, &config(&dir.path().join("c.log"), &services()));
        let scene = Self { net, agent, dir, _server: server };
        eventually("records are wanted", LIMIT, || scene.wanted().then_some(()).ok_or_else(String::new));
        scene
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("c.log")
    }

    /// Does the datapath tell of flows that end, and of those alone?
    fn wanted(&self) -> bool {
        let pin = self.agent.pins().join("maps").join(maps::LISTEN);
        let wanted: Array<_, u32> =
            Map::Array(MapData::from_pin(pin).expect("the pin")).try_into().expect("an array");
        wanted.get(&listen::WANTED, 0).is_ok_and(|wanted| wanted == listen::ENDED)
    }

    /// What the metrics page says of records.
    fn count(&self, result: &str) -> u64 {
        let page = page(&self.net);
        let head = format!("flowpin_connection_log_records_total{{result=\"{result}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&head));
        line.unwrap_or_else(|| panic!("{head}: {page}")).parse().expect("a number")
    }
}

fn page(net: &Net) -> String {
    net.node.must("curl -sf http://127.0.0.1:9479/metrics")
}

/// A file's lines.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Connections among lines, by the client's port.
fn by_port(lines: &[Value]) -> HashMap<u16, &Value> {
    let port = |line: &Value| line["client_port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let found: HashMap<u16, &Value> = lines.iter().filter_map(|line| Some((port(line)?, line))).collect();
    assert_eq!(found.len(), lines.len(), "one line for each: {lines:?}");
    found
}

/// A connection that has ended, as the client knows it.
struct Done {
    from: SocketAddr,
    family: Family,
    bytes: u64,
    end: &'static str,
    began: Instant,
    /// It was open for so long at least.
    open: Duration,
}

/// Does something over a connection, and ends it.
fn connection(family: Family, end: &'static str, act: impl FnOnce(&mut Conn)) -> Done {
    let began = Instant::now();
    let mut conn = Conn::open(at(&family.vip(0), 80)).expect("answered");
    let (from, answered) = (conn.stream.local_addr().expect("an address"), Instant::now());
    let bytes = 20_000;
    conn.exchange(bytes).expect("echoed");
    act(&mut conn);
    let open = if end == "closed" { Duration::ZERO } else { answered.elapsed() };
    if end == "client_reset" {
        conn.reset().expect("reset");
    } else {
        drop(conn);
    }
    Done { from, family, bytes: bytes as u64, end, began, open }
}

/// Waits until the other side has ended it.
fn ended(conn: &mut Conn) {
    let _ = conn.stream.read(&mut [0; 1]);
}

fn ask(conn: &mut Conn, byte: u8) {
    conn.stream.write_all(&[byte]).expect("asked");
    ended(conn);
}

fn datagrams(family: Family) -> Done {
    let began = Instant::now();
    let socket = udp::connect(at(&family.vip(0), 53));
    let sent = (0..5).map(|n| udp::exchange(&socket, n, 500)).sum::<usize>();
    let bytes = 500 * (5 + sent as u64);
    let from = socket.local_addr().expect("an address");
    Done { from, family, bytes, end: "expired", began, open: began.elapsed() }
}

impl Done {
    fn check(&self, line: &Value) {
        let Self { from, family, bytes, end, began, open } = self;
        let port = if *end == "expired" { 53 } else { 80 };
        let text = |field: &str| line[field].as_str().unwrap_or_default();
        let number = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("{field}: {line}"));
        assert_eq!(text("client_ip"), from.ip().to_string(), "{line}");
        assert_eq!(text("frontend"), at(&family.vip(0), port).to_string(), "{line}");
        assert_eq!(text("backend"), at(&family.backend(0), port).to_string(), "{line}");
        assert_eq!(text("service"), if *family == V4 { "four" } else { "six" }, "{line}");
        assert_eq!(text("protocol"), if port == 53 { "udp" } else { "tcp" }, "{line}");
        assert_eq!(text("termination"), *end, "{line}");
        for field in ["bytes_in", "bytes_out"] {
            assert!((*bytes..bytes + HEADERS).contains(&number(field)), "{field} of {bytes}: {line}");
        }
        let lasted = Duration::from_millis(number("duration_ms"));
        let most = began.elapsed();
        assert!(lasted + TICKS >= *open && lasted <= most + TICKS, "{open:?} to {most:?}: {line}");
        let at = |field: &str| humantime::parse_rfc3339(text(field)).expect("a time");
        assert_eq!(at("time").duration_since(at("accepted")).expect("in this order"), lasted, "{line}");
        assert!(at("time").elapsed().is_ok_and(|since| since < LIMIT * 2), "{line}");
        assert_eq!(number("backend_connections"), 0, "{line}");
    }
}

#[test]
fn each_connection_has_a_line_that_says_how_it_was() {
    let scene = Scene::new();
    let has_lines = |count: usize| {
        eventually("it has a line", LIMIT, || {
            let there = lines(&scene.file()).len();
            if there == count { Ok(()) } else { Err(format!("{there} of {count} lines")) }
        });
    };
    let mut done = Vec::new();
    for family in [V4, V6] {
        for end in ["finished", "backend_first", "client_reset", "backend_reset", "closed"] {
            let act = |conn: &mut Conn| match end {
                "backend_first" => ask(conn, PLEASE_CLOSE),
                "backend_reset" => ask(conn, PLEASE_RESET),
                "closed" => {
                    let client = conn.stream.local_addr().expect("an address").ip().to_string();
                    scene.agent.done(&["connection", "close", "--client", &client]);
                    ended(conn);
                }
                _ => {}
            };
            let word = if end == "backend_first" { "finished" } else { end };
            done.push(scene.net.client.run(|| connection(family, word, act)));
            // One by one, so that the backend's count of what is left open is known.
            has_lines(done.len());
        }
        done.push(scene.net.client.run(|| datagrams(family)));
        has_lines(done.len());
    }
    let all = lines(&scene.file());
    let found = by_port(&all);
    for one in &done {
        one.check(found[&one.from.port()]);
    }
    assert_eq!((scene.count("written"), scene.count("lost")), (done.len() as u64, 0));
    // One that was open for a while says so.
    let wall = SystemTime::now();
    let long = scene.net.client.run(|| connection(V4, "finished", |_| drop(scene.agent.sweeps(2))));
    let line = eventually("it has a line", LIMIT, || {
        let own = |line: &Value| line["client_port"] == long.from.port();
        lines(&scene.file()).into_iter().find(own).ok_or_else(String::new)
    });
    long.check(&line);
    let accepted = humantime::parse_rfc3339(line["accepted"].as_str().expect("a text")).expect("a time");
    assert!(accepted + TICKS >= wall, "{line}");
}

#[test]
fn rotation_and_restarts_lose_no_line() {
    let mut scene = Scene::new();
    let mut ports = Vec::new();
    let mut some = |scene: &Scene, count: usize| {
        scene.net.client.run(|| {
            for _ in 0..count {
                ports.push(connection(V4, "finished", |_| {}).from.port());
            }
        });
    };
    let old = |n: u32| scene.dir.path().join(format!("c.log.{n}"));
    let (first, second) = (old(1), old(2));
    some(&scene, 50);
    fs::rename(scene.file(), &first).expect("renamed");
    some(&scene, 50);
    scene.agent.signal(Signal::SIGHUP);
    some(&scene, 50);
    eventually("a new file is there", LIMIT, || {
        fs::metadata(scene.file()).map(drop).map_err(|e| e.to_string())
    });
    fs::rename(scene.file(), &second).expect("renamed");
    // With what it has taken and what is still in the kernel.
    scene.agent.end(Signal::SIGTERM);
    some(&scene, 50);
    scene.agent.up();
    some(&scene, 50);
    let all = eventually("all have lines", LIMIT, || {
        let all: Vec<Value> = [&first, &second, &scene.file()].iter().flat_map(|file| lines(file)).collect();
        if all.len() == ports.len() { Ok(all) } else { Err(format!("{} of {}", all.len(), ports.len())) }
    });
    let found = by_port(&all);
    assert!(ports.iter().all(|port| found.contains_key(port)), "{ports:?}");
    assert_eq!(scene.agent.json(&["status"])["state"], "ok");
}

#[test]
fn a_full_disk_is_said_and_what_finds_no_room_is_counted() {
    const PORTS: std::ops::Range<u16> = 10_000..12_500;
    const SOCKETS: usize = 40;
    let (net, dir) = (Net::new(1), TempDir::new().expect("a directory"));
    let ports = format!("\"{}-{}/udp\"", PORTS.start, PORTS.end - 1);
    let more = "timeouts = { udp = \"1s\" }\n";
    let services = service("app", &V4.vip(0), &ports, &[V4.backend(0)], more);
    let with = |file: &Path| "[conntrack]\nmax_flows = 262144\n".to_string() + &config(file, &services);
    let agent = Agent::start(&net.node, &with(Path::new("/dev/full")));
    for _ in 0..SOCKETS {
        udp::to_each_port(&net.client, &V4.vip(0), PORTS);
        // Everything else goes on.
        let asked = Instant::now();
        agent.json(&["status"]);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
    let total = eventually("all are over", LIMIT, || {
        let backend = agent.json(&["service", "show", "app"])["backends"][0].clone();
        match (backend["active_connections"].as_u64(), backend["total_connections"].as_u64()) {
            (Some(0), Some(total)) => Ok(total),
            other => Err(format!("{other:?}")),
        }
    });
    let problems = eventually("the status says both", LIMIT, || {
        let problems = agent.json(&["status"])["problems"].to_string();
        let both = problems.contains("No space left on device") && problems.contains("have no line in it");
        if both { Ok(problems) } else { Err(problems) }
    });
    println!("{total} connections: {problems}");
    let file = dir.path().join("c.log");
    agent.write_config(&with(&file));
    agent.signal(Signal::SIGHUP);
    let (there, lost) = eventually("all have lines, or are said to have none", LIMIT, || {
        let all = lines(&file);
        let lost: u64 = all.iter().filter_map(|line| line["lost"].as_u64()).sum();
        let there = all.iter().filter(|line| line["lost"].is_null()).count() as u64;
        if there + lost == total { Ok((there, lost)) } else { Err(format!("{there} and {lost} of {total}")) }
    });
    println!("{there} lines, {lost} lost");
    assert!(lost > 0 && there > 50_000, "{there} and {lost}");
    let page = page(&net);
    for (result, count) in [("written", there), ("lost", lost)] {
        let line = format!("flowpin_connection_log_records_total{{result=\"{result}\"}} {count}\n");
        assert!(page.contains(&line), "{line}");
    }
    let problems = agent.json(&["status"])["problems"].to_string();
    assert!(!problems.contains("No space left") && problems.contains("have no line in it"), "{problems}");
}
