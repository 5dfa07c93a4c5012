//! Promise: the network can speak through Flowpin. Path MTU discovery works, traceroute and ping show what is there, fragments arrive.

use std::net::UdpSocket;

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

/// Each way of attaching, with answers translated where they leave and where they come in.
const HOOKS: [&str; 6] = ["tc", "fast", "peer", "xdp", "tc-ingress", "xdp-ingress"];

/// A server behind two routers more, the link between which carries 1,400 bytes:
///
/// ```text
/// client ─ c0 [node] b0 ─ eth0 [near] hop ─1400─ hop [beyond] far ─ eth0 [server]
/// ```
struct Far {
    net: Net,
    server: Ns,
    _beyond: Ns,
}

impl Far {
    fn new() -> Self {
        let net = Net::new(1);
        let (beyond, server) = (Ns::new("r"), Ns::new("s"));
        let near = &net.backends[0];
        for ns in [near, &beyond, &server] {
            ns.must("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        }
        near.ip(&format!("link add hop mtu 1400 type veth peer name hop mtu 1400 netns {}", beyond.name));
        beyond.ip(&format!("link add far type veth peer name eth0 netns {}", server.name));
        let links = [
            (near, "hop", "10.3.0.1", "fd03::1"),
            (&beyond, "hop", "10.3.0.2", "fd03::2"),
            (&beyond, "far", "10.4.0.1", "fd04::1"),
            (&server, "eth0", "10.4.0.2", "fd04::2"),
        ];
        for (ns, link, v4, v6) in links {
            ns.ip(&format!("addr add {v4}/24 dev {link}"));
            ns.ip(&format!("addr add {v6}/64 dev {link} nodad"));
            ns.ip(&format!("link set {link} up"));
        }
        for (ns, to, via4, via6) in [
            (&net.node, ["10.4.0.0/24", "fd04::/64"], "10.2.0.2", "fd02:0::2"),
            (near, ["10.4.0.0/24", "fd04::/64"], "10.3.0.2", "fd03::2"),
            (&beyond, ["default", "default"], "10.3.0.1", "fd03::1"),
            (&server, ["default", "default"], "10.4.0.1", "fd04::1"),
        ] {
            ns.ip(&format!("route add {} via {via4}", to[0]));
            ns.ip(&format!("-6 route add {} via {via6}", to[1]));
        }
        for ns in [near, &beyond, &server] {
            flowpin_tests::harness::topology::can_solicit(ns);
        }
        Self { net, server, _beyond: beyond }
    }

    fn agent(&self, hook: &str) -> Agent {
        let services: String = [(V4, "10.4.0.2"), (V6, "fd04::2")]
            .map(|(family, server)| {
                let name = format!("{family:?}");
                service(&name, &family.vip(0), "\"80/tcp\", \"53/udp\"", &[server.into()], "")
            })
            .concat();
        Agent::start(&self.net.node, &(interfaces(&[("c0", hook), ("b0", hook)]) + &services))
    }
}

/// How the backends' side is attached beside such an uplink.
fn pods(uplink: &str) -> &'static str {
    if uplink.ends_with("-ingress") { "tc-ingress" } else { "tc" }
}

/// A mebibyte each way in pieces that fill packets.
fn upload(ns: &Ns, family: Family) {
    ns.run(|| {
        let mut conn = Conn::open(at(&family.vip(0), 80)).expect("answered");
        (0..16).for_each(|i| conn.exchange(65_536).unwrap_or_else(|e| panic!("{family:?}, piece {i}: {e}")));
    });
}

/// What the kernel believes of the path to a VIP.
fn path_mtu(ns: &Ns, family: Family) -> Option<u32> {
    let route = ns.ip(&format!("route get {}", family.vip(0)));
    let mut words = route.split_whitespace().skip_while(|w| *w != "mtu");
    words.nth(1)?.parse().ok()
}

#[test]
fn path_mtu_is_discovered_through_flowpin() {
    for hook in HOOKS {
        let far = Far::new();
        let _server = Server::start(&far.server, "s", [80]);
        let _agent = far.agent(hook);
        for family in [V4, V6] {
            upload(&far.net.client, family);
            assert_eq!(path_mtu(&far.net.client, family), Some(1400), "{family:?} by {hook}");
        }
    }
}

#[test]
fn the_nodes_own_word_of_a_narrow_link_is_understood() {
    for hook in HOOKS {
        let net = Net::new(1);
        net.node.ip("link set b0 mtu 1300");
        let _server = Server::start(&net.backends[0], "s", [80]);
        let services: String = [V4, V6]
            .map(|f| service(&format!("{f:?}"), &f.vip(0), "\"80/tcp\"", &[f.backend(0)], ""))
            .concat();
        let _agent = Agent::start(&net.node, &(interfaces(&[("c0", hook), ("b0", pods(hook))]) + &services));
        for family in [V4, V6] {
            upload(&net.client, family);
            assert_eq!(path_mtu(&net.client, family), Some(1300), "{family:?} by {hook}");
        }
    }
}

#[test]
fn traceroute_and_ping_behave() {
    for hook in HOOKS {
        let far = Far::new();
        let _server = Server::start(&far.server, "s", [80]);
        udp::echo(&far.server, 53);
        let agent = far.agent(hook);
        for (family, hops) in
            [(V4, ["10.1.0.1", "10.2.0.2", "10.3.0.2"]), (V6, ["fd01::1", "fd02:0::2", "fd03::2"])]
        {
            let vip = family.vip(0);
            let pings = far.net.client.must(&format!("ping -n -c 3 -i 0.2 -W 5 {vip}"));
            assert!(pings.contains("3 received"), "{pings}");
            for how in ["-T -p 80", "-U -p 53"] {
                let found = far.net.client.must(&format!("traceroute -n -q 1 -w 5 -m 8 {how} {vip}"));
                // After the first line, a hop each: number, address, time.
                let seen: Vec<&str> = found
                    .lines()
                    .skip(1)
                    .map(|line| line.split_whitespace().nth(1).unwrap_or_default())
                    .collect();
                let ip = |text: &str| text.parse::<std::net::IpAddr>().ok();
                let wanted: Vec<_> = hops.iter().copied().chain([vip.as_str()]).map(ip).collect();
                let seen: Vec<_> = seen.into_iter().map(ip).collect();
                assert_eq!(seen, wanted, "{family:?} {how} by {hook}:\n{found}");
            }
        }
        assert_eq!(agent.sweeps(1)["accounting_drift"], 0);
    }
}

#[test]
fn large_datagrams_arrive_in_fragments() {
    for (client, server) in [
        ("tc", "tc"),
        ("fast", "fast"),
        ("peer", "peer"),
        ("xdp", "xdp"),
        ("xdp", "tc"),
        ("tc-ingress", "tc-ingress"),
        ("xdp-ingress", "xdp-ingress"),
    ] {
        let net = Net::new(2);
        net.backends.iter().for_each(|ns| udp::echo(ns, 53));
        let services: String = [V4, V6]
            .map(|f| {
                let backends: Vec<String> = (0..2).map(|i| f.backend(i)).collect();
                service(&format!("{f:?}"), &f.vip(0), "\"53/udp\"", &backends, "")
            })
            .concat();
        let agent = Agent::start(&net.node, &(interfaces(&[("c0", client), ("b*", server)]) + &services));
        let mut again = 0;
        for family in [V4, V6] {
            let sockets: Vec<UdpSocket> =
                net.client.run(|| (0..4).map(|_| udp::connect(at(&family.vip(0), 53))).collect());
            for number in 0..200 {
                for socket in &sockets {
                    again += udp::exchange(socket, number, 8_000 + number as usize);
                }
            }
            assert_eq!(agent.active(&format!("{family:?}")), [2, 2], "{family:?} by {client} and {server}");
        }
        assert!(again < 80, "{again} of 1,600 were not answered at once");
        // A sender that changes its CPU in the middle of a datagram may have its fragments overtake each other; then it isn't answered.
        let dropped = agent.json(&["stats"])["drops"]["fragment"].as_u64().unwrap_or(0);
        assert!(dropped <= 12 * again as u64, "{dropped} fragments dropped, {again} datagrams lost");
    }
}
