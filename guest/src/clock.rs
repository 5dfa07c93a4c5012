//! A drain while somebody sets the clock by an hour: it takes as long as it was told. Sets the machine's clock, so for a machine
//! that nobody else uses.

use std::{
    io::{ErrorKind, Read},
    time::{Duration, Instant, SystemTime},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::Family::V4,
};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};

/// How long the drains take.
const DRAIN: Duration = Duration::from_secs(8);
/// How much longer it may take on an emulated machine: little beside how far the clock is set.
const LATE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// Drains with the clock set forward meanwhile, then with it set back. Panics if one ends too early or too late.
pub fn run() {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let targets = [V4.backend(0), V4.backend(1)];
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("clock", &V4.vip(0), "\"80/tcp\"", &targets, "on_deadline = \"reset\"");
    let agent = Agent::start(&net.node, &config);
    let mut conns: Vec<Conn> =
        net.client.run(|| (0..2).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("answered")).collect());
    conns.sort_by(|one, other| one.backend.cmp(&other.backend));
    let began = (Instant::now(), SystemTime::now());
    for ((conn, backend), ahead) in conns.into_iter().zip(&targets).zip([HOUR, Duration::ZERO]) {
        drain(&agent, conn, backend, || set(began.1 + began.0.elapsed() + ahead));
    }
}

/// Drains a backend that has this connection, and has the clock set meanwhile.
fn drain(agent: &Agent, mut conn: Conn, backend: &str, set: impl FnOnce()) {
    let start = Instant::now();
    agent.done(&["backend", "drain", "clock", backend, "--deadline", &format!("{}s", DRAIN.as_secs())]);
    set();
    let end = conn.stream.read(&mut [0]).map_err(|e| e.kind());
    let took = start.elapsed();
    assert_eq!(end, Err(ErrorKind::ConnectionReset), "after {took:?}");
    println!("a drain of {DRAIN:?} took {took:?}");
    assert!(took >= DRAIN, "too early: {took:?}");
    assert!(took < DRAIN + LATE, "too late: {took:?}");
}

fn set(to: SystemTime) {
    let since = to.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since)).expect("root may set the clock");
}
