//! Promise: what is silent for too long is over for both ends at once, at its time; what is active is never cut.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually, program,
    server::Server,
    topology::Family::{self, V4, V6},
};

const LIMIT: Duration = Duration::from_secs(60);
/// What a busy machine may add to a timeout before a test calls it late. That it is within a tenth or a second otherwise is a measurement.
const SLACK: Duration = Duration::from_secs(5);

/// A server that reads, never answers, never closes, and tells how each connection ended.
fn mute(ns: &Ns, port: u16) -> Receiver<ErrorKind> {
    let (tell, ends) = mpsc::channel();
    let listener = ns.run(|| TcpListener::bind(SocketAddr::from(([0u16; 8], port))).expect("a port"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut over = false;
                loop {
                    match stream.read(&mut buffer) {
                        // The client has closed its side; only an error is the end. Looked at now and then: a closed side is always readable.
                        Ok(0) if over => eventually::pass(Duration::from_millis(20)),
                        Ok(n) => over = n == 0,
                        Err(e) => {
                            // Who listens may have heard enough.
                            let _ = tell.send(e.kind());
                            return;
                        }
                    }
                    if over && let Ok(Some(e)) = stream.take_error() {
                        let _ = tell.send(e.kind());
                        return;
                    }
                }
            });
        }
    });
    ends
}

fn start(family: Family, timeouts: &str) -> (Net, Receiver<ErrorKind>, Server, Agent) {
    let net = Net::new(1);
    let ends = mute(&net.backends[0], 81);
    let server = Server::start(&net.backends[0], "b", [80]);
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service(
            "app",
            &family.vip(0),
            "\"80-81/tcp\"",
            &[family.backend(0)],
            &format!("timeouts = {{ {timeouts} }}"),
        );
    let agent = Agent::start(&net.node, &config);
    (net, ends, server, agent)
}

fn connect(net: &Net, family: Family, port: u16) -> TcpStream {
    let stream =
        net.client.run(|| TcpStream::connect_timeout(&at(&family.vip(0), port), LIMIT)).expect("answered");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream
}

/// Waits for the end of a connection: a reset, at its time, for the client and, if it is the mute server's, for the backend.
fn reset(mut stream: TcpStream, since: Instant, after: f64, ends: Option<&Receiver<ErrorKind>>) {
    let error = loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => panic!("a farewell instead of a reset"),
            Ok(_) => {}
            Err(e) => break e.kind(),
        }
    };
    let took = since.elapsed();
    assert_eq!(error, ErrorKind::ConnectionReset, "after {took:?}");
    let (least, most) = (Duration::from_secs_f64(after - 0.1), Duration::from_secs_f64(after) + SLACK);
    assert!(took >= least && took <= most, "after {took:?}, not {after} s");
    println!("set {after} s, took {:.2} s", took.as_secs_f64());
    if let Some(ends) = ends {
        let end = ends.recv_timeout(LIMIT).expect("the backend's end is told as well");
        // Linux calls it EPIPE where the other side had closed before.
        assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end}");
    }
}

/// Says something and hears the answer, again and again, while something else is done; whole to the end.
fn busy(conn: &mut Conn, meanwhile: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                conn.exchange(100).expect("active traffic is never cut");
                eventually::pass(Duration::from_millis(100));
            }
        });
        let outcome = catch_unwind(AssertUnwindSafe(meanwhile));
        done.store(true, Ordering::Relaxed);
        for outcome in [outcome, traffic.join()] {
            outcome.unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}

#[test]
fn a_client_that_never_asks() {
    for family in [V4, V6] {
        let (net, ends, server, agent) = start(family, "client_request = \"3s\"");
        let mut active = net.client.run(|| Conn::open(at(&family.vip(0), 80)).expect("answered"));
        busy(&mut active, || {
            let since = Instant::now();
            let (greeted, ignored) = (connect(&net, family, 80), connect(&net, family, 81));
            reset(greeted, since, 3.0, None);
            reset(ignored, since, 3.0, Some(&ends));
        });
        // It has asked once: now it may be silent.
        agent.sweeps(8);
        active.exchange(10).expect("only those that never asked are meant");
        assert_eq!(agent.active("app"), [1]);
        eventually("the server's ends", LIMIT, || {
            if server.open() == 1 { Ok(()) } else { Err(server.open().to_string()) }
        });
        let page = net.node.run(metrics);
        assert!(
            page.contains("flowpin_timeouts_total{service=\"app\",timeout=\"client_request\"} 2"),
            "{page}"
        );
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

fn metrics() -> String {
    let mut stream = TcpStream::connect("127.0.0.1:9479").expect("the metrics page");
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("an answer");
    page
}

#[test]
fn a_backend_that_never_answers() {
    for family in [V4, V6] {
        let (net, ends, _server, agent) = start(family, "backend_response = \"3s\"");
        let mut active = net.client.run(|| Conn::open(at(&family.vip(0), 80)).expect("answered"));
        let mut silent = net.client.run(|| Conn::open(at(&family.vip(0), 80)).expect("answered"));
        silent.exchange(100).expect("answered");
        busy(&mut active, || {
            let mut asked = connect(&net, family, 81);
            // Keepalives don't count as answers, nor as questions.
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(1))
                .with_interval(Duration::from_secs(1));
            socket2::SockRef::from(&asked).set_tcp_keepalive(&keepalive).expect("keepalive");
            let unasked = connect(&net, family, 81);
            asked.write_all(b"hello?").expect("it takes it");
            reset(asked, Instant::now(), 3.0, Some(&ends));
            agent.sweeps(4);
            assert_eq!(agent.active("app"), [3], "who hasn't asked waits for no answer");
            drop(unasked);
        });
        silent.exchange(100).expect("it had its answer");
    }
}

#[test]
fn who_is_idle_and_who_has_half_closed() {
    let (net, ends, _server, _agent) = start(V4, "idle = \"4s\", half_closed = \"2s\"");
    let mut active = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("answered"));
    busy(&mut active, || {
        let idle = connect(&net, V4, 81);
        reset(idle, Instant::now(), 4.0, Some(&ends));
        let half = connect(&net, V4, 81);
        half.shutdown(Shutdown::Write).expect("a FIN");
        reset(half, Instant::now(), 2.0, Some(&ends));
    });
}

#[test]
fn no_connection_gets_older_than_it_may() {
    // They end within the last tenth, three seconds: on a busy machine two passes of the sweeper are up to two apart.
    let (net, _ends, _server, agent) = start(V4, "max_age = \"30s\"");
    let began = Instant::now();
    let conns: Vec<Conn> =
        net.client.run(|| (0..40).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("answered")).collect());
    let mut ages: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = conns
            .into_iter()
            .map(|mut conn| {
                scope.spawn(move || {
                    loop {
                        if let Err(e) = conn.exchange(100) {
                            assert!(
                                matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                                "{e}"
                            );
                            return began.elapsed().as_secs_f64();
                        }
                        eventually::pass(Duration::from_millis(100));
                    }
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("whole")).collect()
    });
    ages.sort_by(f64::total_cmp);
    let slack = SLACK.as_secs_f64();
    assert!(ages[0] >= 26.9 && ages[39] <= 30.0 + slack, "{ages:?}");
    assert!(ages[39] - ages[0] > 0.2, "all at once: {ages:?}");
    assert_eq!(agent.active("app"), [0]);
}

#[test]
fn half_open_flows_are_forgotten_in_their_time() {
    let (net, _ends, _server, agent) = start(V4, "half_open = \"2s\"");
    program::run(&net.backends[0], "iptables", &["-A", "INPUT", "-p", "tcp", "-j", "DROP"]);
    let error = net.client.run(|| {
        TcpStream::connect_timeout(&at(&V4.vip(0), 80), Duration::from_millis(500))
            .expect_err("nobody answers")
    });
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(agent.active("app"), [1]);
    eventually("half-open flows go", LIMIT, || match agent.active("app")[0] {
        0 => Ok(()),
        n => Err(format!("{n} left")),
    });
    assert_eq!(agent.sweeps(3)["conntrack_entries"], 0);
}
