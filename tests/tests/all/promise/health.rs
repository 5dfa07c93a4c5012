//! Promise: who doesn't answer gets nothing new, until he does; who is new or back isn't overrun; and nobody else notices.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    grpc::{Grpc, ServingStatus},
    program,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// More than any check needs to come to its conclusion on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

fn start(net: &Net, more: &str) -> Agent {
    let targets: Vec<String> = (0..net.backends.len()).map(|i| V4.backend(i)).collect();
    let config =
        interfaces(&[("c0", "tc"), ("b*", "tc")]) + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, more);
    Agent::start(&net.node, &config)
}

fn servers(net: &Net) -> Vec<Server> {
    net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect()
}

/// One backend, as the command line shows it.
fn backend(agent: &Agent, number: usize) -> Value {
    let list = agent.json(&["backend", "list", "app"]);
    let all = list.as_array().expect("a list");
    all.iter().find(|b| b["address"] == V4.backend(number)).expect("the backend").clone()
}

fn await_health(agent: &Agent, number: usize, healthy: bool) {
    eventually("the checks' conclusion", LIMIT, || {
        let now = backend(agent, number);
        if now["healthy"] == healthy { Ok(()) } else { Err(now.to_string()) }
    });
}

fn open(net: &Net, count: usize) -> Vec<Conn> {
    net.client.run(|| (0..count).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("somebody answers")).collect())
}

fn on(conns: &[Conn], name: &str) -> usize {
    conns.iter().filter(|c| c.backend == name).count()
}

#[test]
fn a_backend_that_is_gone_gets_nothing_new_until_it_is_back() {
    let net = Net::new(3);
    let _servers = servers(&net);
    let checks = "health = { type = \"tcp\", interval = \"1s\", timeout = \"1s\", rise = 2, fall = 2 }";
    let mut agent = start(&net, checks);
    let mut before = open(&net, 30);
    assert_eq!(["b0", "b1", "b2"].map(|b| on(&before, b)), [10; 3]);

    program::run(&net.backends[1], "iptables", &["-A", "INPUT", "-j", "DROP"]);
    await_health(&agent, 1, false);
    assert!(backend(&agent, 1)["health_check_failures"].as_u64().expect("a number") >= 2);
    let meanwhile = open(&net, 20);
    assert_eq!(["b0", "b1", "b2"].map(|b| on(&meanwhile, b)), [10, 0, 10]);
    net.client.run(|| {
        for conn in before.iter_mut().filter(|c| c.backend != "b1") {
            conn.exchange(1_000).expect("nobody else notices");
        }
    });

    // The next agent knows, before its first check.
    agent.end(Signal::SIGKILL);
    agent.up();
    let later = open(&net, 10);
    assert_eq!(on(&later, "b1"), 0);
    assert_eq!(backend(&agent, 1)["healthy"], false);

    program::run(&net.backends[1], "iptables", &["-F", "INPUT"]);
    await_health(&agent, 1, true);
    let after = open(&net, 5);
    assert_eq!(on(&after, "b1"), 5, "it has the fewest");
    net.client.run(|| {
        for conn in &mut before {
            conn.exchange(1_000).expect("what was open is open, on every backend");
        }
    });
}

/// What to answer the request of this number with.
type Status = Box<dyn FnMut(usize) -> u16 + Send>;

/// A web server that answers the requests of checks as it is told, and counts them.
#[derive(Clone)]
struct Web {
    status: Arc<Mutex<Status>>,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn start(ns: &Ns, status: impl FnMut(usize) -> u16 + Send + 'static) -> Self {
        let web = Self { status: Arc::new(Mutex::new(Box::new(status))), asked: Arc::default() };
        let listener = ns.run(|| TcpListener::bind("0.0.0.0:80")).expect("a port");
        let own = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                for line in lines {
                    if line.is_empty() {
                        break;
                    }
                }
                let known = first == "GET /ready HTTP/1.1";
                let number = own.asked.fetch_add(1, Ordering::SeqCst);
                let status = if known { (own.status.lock().expect("whole"))(number) } else { 404 };
                // A check that has gone meanwhile is no matter.
                let _ =
                    write!(&stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        web
    }

    fn set(&self, status: impl FnMut(usize) -> u16 + Send + 'static) {
        *self.status.lock().expect("whole") = Box::new(status);
    }

    /// Waits until this many more checks came.
    fn checks(&self, more: usize) {
        let wanted = self.asked.load(Ordering::SeqCst) + more;
        eventually("checks", LIMIT, || match self.asked.load(Ordering::SeqCst) {
            now if now >= wanted => Ok(()),
            now => Err(format!("{now} of {wanted}")),
        });
    }
}

#[test]
fn http_checks_want_the_status_that_was_asked_for() {
    let net = Net::new(2);
    let webs: Vec<Web> = net.backends.iter().map(|ns| Web::start(ns, |_| 204)).collect();
    let checks = "health = { type = \"http\", path = \"/ready\", expect = 204, interval = \"1s\", rise = 1, fall = 2 }";
    let agent = start(&net, checks);
    webs[0].checks(3);
    assert_eq!([0, 1].map(|i| backend(&agent, i)["healthy"].as_bool()), [Some(true); 2]);

    // Every other check fails: never two in a row, so never out.
    webs[1].set(|number| if number % 2 == 0 { 503 } else { 204 });
    webs[1].checks(6);
    assert_eq!(backend(&agent, 1)["healthy"], true);
    assert!(backend(&agent, 1)["health_check_failures"].as_u64().expect("a number") >= 2);

    webs[1].set(|_| 200);
    await_health(&agent, 1, false);
    assert!(agent.log().contains("status 200 instead of 204"), "{}", agent.log());
    assert_eq!(backend(&agent, 0)["healthy"], true);
    webs[1].set(|_| 204);
    await_health(&agent, 1, true);
}

#[test]
fn when_all_are_gone_clients_hear_of_it_at_once() {
    let net = Net::new(2);
    // Nobody listens: checks are refused.
    let agent = start(&net, "health = { type = \"tcp\", interval = \"1s\", fall = 1 }");
    await_health(&agent, 0, false);
    await_health(&agent, 1, false);
    net.client.run(|| {
        let began = Instant::now();
        let error = std::net::TcpStream::connect_timeout(&at(&V4.vip(0), 80), LIMIT).expect_err("nobody");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(began.elapsed() < Duration::from_secs(1));
    });
    assert_eq!(agent.json(&["stats"])["drops"]["no_backend"], 1);
}

#[test]
fn a_new_backend_starts_slowly_and_catches_up() {
    const WHOLE: u32 = 20;
    let net = Net::new(3);
    let servers = servers(&net);
    let targets: Vec<String> = (0..2).map(|i| V4.backend(i)).collect();
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, &format!("slow_start = \"{WHOLE}s\""));
    let agent = Agent::start(&net.node, &config);
    let mut held = open(&net, 200);
    assert_eq!([servers[0].open(), servers[1].open()], [100, 100], "no slow start where nobody is ahead");

    let added = Instant::now();
    agent.done(&["backend", "add", "app", &V4.backend(2)]);
    held.extend(open(&net, 60));
    let (now, passed) = (servers[2].open(), added.elapsed());
    // As many for each part of its weight as the others have for all of theirs, and one that got through before.
    let due = 130.0 * (passed.as_secs_f64() + 1.0) / f64::from(WHOLE) + 1.0;
    assert!(now > 0 && (now as f64) <= due, "{now} connections after {passed:?}, {due} were due");
    assert!(now < 60, "it would have taken all 60");

    eventually("catching up", LIMIT, || {
        held.extend(open(&net, 1));
        let counts = agent.active("app");
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let spread = most.zip(least).map_or(u64::MAX, |(most, least)| most - least);
        if spread <= 1 { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    assert!(added.elapsed() > Duration::from_secs(u64::from(WHOLE) / 2), "that was no slow start");
}

/// Insists that all of these are answered sooner or later, whoever has to try again.
fn persistent(net: &Net, count: usize) -> Vec<Conn> {
    let to = at(&V4.vip(0), 80);
    std::thread::scope(|scope| {
        let open = || net.client.run(|| Conn::from_stream(std::net::TcpStream::connect_timeout(&to, LIMIT)?));
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(open)).collect();
        threads.into_iter().filter_map(|t| t.join().expect("whole").ok()).collect()
    })
}

#[test]
fn clients_that_are_refused_or_not_answered_are_a_sign_before_any_check() {
    for (rule, passive) in
        [("REJECT --reject-with tcp-reset", true), ("DROP", true), ("REJECT --reject-with tcp-reset", false)]
    {
        let net = Net::new(2);
        let _servers = servers(&net);
        let more = format!(
            "health = {{ type = \"tcp\", interval = \"1h\", passive = {passive} }}\ntimeouts = {{ half_open = \"1s\" }}"
        );
        let agent = start(&net, &more);
        let mut before = open(&net, 4);
        // What comes in within one look comes in no known order: these were accepted, and long ago.
        agent.sweeps(4);
        // Whoever has the fewest connections draws all new ones: a backend that refuses them, too.
        let new = ["-A", "INPUT", "-p", "tcp", "--syn", "-j"];
        program::run(
            &net.backends[1],
            "iptables",
            &[&new[..], &rule.split(' ').collect::<Vec<_>>()].concat(),
        );
        let conns = persistent(&net, 6);
        if passive {
            await_health(&agent, 1, false);
            let after = open(&net, 4);
            assert_eq!(on(&after, "b0"), 4, "{rule}");
        } else {
            assert_eq!(backend(&agent, 1)["healthy"], true);
            assert!(conns.len() < 6, "nobody was refused");
        }
        for conn in &mut before {
            conn.exchange(100).expect("what is open stays open");
        }
    }
}

#[test]
fn when_too_few_are_healthy_all_are_used() {
    let net = Net::new(4);
    let _servers = servers(&net);
    let checks = "health = { type = \"http\", interval = \"1s\", rise = 1, fall = 1, panic = 50 }";
    // The servers speak, but not HTTP: no check is ever passed, at first by none of them.
    let agent = start(&net, checks);
    (0..4).for_each(|i| await_health(&agent, i, false));
    let conns = open(&net, 40);
    assert_eq!(["b0", "b1", "b2", "b3"].map(|b| on(&conns, b)), [10; 4]);
}

const TLS: &str = "
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
events {}
http {
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {
    listen 80 ssl; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key; server_name app.test;
    location /ready { return 204; }
  }
  server { listen 80 ssl default_server; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key; return 421; }
}";

#[test]
fn https_checks_ask_the_host_that_they_are_told_and_want_no_papers() {
    let net = Net::new(1);
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8").to_string();
    program::finish(std::process::Command::new("openssl").args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=somebody else",
        "-days",
        "1",
        "-keyout",
        &format!("{path}/key"),
        "-out",
        &format!("{path}/cert"),
    ]));
    std::fs::write(dir.path().join("conf"), TLS.replace("{dir}", &path)).expect("a file");
    let args = ["-p", "{dir}", "-c", "{dir}/conf", "-e", "{dir}/error.log"];
    let server =
        program::Program::start_in(dir, &net.backends[0], "nginx", &args).listening(&net.backends[0], 80);
    let with = |host: &str| {
        format!(
            "health = {{ type = \"https\", path = \"/ready\", expect = 204, interval = \"1s\", rise = 1, fall = 1 {host} }}"
        )
    };
    let agent = start(&net, &with(", host = \"app.test\""));
    agent.sweeps(8);
    assert_eq!(backend(&agent, 0)["healthy"], true, "{}", agent.log());
    assert_eq!(backend(&agent, 0)["health_check_failures"], 0, "{}", agent.log());
    drop(agent);
    let agent = start(&net, &with(""));
    await_health(&agent, 0, false);
    assert!(agent.log().contains("status 421 instead of 204"), "{}", agent.log());
    drop(server);
}

#[test]
fn grpc_checks_want_serving() {
    let net = Net::new(2);
    let servers: Vec<Grpc> = net.backends.iter().map(|ns| Grpc::start(ns, 80)).collect();
    let checks = "health = { type = \"grpc\", service = \"app\", interval = \"1s\", rise = 1, fall = 1 }";
    let agent = start(&net, checks);
    agent.sweeps(8);
    assert_eq!([0, 1].map(|i| backend(&agent, i)["healthy"].as_bool()), [Some(true); 2], "{}", agent.log());
    let set = |status| servers.iter().for_each(|server| server.set(status));
    set(ServingStatus::NotServing);
    await_health(&agent, 0, false);
    await_health(&agent, 1, false);
    assert!(agent.log().contains("NOT_SERVING instead of SERVING"), "{}", agent.log());
    set(ServingStatus::Serving);
    await_health(&agent, 0, true);
    await_health(&agent, 1, true);
}

#[test]
fn a_program_of_the_node_says_who_is_healthy() {
    let net = Net::new(2);
    let _servers = servers(&net);
    let dir = tempfile::TempDir::new().expect("a directory");
    let down = dir.path().join("down");
    let script = format!(
        "if [ \"$FLOWPIN_SERVICE $FLOWPIN_BACKEND_PORT\" != \"app 80\" ]; then echo asked amiss; exit 1; fi\n\
         if grep -qx \"$FLOWPIN_BACKEND_ADDRESS\" {}; then echo in repair; exit 1; fi\n",
        down.display()
    );
    std::fs::write(dir.path().join("check"), script).expect("a file");
    std::fs::write(&down, "").expect("a file");
    let targets: Vec<String> = (0..2).map(|i| V4.backend(i)).collect();
    let checks = format!(
        "health = {{ type = \"exec\", command = [\"/bin/sh\", \"{}/check\"], interval = \"1s\", rise = 1, fall = 1 }}",
        dir.path().display()
    );
    let config = "exec_checks = true\n[conntrack]\nmax_flows = 4096\n".to_string()
        + &interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &targets, &checks);
    let agent = Agent::start(&net.node, &config);
    agent.sweeps(8);
    assert_eq!([0, 1].map(|i| backend(&agent, i)["healthy"].as_bool()), [Some(true); 2], "{}", agent.log());
    std::fs::write(&down, V4.backend(1) + "\n").expect("a file");
    await_health(&agent, 1, false);
    assert!(agent.log().contains("in repair"), "{}", agent.log());
    assert_eq!(backend(&agent, 0)["healthy"], true);
    assert_eq!(on(&open(&net, 6), "b1"), 0);
    std::fs::write(&down, "").expect("a file");
    await_health(&agent, 1, true);
}
