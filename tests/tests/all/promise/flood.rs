//! Promise: a flood shuts nobody out. Who isn't there takes no place, no room, no binding and no port from those who are.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use flowpin_tests::{
    harness::{
        Agent, Net,
        agent::{interfaces, service},
        client::{Conn, at},
        eventually,
        eventually::pass,
        forge::Forger,
        server::Server,
        topology::Family::{self, V4, V6},
    },
    packet::build::{ACK, Frame, SYN, eth},
};

use super::forged::ip;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a flood lasts.
const SIEGE: Duration = Duration::from_secs(8);
/// Threads of honest clients; each connects every tenth of a second.
const HONEST: usize = 10;
/// Connections that are open all the time.
const OPEN: usize = 40;

/// Client number `i` of those that don't exist.
fn nobody(family: Family, i: u32) -> IpAddr {
    match family {
        V4 => IpAddr::from((0xac10_0000 | i & 0xf_ffff).to_be_bytes()),
        V6 => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, (i >> 16) as u16, i as u16]),
    }
}

struct Siege {
    family: Family,
    net: Net,
    _servers: Vec<Server>,
    agent: Agent,
}

impl Siege {
    /// `head`: what comes before the services in the file; `services`: given the family and the addresses of the backends.
    fn new(
        family: Family,
        attach: &str,
        backends: usize,
        head: &str,
        services: impl Fn(&[String]) -> String,
    ) -> Self {
        let net = Net::new(backends);
        // Answers to those who don't exist go to where their packets come from, and end there.
        match family {
            V4 => net.node.must("ip route add 172.16.0.0/12 via 10.1.0.2"),
            V6 => net.node.must("ip route add fd77::/64 via fd01::2"),
        };
        let servers =
            net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80, 81]));
        let servers = servers.collect();
        let targets: Vec<String> = (0..backends).map(|i| family.backend(i)).collect();
        let config = format!("{head}\n{}{}", interfaces(&[("c0", attach), ("b*", "tc")]), services(&targets));
        let agent = Agent::start(&net.node, &config);
        Self { family, net, _servers: servers, agent }
    }

    fn vip(&self, i: usize) -> IpAddr {
        ip(&self.family.vip(i))
    }

    fn open(&self, count: usize) -> Vec<Conn> {
        let to = at(&self.family.vip(0), 80);
        self.net.client.run(|| (0..count).map(|_| Conn::open(to).expect("answered")).collect())
    }

    /// Sends packets at a rate in the background, `rate` a second, while something else happens; `packet`: number `i`.
    fn while_flooded<T>(
        &self,
        rate: u32,
        packet: impl Fn(u32) -> Frame + Sync,
        during: impl FnOnce() -> T,
    ) -> T {
        let over = AtomicBool::new(false);
        let forger = Forger::new(&self.net.client);
        let vip = self.vip(0);
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let (began, mut sent) = (Instant::now(), 0);
                while !over.load(Ordering::Relaxed) {
                    let due = began.elapsed().as_secs_f64() * f64::from(rate);
                    while f64::from(sent) < due {
                        forger.send(&packet(sent), vip);
                        sent += 1;
                    }
                    pass(Duration::from_millis(1));
                }
                sent
            });
            let result = during();
            over.store(true, Ordering::Relaxed);
            println!("{} packets of the flood", flood.join().expect("it ends"));
            result
        })
    }

    /// Honest clients connect, talk and leave for a while, a hundred a second.
    fn honest(&self, to: SocketAddr, time: Duration) {
        let attempts = (time.as_millis() / 100) as u32;
        let client = |_| {
            self.net.client.run(|| {
                let began = Instant::now();
                let mut failed = Vec::new();
                for i in 0..attempts {
                    pass((Duration::from_millis(100) * i).saturating_sub(began.elapsed()));
                    let outcome = TcpStream::connect_timeout(&to, Duration::from_secs(5))
                        .and_then(Conn::from_stream)
                        .and_then(|mut conn| conn.exchange(100));
                    failed.extend(outcome.err().map(|e| e.to_string()));
                }
                failed
            })
        };
        let failed: Vec<String> = thread::scope(|scope| {
            let threads: Vec<_> = (0..HONEST).map(|i| scope.spawn(move || client(i))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("whole")).collect()
        });
        let tried = HONEST * attempts as usize;
        let mut why = BTreeMap::<&str, u32>::new();
        failed.iter().for_each(|error| *why.entry(error).or_default() += 1);
        println!("{} of {tried} honest clients failed: {why:?}", failed.len());
        assert!(failed.len() * 100 <= tried, "{} of {tried} failed: {why:?}", failed.len());
    }

    /// What was open still is, and nothing else counts in the end.
    fn survived(&self, mut conns: Vec<Conn>) {
        for conn in &mut conns {
            conn.exchange(100).expect("it is open");
        }
        eventually("only the open ones count", LIMIT, || {
            match self.agent.active("app").iter().sum::<u64>() {
                count if count == conns.len() as u64 => Ok(()),
                other => Err(format!("{other} count")),
            }
        });
        assert_eq!(self.agent.sweeps(2)["accounting_drift"], 0);
    }

    fn syn(&self, i: u32) -> Frame {
        let port = 1024 + (i / 7 % 60_000) as u16;
        eth()
            .ip(nobody(self.family, i), self.vip(0))
            .tcp(port, 80, SYN)
            .numbers(i.wrapping_mul(0x9e37_79b9), 0)
    }
}

fn app(family: Family, targets: &[String], more: &str) -> String {
    service("app", &family.vip(0), "\"80/tcp\"", targets, more)
}

/// More half handshakes than there is room for.
fn a_full_table_is_open(family: Family, attach: &str) {
    let siege = Siege::new(family, attach, 2, "[conntrack]\nmax_flows = 50_000", |t| app(family, t, ""));
    let conns = siege.open(OPEN);
    let to = at(&family.vip(0), 80);
    siege.while_flooded(20_000, |i| siege.syn(i), || siege.honest(to, SIEGE));
    siege.honest(to, Duration::from_secs(1));
    siege.survived(conns);
}

#[test]
fn a_full_table_is_open_by_tc() {
    a_full_table_is_open(V4, "tc");
}

#[test]
fn a_full_table_is_open_by_xdp_v6() {
    a_full_table_is_open(V6, "xdp");
}

/// More half handshakes than the backends take connections.
fn a_full_service_is_open(family: Family, attach: &str) {
    let limited = |targets: &[String]| {
        let backend = |t: &String| format!("[[service.backend]]\naddress = \"{t}\"\nmax_connections = 300\n");
        app(family, &[], "") + &targets.iter().map(backend).collect::<String>()
    };
    let siege = Siege::new(family, attach, 4, "", limited);
    let conns = siege.open(OPEN);
    let to = at(&family.vip(0), 80);
    siege.while_flooded(
        600,
        |i| siege.syn(i),
        || {
            eventually("all places are taken", LIMIT, || {
                match siege.agent.active("app").iter().sum::<u64>() {
                    1_200.. => Ok(()),
                    fewer => Err(format!("{fewer} are")),
                }
            });
            siege.honest(to, SIEGE);
            assert!(siege.agent.active("app").iter().all(|count| *count <= 300));
        },
    );
    siege.honest(to, Duration::from_secs(1));
    siege.survived(conns);
}

#[test]
fn a_full_service_is_open_by_tc() {
    a_full_service_is_open(V4, "tc");
}

#[test]
fn a_full_service_is_open_by_xdp_v6() {
    a_full_service_is_open(V6, "xdp");
}

#[test]
fn udp_that_nobody_answers_leaves_room() {
    let services =
        |targets: &[String]| app(V4, targets, "") + &service("dns", &V4.vip(0), "\"53/udp\"", targets, "");
    let siege = Siege::new(V4, "tc", 2, "[conntrack]\nmax_flows = 50_000", services);
    let conns = siege.open(OPEN);
    let query =
        |i: u32| eth().ip(nobody(V4, i), siege.vip(0)).udp(1024 + (i / 7 % 60_000) as u16, 53).fill(30);
    siege.while_flooded(20_000, query, || siege.honest(at(&V4.vip(0), 80), SIEGE));
    siege.survived(conns);
}

/// Single segments in the middle of connections that aren't there, many more than there is room for.
#[test]
fn strays_of_nobodys_leave_room() {
    let services = |targets: &[String]| {
        app(V4, targets, "algorithm = \"consistent-hash\"")
            + &service("other", &V4.vip(1), "\"81/tcp\"", targets, "")
    };
    let siege = Siege::new(V4, "tc", 2, "[conntrack]\nmax_flows = 20_000", services);
    let mut conns = siege.open(OPEN);
    let forger = Forger::new(&siege.net.client);
    let stray = |i: u32| eth().ip(nobody(V4, i), siege.vip(0)).tcp(40_000, 80, ACK).numbers(i, i);
    for i in 0..4_000 {
        forger.send(&stray(i), siege.vip(0));
    }
    eventually("the backends know nothing of them", LIMIT, || {
        match siege.agent.active("app").iter().sum::<u64>() {
            count if count == OPEN as u64 => Ok(()),
            other => Err(format!("{other} count")),
        }
    });
    // Backends that say nothing of what they don't know, as behind many a firewall.
    for ns in &siege.net.backends {
        ns.must("iptables -A OUTPUT -p tcp --tcp-flags RST RST -j DROP");
    }
    for i in 4_000..52_000 {
        forger.send(&stray(i), siege.vip(0));
    }
    for to in [at(&V4.vip(0), 80), at(&V4.vip(1), 81)] {
        siege.net.client.run(|| {
            for i in 0..200 {
                let mut conn = Conn::open(to).unwrap_or_else(|e| panic!("client {i} of {to}: {e}"));
                conn.exchange(10).unwrap_or_else(|e| panic!("client {i} of {to}: {e}"));
            }
        });
    }
    for conn in &mut conns {
        conn.exchange(100).expect("it is open");
    }
}

/// A hundred clients by addresses of their own connect again and again, to the backend that they had.
#[test]
fn clients_keep_their_backends() {
    let affine = |targets: &[String]| app(V4, targets, "affinity = { client_ip = true, timeout = \"1h\" }");
    let siege = Siege::new(V4, "tc", 4, "[conntrack]\nmax_clients = 4_000", affine);
    siege.net.node.must("ip route add 10.1.1.0/24 via 10.1.0.2");
    let clients: Vec<IpAddr> = (1..=100u8).map(|i| IpAddr::from([10, 1, 1, i])).collect();
    for address in &clients {
        siege.net.client.ip(&format!("address add {address}/32 dev lo"));
    }
    let to = at(&V4.vip(0), 80);
    let all = || -> Vec<String> {
        let open = |from: &IpAddr| Conn::open_from(SocketAddr::new(*from, 0), to).expect("answered").backend;
        siege.net.client.run(|| clients.iter().map(open).collect())
    };
    let forger = Forger::new(&siege.net.client);
    let spoof = |from: u32| (from..from + 8_000).for_each(|i| forger.send(&siege.syn(i), siege.vip(0)));
    // Before they were ever there, so that there is no room for them; and afterwards.
    spoof(0);
    pass(Duration::from_millis(300));
    let first = all();
    spoof(8_000);
    assert_eq!(all(), first, "each has the backend that it had");
    siege.survived(Vec::new());
    assert_eq!(all(), first);
}

/// Source NAT with fewer ports than half handshakes in a second.
#[test]
fn ports_of_the_nodes_are_left() {
    let siege =
        Siege::new(V4, "tc", 1, "[snat]\naddresses = [\"10.2.0.1\"]\nports = \"2000-3999\"", |targets| {
            app(V4, targets, "forward = \"snat\"")
        });
    let conns = siege.open(OPEN);
    let to = at(&V4.vip(0), 80);
    siege.while_flooded(2_000, |i| siege.syn(i), || siege.honest(to, SIEGE));
    siege.survived(conns);
}
