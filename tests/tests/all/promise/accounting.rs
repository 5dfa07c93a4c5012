//! Promise: the active count of each backend is what the backends' own sockets say, however connections end.

use std::{
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::{PLEASE_CLOSE, PLEASE_RESET, Server},
    topology::Family::{self, V4, V6},
};
use socket2::{Domain, Socket, Type};

const CONNECTIONS: u64 = 100_000;
const THREADS: u64 = 8;
/// Connections whose client vanishes without a word.
const ABANDONED: usize = 40;
const FIRST_PORT: u16 = 8001;
const PORTS: u16 = 16;

/// Vanishes: the socket is gone and no packet was sent (`TCP_REPAIR`, Linux 3.5).
fn vanish(conn: Conn) {
    const TCP_REPAIR: libc::c_int = 19;
    let on: libc::c_int = 1;
    // SAFETY: a valid descriptor and an int of the size that is given.
    let result = unsafe {
        libc::setsockopt(conn.stream.as_raw_fd(), libc::IPPROTO_TCP, TCP_REPAIR, (&raw const on).cast(), 4)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Reads to the end of what the backend sends.
fn to_the_end(conn: &mut Conn) {
    // A reset is an end, too.
    let _ = std::io::copy(&mut conn.stream, &mut std::io::sink());
}

/// Opens from a port of its own choice, resets, and opens from the same port again at once.
fn reuse_port(to: SocketAddr, family: Family, port: u16) {
    for round in 0..2 {
        let domain = if family == V4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any = if family == V4 { "0.0.0.0" } else { "::" };
        socket.bind(&at(any, port).into()).unwrap();
        socket.connect(&to.into()).unwrap_or_else(|e| panic!("port {port}, round {round}: {e}"));
        let mut conn = Conn::from_stream(socket.into()).unwrap();
        conn.exchange(32).unwrap();
        conn.reset().unwrap();
    }
}

fn one(i: u64, family: Family) {
    use std::io::Write;
    let to = at(&family.vip(0), FIRST_PORT + (i % u64::from(PORTS)) as u16);
    // Every 64th uses a port below the range that the system gives out.
    if i.is_multiple_of(64) {
        return reuse_port(to, family, 1100 + (i / 64) as u16);
    }
    let mut conn = Conn::open(to).unwrap_or_else(|e| panic!("connection {i}: {e}"));
    if i.is_multiple_of(3) {
        conn.exchange(200).unwrap_or_else(|e| panic!("connection {i}: {e}"));
    }
    match i % 5 {
        0 => drop(conn),
        1 => {
            conn.stream.shutdown(std::net::Shutdown::Write).unwrap();
            to_the_end(&mut conn);
        }
        2 => conn.reset().unwrap(),
        3 => {
            conn.stream.write_all(&[PLEASE_RESET]).unwrap();
            to_the_end(&mut conn);
        }
        _ => {
            conn.stream.write_all(&[PLEASE_CLOSE]).unwrap();
            to_the_end(&mut conn);
        }
    }
}

#[test]
fn a_hundred_thousand_connections_of_all_kinds() {
    let net = Net::new(4);
    let ports = || FIRST_PORT..FIRST_PORT + PORTS;
    let servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), ports())).collect();
    net.client.must("sysctl -qw net.ipv4.tcp_tw_reuse=1");
    let range = format!("\"{FIRST_PORT}-{}/tcp\"", FIRST_PORT + PORTS - 1);
    let targets = |family: Family| (0..4).map(|i| family.backend(i)).collect::<Vec<_>>();
    let idle = "timeouts = { idle = \"20s\" }";
    let config = interfaces(&[("c0", "tc"), ("b0", "xdp"), ("b1", "xdp"), ("b*", "tc")])
        + "[conntrack]\nmax_flows = 524288\n"
        + &service("four", &V4.vip(0), &range, &targets(V4), idle)
        + &service("six", &V6.vip(0), &range, &targets(V6), idle);
    let agent = Agent::start(&net.node, &config);
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                net.client.run(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i > CONNECTIONS {
                            return;
                        }
                        one(i, if i.is_multiple_of(2) { V4 } else { V6 });
                    }
                });
            });
        }
    });
    let abandoned: Vec<Conn> =
        net.client.run(|| (0..ABANDONED).map(|_| Conn::open(at(&V4.vip(0), FIRST_PORT)).unwrap()).collect());
    let held: Vec<Conn> =
        net.client.run(|| (0..100).map(|_| Conn::open(at(&V6.vip(0), FIRST_PORT)).unwrap()).collect());
    abandoned.into_iter().for_each(vanish);
    eventually("counts are what the sockets say", Duration::from_secs(15), || {
        let (four, six) = (agent.active("four"), agent.active("six"));
        let open: Vec<u64> = servers.iter().map(|s| s.open() as u64).collect();
        let counted: Vec<u64> = four.iter().zip(&six).map(|(a, b)| a + b).collect();
        if counted == open { Ok(()) } else { Err(format!("counted {counted:?}, open {open:?}")) }
    });
    assert_eq!(agent.active("four").iter().sum::<u64>(), ABANDONED as u64);
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
    let stats = agent.json(&["stats"]);
    for reason in ["internal", "malformed", "table_full", "port_conflict", "no_backend"] {
        assert_eq!(stats["drops"][reason], 0, "{reason}");
    }
    drop(held);
    // The abandoned are idle for 20 s, the closed linger for 10.
    eventually("the table returns to empty", Duration::from_secs(60), || {
        let status = agent.json(&["status"]);
        assert_eq!(status["accounting_drift"], 0);
        let counted: u64 = agent.active("four").iter().chain(&agent.active("six")).sum();
        match status["conntrack_entries"].as_u64() {
            Some(0) if counted == 0 => Ok(()),
            left => Err(format!("{left:?} flows, {counted} counted")),
        }
    });
    let total: u64 = ["four", "six"]
        .iter()
        .flat_map(|s| agent.json(&["service", "show", s])["backends"].as_array().unwrap().clone())
        .map(|b| b["total_connections"].as_u64().unwrap())
        .sum();
    let reused = CONNECTIONS / 64;
    assert_eq!(total, CONNECTIONS + reused + ABANDONED as u64 + 100);
}
