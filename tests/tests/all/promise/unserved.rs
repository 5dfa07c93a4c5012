//! Promise: what is for a VIP of ours and no service's is refused or dropped at once and counted; it never goes
//! round between node and router.
//!
//! ```text
//! far 10.9.0.2 ─ r0 [router] eth0 ─ c0 [node] b0 ─ backend          the node's default route is the router
//! ```

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::{
        Family::{self, V4, V6},
        can_solicit,
    },
    udp,
};
use socket2::{Domain, Protocol, Socket, Type};

const LIMIT: Duration = Duration::from_secs(20);
/// What may come in for one packet: itself, a retransmission, what neighbours ask each other. Going round, it is 60.
const FEW: u64 = 8;

struct World {
    net: Net,
    far: Ns,
    _server: Server,
    agent: Agent,
}

impl World {
    fn new(hook: &str, algorithm: &str) -> Self {
        let (net, far) = (Net::new(1), Ns::lenient("f"));
        let router = &net.client;
        router.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        router.ip(&format!("link add r0 type veth peer name eth0 netns {}", far.name));
        for (ns, link, host) in [(router, "r0", 1), (&far, "eth0", 2)] {
            ns.ip(&format!("addr add 10.9.0.{host}/24 dev {link}"));
            ns.ip(&format!("addr add fd09::{host}/64 dev {link} nodad"));
            ns.ip(&format!("link set {link} up"));
        }
        for (ns, v4, v6) in [(&far, "10.9.0.1", "fd09::1"), (&net.node, "10.1.0.2", "fd01::2")] {
            ns.ip(&format!("route add default via {v4}"));
            ns.ip(&format!("route add default via {v6}"));
        }
        [router, &far].into_iter().for_each(can_solicit);
        let server = Server::start(&net.backends[0], "b", [80]);
        let services = [V4, V6].map(|family| {
            let more = format!("algorithm = \"{algorithm}\"");
            service(&format!("{family:?}"), &family.vip(0), "\"80/tcp\"", &[family.backend(0)], &more)
        });
        let config = interfaces(&[("c0", hook), ("b0", "tc")]) + &services.concat();
        let agent = Agent::start(&net.node, &config);
        Self { net, far, _server: server, agent }
    }

    /// Packets that have come in from the router.
    fn received(&self) -> u64 {
        let text = self.net.node.ip("-s -j link show c0");
        let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        links[0]["stats64"]["rx"]["packets"].as_u64().expect("a count")
    }

    fn counted(&self) -> u64 {
        self.agent.json(&["stats"])["drops"]["no_service"].as_u64().unwrap_or(0)
    }

    /// Sends one packet; `heard`: the sender was told so. It is counted, and no other comes of it.
    fn once(&self, name: &str, send: impl FnOnce() -> Option<ErrorKind> + Send) {
        let (received, counted) = (self.received(), self.counted());
        let heard = self.far.run(send);
        eventually(&format!("{name}: it is counted"), LIMIT, || match self.counted() {
            n if n > counted => Ok(()),
            n => Err(format!("{n}; {} packets came in", self.received() - received)),
        });
        assert!(matches!(heard, None | Some(ErrorKind::ConnectionRefused)), "{name}: {heard:?}");
        let came = self.received() - received;
        assert!(came <= FEW, "{name}: {came} packets came in");
    }
}

/// A packet of another protocol.
fn raw(family: Family, protocol: i32) {
    let domain = if family == V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).expect("a raw socket");
    let to: SocketAddr = at(&family.vip(0), 0);
    socket.send_to(&[0; 40], &to.into()).expect("sent");
}

fn nothing_goes_round(hook: &str, algorithm: &str) {
    let world = World::new(hook, algorithm);
    for family in [V4, V6] {
        let name = |what: &str| format!("{what}, {family:?} by {hook}, {algorithm}");
        let vip = |port| at(&family.vip(0), port);
        world.far.run(|| Conn::open(vip(80)).expect("served").exchange(1_000).expect("its own bytes"));
        world.once(&name("a port of TCP"), || {
            let error = TcpStream::connect_timeout(&vip(81), Duration::from_millis(800)).err()?;
            Some(error.kind()).filter(|kind| *kind != ErrorKind::TimedOut)
        });
        world.once(&name("the port by UDP"), || {
            let socket = udp::connect(vip(80));
            socket.send(b"?").expect("sent");
            let error = socket.recv(&mut [0; 10]).err()?;
            Some(error.kind()).filter(|kind| *kind != ErrorKind::WouldBlock)
        });
        // SCTP, GRE, and one that nobody has.
        for protocol in [132, 47, 253] {
            world.once(&name(&format!("protocol {protocol}")), || {
                raw(family, protocol);
                None
            });
        }
        let ping = world.far.must(&format!("ping -n -c 1 -W 5 {}", family.vip(0)));
        assert!(ping.contains("1 received"), "{ping}");
        world.far.run(|| Conn::open(vip(80)).expect("served").exchange(1_000).expect("its own bytes"));
    }
    // What is nobody's VIP is nobody's business.
    let before = world.counted();
    let strange = at(&V4.vip(7), 80);
    let away = world.far.run(|| TcpStream::connect_timeout(&strange, Duration::from_millis(300)));
    assert!(away.is_err());
    assert_eq!(world.counted(), before);
}

#[test]
fn by_tc() {
    nothing_goes_round("tc", "least-connections");
}

#[test]
fn by_xdp() {
    nothing_goes_round("xdp", "least-connections");
}

#[test]
fn by_tc_of_a_hashed_service() {
    nothing_goes_round("tc", "consistent-hash");
}

#[test]
fn past_the_stack() {
    nothing_goes_round("fast", "least-connections");
}

/// The node's own: their packets come to it only if the router sends them back.
#[test]
fn asked_by_a_process_of_the_node() {
    let world = World::new("tc", "least-connections");
    for family in [V4, V6] {
        let before = world.received();
        let asked = world.net.node.run(|| {
            let tcp = TcpStream::connect_timeout(&at(&family.vip(0), 81), Duration::from_millis(800));
            let socket = udp::connect(at(&family.vip(0), 81));
            let _ = socket.send(b"?");
            (tcp.is_ok(), socket.recv(&mut [0; 10]).is_ok())
        });
        assert_eq!(asked, (false, false), "{family:?}: somebody answers");
        let came = world.received() - before;
        assert!(came <= 2 * FEW, "{family:?}: {came} packets came in");
    }
}
