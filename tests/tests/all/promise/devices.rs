//! Promise: whatever kind of device leads to clients or to backends, it carries their data, or is refused with a
//! reason. Kinds that this kernel lacks are tried by `scripts/test-kernels` on those that have them.

use flowpin_tests::harness::{
    Agent, Ns,
    agent::interfaces,
    devices::{Kind, Outcome, World, carries_or_says},
    netfilter::load,
    rulesets::{self, Names},
    topology::Family::{self, V4, V6},
};

fn on_both_sides(kind: Kind) {
    for (backends, attach) in [(kind, "tc"), (Kind::Veth, "xdp")] {
        match carries_or_says(kind, backends, attach) {
            Outcome::Carried => {}
            Outcome::Refused(why) => println!("refused: {why}"),
            Outcome::Lacking(what) => println!("left to other kernels: {what}"),
        }
    }
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
fn wireguard() {
    on_both_sides(Kind::Wireguard);
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
            world.with_client(pod).carries(&agent, "a pod on the same bridge");
        }
    }
}
