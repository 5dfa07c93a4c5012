//! Promise: whatever kind of device leads to clients or to backends, it carries their data, or is refused with a
//! reason.

use std::time::Duration;

use flowpin_tests::harness::{
    Agent, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    devices::{Kind, Link, connect},
    eventually,
    netfilter::load,
    rulesets::{self, Names},
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// client – node – backend, by links of two kinds.
struct World {
    client: Ns,
    node: Ns,
    _backend: Ns,
    links: [Link; 2],
    _server: Server,
}

impl World {
    /// `Err`: the kernel lacks a kind.
    fn new(uplink: Kind, backends: Kind) -> Result<Self, String> {
        let (client, node, backend) = (Ns::lenient("c"), Ns::lenient("n"), Ns::lenient("b"));
        node.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let links = [connect(uplink, &node, "up", &client, 1)?, connect(backends, &node, "be", &backend, 2)?];
        udp::echo(&backend, 53);
        let server = Server::start(&backend, "b", [80]);
        Ok(Self { client, node, _backend: backend, links, _server: server })
    }

    fn services() -> String {
        [(V4, "10.2.0.2"), (V6, "fd02::2")]
            .map(|(family, target)| {
                let ports = "\"80/tcp\", \"53/udp\"";
                service(&format!("{family:?}"), &family.vip(0), ports, &[target.into()], "")
            })
            .concat()
    }

    /// Data both ways, by TCP and UDP, counted.
    fn carries(&self, agent: &Agent, name: &str) {
        for family in [V4, V6] {
            let service = format!("{family:?}");
            self.client.run(|| {
                let one = |i| {
                    Conn::open(at(&family.vip(0), 80))
                        .unwrap_or_else(|e| panic!("{name}, {family:?}, {i}: {e}"))
                };
                let mut conns: Vec<Conn> = (0..10).map(one).collect();
                for conn in &mut conns {
                    conn.exchange(200_000).unwrap_or_else(|e| panic!("{name}, {family:?}: {e}"));
                }
                let socket = udp::connect(at(&family.vip(0), 53));
                for number in 0..20 {
                    udp::exchange(&socket, number, 1_000);
                }
                assert_eq!(agent.active(&service), [11], "{name}, {family:?}");
            });
            agent.done(&["connection", "close", "--service", &service]);
            assert_eq!(agent.active(&service), [0], "{name}, {family:?}");
        }
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0, "{name}");
    }
}

/// Why an interface isn't in use, once the agent has decided about all of them.
fn refusal(agent: &Agent, links: &[Link]) -> Option<String> {
    eventually("every interface is attached or refused", LIMIT, || {
        let status = agent.json(&["status"]);
        let all = status["interfaces"].as_array().cloned().unwrap_or_default();
        let found = |name: &str| all.iter().find(|i| i["name"] == name).cloned();
        let views: Vec<Value> = links.iter().filter_map(|link| found(&link.attach)).collect();
        let undecided = |view: &Value| view["error"].is_null() && view["mode"].is_null();
        if views.len() < links.len() || views.iter().any(undecided) {
            return Err(status.to_string());
        }
        Ok(views.iter().find_map(|view| Some(format!("{}: {}", view["name"], view["error"].as_str()?))))
    })
}

/// `attach`: how the uplink is.
fn carries_or_says(uplink: Kind, backends: Kind, attach: &str) {
    let name = format!("{uplink:?} by {attach} to clients, {backends:?} to backends");
    let world = match World::new(uplink, backends) {
        Ok(world) => world,
        Err(lacks) => return println!("skipped, {name}: {lacks}"),
    };
    let config = interfaces(&[(&world.links[0].attach, attach), (&world.links[1].attach, "tc")]);
    let mut agent = Agent::prepare(&world.node, &(config + &World::services()));
    agent.spawn(&[]);
    agent.answers();
    if let Some(why) = refusal(&agent, &world.links) {
        println!("refused, {name}: {why}");
        assert!(why.split_whitespace().count() > 4, "{name}: no reason: {why}");
        assert_eq!(agent.cli(&["status"]).status.code(), Some(1), "{name}: status has nothing against it");
        return;
    }
    println!("attached, {name}");
    world.carries(&agent, &name);
}

fn on_both_sides(kind: Kind) {
    carries_or_says(kind, kind, "tc");
    carries_or_says(kind, Kind::Veth, "xdp");
}

#[test]
fn bridges() {
    on_both_sides(Kind::Bridge);
}

#[test]
fn ports_of_bridges() {
    on_both_sides(Kind::BridgePort);
}

#[test]
fn vlans() {
    on_both_sides(Kind::Vlan);
}

#[test]
fn macvlans() {
    on_both_sides(Kind::Macvlan);
}

#[test]
fn ipvlans() {
    on_both_sides(Kind::Ipvlan);
}

#[test]
fn bonds() {
    on_both_sides(Kind::Bond);
}

#[test]
fn vxlans() {
    on_both_sides(Kind::Vxlan);
}

#[test]
fn tunnels_without_ethernet() {
    on_both_sides(Kind::Tun);
}

#[test]
fn taps() {
    on_both_sides(Kind::Tap);
}

/// The way back is the clients' side: what leads to backends need not be attached.
#[test]
fn backends_by_a_device_that_is_not_attached() {
    for (uplink, backends) in
        [("tc", Kind::Tun), ("xdp", Kind::Tun), ("tc", Kind::Bridge), ("xdp", Kind::Vxlan)]
    {
        let world = World::new(Kind::Veth, backends).unwrap_or_else(|lacks| panic!("{lacks}"));
        let config = interfaces(&[(&world.links[0].attach, uplink)]) + &World::services();
        let agent = Agent::start(&world.node, &config);
        world.carries(&agent, &format!("{uplink}, backends by {backends:?}"));
    }
}

/// A second pod on the backend's bridge.
fn neighbour(world: &World) -> Ns {
    let pod = Ns::lenient("p");
    world.node.ip(&format!("link add be2 type veth peer name eth0 netns {}", pod.name));
    world.node.ip("link set be2 up master be0");
    pod.ip("addr add 10.2.0.3/24 dev eth0");
    pod.ip("addr add fd02::3/64 dev eth0 nodad");
    pod.ip("link set eth0 up");
    pod.ip("route add default via 10.2.0.1");
    pod.ip("route add default via fd02::1");
    pod.must("ethtool -K eth0 gro on");
    flowpin_tests::harness::topology::can_solicit(&pod);
    pod
}

fn rules(family: Family) -> String {
    let (clients, backends) = match family {
        V4 => (["10.1.0.2", "10.2.0.3"], "10.2.0.2"),
        V6 => (["fd01::2", "fd02::3"], "fd02::2"),
    };
    let names = Names {
        clients: clients.map(String::from).into(),
        backends: vec![backends.into()],
        uplinks: vec!["up0".into()],
        pods: vec!["be0".into()],
    };
    rulesets::INVALID_DROP.rules(family, &names)
}

/// iptables sees what a bridge carries, as Kubernetes asks for.
#[test]
fn pods_on_a_bridge_that_iptables_sees() {
    for kind in [Kind::Bridge, Kind::BridgePort] {
        let world = World::new(Kind::Veth, kind).unwrap_or_else(|lacks| panic!("{lacks}"));
        let pod = neighbour(&world);
        world
            .node
            .must("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1");
        [V4, V6].into_iter().for_each(|family| load(&world.node, family, &rules(family)));
        let bridge = if kind == Kind::Bridge { "be0" } else { "be[l2]" };
        let config = interfaces(&[("up0", "tc"), (bridge, "tc")]) + &World::services();
        let agent = Agent::start(&world.node, &config);
        world.carries(&agent, &format!("{kind:?}"));
        if kind == Kind::BridgePort {
            // Answers to it don't leave the bridge, and leave by its port.
            let from_pod = World { client: pod, ..world };
            from_pod.carries(&agent, "a pod on the same bridge");
        }
    }
}
