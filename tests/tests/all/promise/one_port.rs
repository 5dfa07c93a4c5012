//! Promise: a client may use one port of its own for several services, and for a backend past them; nothing that
//! is open is broken by it.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    netfilter::load,
    rulesets::{self, Names},
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Within this time is at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// The first of the client's ports, below what the kernel gives by itself.
const FIRST: u16 = 20_000;
/// Client ports that are tried.
const PORTS: u16 = 40;

/// A way to the servers' port 80: a VIP and a port of it.
fn ways(family: Family) -> [SocketAddr; 3] {
    [at(&family.vip(0), 80), at(&family.vip(0), 6000), at(&family.vip(1), 80)]
}

struct World {
    net: Net,
    _servers: Vec<Server>,
    agent: Agent,
}

impl World {
    /// A service for each way, all with the same backends. Without `[snat]`: the node's own addresses are used.
    fn new(backends: usize, hook: &str, algorithm: &str) -> Self {
        let net = Net::new(backends);
        let servers = net.backends.iter().enumerate().map(|(i, ns)| {
            udp::echo(ns, 80);
            Server::start(ns, &format!("b{i}"), [80])
        });
        let servers = servers.collect();
        let mut config = interfaces(&[("c0", hook), ("b*", "tc")]);
        for family in [V4, V6] {
            let targets: Vec<String> = (0..backends).map(|i| family.target(i, 80)).collect();
            for (i, way) in ways(family).into_iter().enumerate() {
                let ports = format!("\"{0}/tcp\", \"{0}/udp\"", way.port());
                let more = format!("algorithm = \"{algorithm}\"");
                config += &service(&name(family, i), &way.ip().to_string(), &ports, &targets, &more);
            }
        }
        let agent = Agent::start(&net.node, &config);
        Self { net, _servers: servers, agent }
    }

    fn active(&self, family: Family) -> u64 {
        (0..3).flat_map(|way| self.agent.active(&name(family, way))).sum()
    }

    fn conflicts(&self) -> u64 {
        self.agent.json(&["stats"])["drops"]["port_conflict"].as_u64().unwrap_or(0)
    }

    /// Waits until only so many datagrams' flows count, and ends them.
    fn left(&self, family: Family, wanted: u64) {
        eventually("what is open counts", LIMIT, || match self.active(family) {
            n if n == wanted => Ok(()),
            n => Err(format!("{n}, not {wanted}")),
        });
        for way in 0..3 {
            self.agent.done(&["connection", "close", "--service", &name(family, way)]);
        }
        assert_eq!(self.active(family), 0);
    }
}

fn name(family: Family, way: usize) -> String {
    format!("{family:?}-{way}")
}

fn client(family: Family) -> &'static str {
    if family == V4 { "10.1.0.2" } else { "fd01::2" }
}

fn open(family: Family, port: u16, to: SocketAddr) -> io::Result<Conn> {
    Conn::open_from(at(client(family), port), to)
}

/// All ways at a time from each port, by TCP and UDP.
fn several_services(backends: usize, hook: &str, algorithm: &str) {
    let world = World::new(backends, hook, algorithm);
    for family in [V4, V6] {
        let mut conns: Vec<Conn> = Vec::new();
        let mut sockets: Vec<UdpSocket> = Vec::new();
        world.net.client.run(|| {
            for port in FIRST..FIRST + PORTS {
                for to in ways(family) {
                    let conn = open(family, port, to);
                    conns.push(conn.unwrap_or_else(|e| panic!("{hook}, {algorithm}: {port} to {to}: {e}")));
                    sockets.push(udp::connect_from(port, to));
                    udp::exchange(&sockets[sockets.len() - 1], port.into(), 100);
                }
            }
        });
        conns.iter_mut().for_each(|conn| conn.exchange(10_000).expect("its own bytes"));
        (0..).zip(&sockets).for_each(|(number, socket)| {
            udp::exchange(socket, number, 1_000);
        });
        assert_eq!(world.active(family), 2 * 3 * u64::from(PORTS), "{hook}, {algorithm}, {family:?}");
        drop((conns, sockets));
        world.left(family, 3 * u64::from(PORTS));
    }
    assert_eq!(world.conflicts(), 0);
    assert_eq!(world.agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn two_ports_and_two_vips_by_tc() {
    several_services(2, "tc", "least-connections");
}

#[test]
fn two_ports_and_two_vips_of_one_backend_by_xdp() {
    several_services(1, "xdp", "least-connections");
}

#[test]
fn two_ports_and_two_vips_that_hash_to_one_backend() {
    several_services(2, "tc", "consistent-hash");
}

/// One datagram and its answer, however often it takes.
fn ask(socket: &UdpSocket) -> io::Result<()> {
    for _ in 0..4 {
        socket.send(b"are you there?")?;
        match socket.recv(&mut [0; 100]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            heard => return heard.map(drop),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// Refused at once and counted, if it isn't made.
fn made_or_refused(world: &World, name: &str, make: impl FnOnce() -> io::Result<()>) {
    let (before, began) = (world.conflicts(), Instant::now());
    if let Err(e) = make() {
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{name}: {e}");
        assert!(began.elapsed() < AT_ONCE, "{name}: refused after {:?}", began.elapsed());
        assert!(world.conflicts() > before, "{name}: refused and not counted");
    }
}

/// A connection through the VIP, then one past it from the same port.
fn the_vip_first(hook: &str) {
    let world = World::new(1, hook, "least-connections");
    for family in [V4, V6] {
        let (vip, past) = (ways(family)[0], at(&family.backend(0), 80));
        world.net.client.run(|| {
            for port in FIRST..FIRST + 5 {
                let name = format!("{family:?} by {hook}, port {port}");
                let mut conn = open(family, port, vip).expect("the VIP's");
                conn.exchange(1_000).expect("its own bytes");
                made_or_refused(&world, &format!("TCP, {name}"), || {
                    open(family, port, past)?.exchange(1_000)
                });
                conn.exchange(100_000).unwrap_or_else(|e| panic!("the VIP's, {name}: {e}"));

                let socket = udp::connect_from(port, vip);
                udp::exchange(&socket, port.into(), 1_000);
                made_or_refused(&world, &format!("UDP, {name}"), || ask(&udp::connect_from(port, past)));
                udp::exchange(&socket, port.into(), 1_000);
            }
        });
        world.left(family, 5);
    }
}

#[test]
fn past_the_vip_while_a_connection_is_open_through_it_by_tc() {
    the_vip_first("tc");
}

#[test]
fn past_the_vip_while_a_connection_is_open_through_it_by_xdp() {
    the_vip_first("xdp");
}

#[test]
fn past_the_vip_while_a_connection_is_open_through_it_past_the_stack() {
    the_vip_first("fast");
}

/// A connection past the VIP, then one through it from the same port: both work from then on. Every second time the
/// first is busy meanwhile.
fn the_vip_second(world: &World, hook: &str, family: Family) {
    let (vip, past) = (ways(family)[0], at(&family.backend(0), 80));
    world.net.client.run(|| {
        for (port, talks) in (FIRST..FIRST + 6).zip([false, true].into_iter().cycle()) {
            let name = format!("{family:?} by {hook}, port {port}");
            let mut older = open(family, port, past).expect("past the VIP");
            older.exchange(1_000).expect("its own bytes");
            let stop = AtomicBool::new(!talks);
            let (mut conn, took) = std::thread::scope(|scope| {
                let talk = scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        older.exchange(100).unwrap_or_else(|e| panic!("past the VIP meanwhile, {name}: {e}"));
                    }
                });
                let began = Instant::now();
                let conn = open(family, port, vip);
                let took = began.elapsed();
                stop.store(true, Ordering::Relaxed);
                talk.join().expect("the older connection goes on");
                (conn.unwrap_or_else(|e| panic!("the VIP's, {name}: {e}")), took)
            });
            assert!(took < AT_ONCE, "{name}: made after {took:?}");
            older.exchange(100_000).unwrap_or_else(|e| panic!("past the VIP, {name}: {e}"));
            conn.exchange(100_000).unwrap_or_else(|e| panic!("the VIP's, {name}: {e}"));
            assert_eq!(world.active(family), 1, "{name}");
            // The one ends, and the other stays; then the other way round.
            if talks {
                conn.reset().expect("reset");
                older.exchange(1_000).unwrap_or_else(|e| panic!("past the VIP, left alone, {name}: {e}"));
            } else {
                older.reset().expect("reset");
                conn.exchange(1_000).unwrap_or_else(|e| panic!("the VIP's, left alone, {name}: {e}"));
                drop(conn);
            }
            world.left(family, 0);
        }
    });
    assert_eq!(world.conflicts(), 0);
}

/// The same by UDP: from the next datagram on the backend knows them apart.
fn the_vip_second_by_datagrams(world: &World, family: Family) {
    let (vip, past) = (ways(family)[0], at(&family.backend(0), 80));
    world.net.client.run(|| {
        for port in FIRST..FIRST + 5 {
            let older = udp::connect_from(port, past);
            udp::exchange(&older, 1, 1_000);
            let later = udp::connect_from(port, vip);
            for number in 2..6 {
                assert_eq!(udp::exchange(&later, number, 1_000), 0, "{family:?}: the VIP's, port {port}");
                assert_eq!(udp::exchange(&older, number, 1_000), 0, "{family:?}: past it, port {port}");
            }
        }
    });
    world.left(family, 5);
    assert_eq!(world.conflicts(), 0);
}

fn past_first(hook: &str) {
    let world = World::new(1, hook, "least-connections");
    for family in [V4, V6] {
        the_vip_second(&world, hook, family);
        the_vip_second_by_datagrams(&world, family);
    }
    assert_eq!(world.agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn through_the_vip_while_a_connection_is_open_past_it_by_tc() {
    past_first("tc");
}

#[test]
fn through_the_vip_while_a_connection_is_open_past_it_by_xdp() {
    past_first("xdp");
}

#[test]
fn through_the_vip_while_a_connection_is_open_past_it_past_the_stack() {
    past_first("fast");
}

/// conntrack has the older connection, and drops what it can't place.
#[test]
fn through_the_vip_while_a_connection_is_open_past_it_behind_a_firewall() {
    let world = World::new(1, "tc", "least-connections");
    for family in [V4, V6] {
        let names = Names {
            clients: vec![client(family).into()],
            backends: vec![family.backend(0)],
            uplinks: vec!["c0".into()],
            pods: vec!["b0".into()],
        };
        load(&world.net.node, family, &rulesets::INVALID_DROP.rules(family, &names));
        the_vip_second(&world, "tc, firewalled", family);
    }
}
