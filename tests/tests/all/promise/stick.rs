//! Promise: a box with one interface takes packets in and sends them on by it, in XDP, and its IP stack sees next to none of them.
//!
//! ```text
//! client 10.1.0.2 ─ router 10.6.0.254 ─┬─ switch ─┬─ box 10.6.0.1
//!                                      └          ├─ backend 10.6.0.2
//!                                                 └─ backend 10.6.0.3
//! ```

use std::net::UdpSocket;

use flowpin_tests::harness::{
    Agent, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::{
        Family::{self, V4, V6},
        can_solicit,
    },
    udp,
};

struct World {
    client: Ns,
    boxed: Ns,
    backends: [Ns; 2],
    _between: [Ns; 2],
}

impl World {
    fn new() -> Self {
        let new = |name| {
            let ns = Ns::lenient(name);
            ns.must("sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0");
            ns
        };
        let (client, boxed, router, switch) = (new("c"), new("n"), new("r"), new("s"));
        let backends = ["b0", "b1"].map(new);
        for ns in [&router, &boxed] {
            ns.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        }
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let hosts = [(1, &boxed), (2, &backends[0]), (3, &backends[1]), (254, &router)];
        for (host, ns) in hosts {
            switch.ip(&format!("link add port{host} type veth peer name eth0 netns {}", ns.name));
            switch.ip(&format!("link set port{host} master br0 up"));
            // A veth takes what XDP sends only with GRO on, and nobody finishes a checksum on the way.
            switch.must(&format!("ethtool -K port{host} gro on tx off"));
            ns.ip(&format!("addr add 10.6.0.{host}/24 dev eth0"));
            ns.ip(&format!("addr add fd06::{host:x}/64 dev eth0 nodad"));
            ns.ip("link set eth0 up");
            ns.must("ethtool -K eth0 tx off");
        }
        router.ip(&format!("link add eth1 type veth peer name eth0 netns {}", client.name));
        for (ns, dev, host) in [(&router, "eth1", 1), (&client, "eth0", 2)] {
            ns.ip(&format!("addr add 10.1.0.{host}/24 dev {dev}"));
            ns.ip(&format!("addr add fd01::{host}/64 dev {dev} nodad"));
            ns.ip(&format!("link set {dev} up"));
            ns.must(&format!("ethtool -K {dev} tx off"));
        }
        for (ns, v4, v6) in [
            (&client, "10.1.0.1", "fd01::1"),
            (&boxed, "10.6.0.254", "fd06::fe"),
            (&backends[0], "10.6.0.1", "fd06::1"),
            (&backends[1], "10.6.0.1", "fd06::1"),
        ] {
            ns.ip(&format!("route add default via {v4}"));
            ns.ip(&format!("route add default via {v6}"));
        }
        router.ip("route add 10.96.0.0/16 via 10.6.0.1");
        router.ip("route add fd96::/64 via fd06::1");
        for ns in backends.iter().chain([&client, &boxed, &router]) {
            can_solicit(ns);
        }
        Self { client, boxed, backends, _between: [router, switch] }
    }

    /// Packets that the box's IP stack has forwarded, both families.
    fn forwarded(&self) -> u64 {
        let v4 = self.boxed.must("cat /proc/net/snmp");
        let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let at = names.split_whitespace().position(|n| n == "ForwDatagrams").expect("a counter");
        let v6 = self.boxed.must("cat /proc/net/snmp6");
        let six = v6.lines().find(|l| l.starts_with("Ip6OutForwDatagrams")).expect("a counter");
        let number = |text: Option<&str>| text.expect("a value").parse::<u64>().expect("a number");
        number(values.split_whitespace().nth(at)) + number(six.split_whitespace().nth(1))
    }
}

fn talk(world: &World, agent: &Agent, family: Family, name: &str) {
    let vip = family.vip(0);
    world.client.run(|| {
        let mut conns: Vec<Conn> = (0..8).map(|_| Conn::open(at(&vip, 80)).expect("answered")).collect();
        for conn in &mut conns {
            (0..16).for_each(|_| conn.exchange(65_536).expect("its own bytes"));
        }
        let sockets: Vec<UdpSocket> = (0..8).map(|_| udp::connect(at(&vip, 53))).collect();
        for (number, socket) in (0..).zip(&sockets) {
            udp::exchange(socket, number, 1_000);
            udp::exchange(socket, number, 8_000);
        }
        assert_eq!(agent.active(name), [8, 8]);
    });
}

/// With NAT backends answer to the box, which is their router; with source NAT they would wherever their router is.
fn on_a_stick(forward: &str) {
    let world = World::new();
    for (i, ns) in world.backends.iter().enumerate() {
        udp::echo(ns, 53);
        Server::start(ns, &format!("b{i}"), [80]);
    }
    let service = |name, family: Family, targets: [&str; 2]| {
        let more = format!("forward = \"{forward}\"");
        service(name, &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets.map(String::from), &more)
    };
    let config = interfaces(&[("eth0", "xdp-fast")])
        + "[snat]\naddresses = [\"10.6.0.1\", \"fd06::1\"]\n"
        + &service("v4", V4, ["10.6.0.2", "10.6.0.3"])
        + &service("v6", V6, ["fd06::2", "fd06::3"]);
    let agent = Agent::start(&world.boxed, &config);
    assert_eq!(agent.json(&["status"])["interfaces"][0]["mode"], "xdp-native");
    for (name, family) in [("v4", V4), ("v6", V6)] {
        let before = world.forwarded();
        talk(&world, &agent, family, name);
        let (view, passed) = (agent.json(&["service", "show", name]), world.forwarded() - before);
        let backends = view["backends"].as_array().unwrap();
        let packets: u64 = backends.iter().map(|b| b["packets_in"].as_u64().unwrap()).sum();
        assert!(packets > 2_000, "{view}");
        // Those that came before the kernel knew the neighbours, and nothing else.
        assert!(passed < 100, "{passed} packets of more than {packets} went by the stack");
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

#[test]
fn with_nat() {
    on_a_stick("nat");
}

#[test]
fn with_source_nat() {
    on_a_stick("snat");
}
