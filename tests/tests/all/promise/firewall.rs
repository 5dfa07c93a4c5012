//! Promise: a firewall of the host's sees client and backend in both directions, and nothing that it allows is
//! refused or broken, whether it was there first or is loaded while connections are open.
//!
//! ```text
//! client 10.1.0.2 ─ c0 (TC) ┐          ┌ b0 ─ 10.2.0.2 backend
//!                           ├── node ──┤
//! client 10.2.2.2 ─ b2 (XDP)┘          └ b1 ─ 10.2.1.2 backend
//! ```

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    netfilter::{Tracked, load, tracked, unload},
    rulesets::{self, Names, RuleSet},
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);
/// TCP connections of a client to a VIP at a time.
const MANY: usize = 200;
/// UDP sockets of a client that ask a VIP.
const SOCKETS: usize = 20;
/// Below what the kernel gives clients, so that those past the VIP are told from those through it.
const PAST: u16 = 20_000;
/// Starts conntrack, and lets everything pass.
const WATCH: &str = "*filter\n-A FORWARD -m conntrack --ctstate NEW\nCOMMIT\n";

struct World {
    net: Net,
    servers: Vec<Server>,
    agent: Agent,
}

/// A client: its name, and the number in its addresses if it isn't [`Net::client`].
const CLIENTS: [(&str, Option<usize>); 2] = [("by TC", None), ("by XDP", Some(2))];

fn address(client: Option<usize>, family: Family) -> String {
    match (client, family) {
        (Some(i), _) => family.backend(i),
        (None, V4) => "10.1.0.2".into(),
        (None, V6) => "fd01::2".into(),
    }
}

fn names(family: Family) -> Names {
    Names {
        clients: CLIENTS.iter().map(|(_, client)| address(*client, family)).collect(),
        backends: (0..2).map(|i| family.backend(i)).collect(),
        uplinks: vec!["c0".into(), "b2".into()],
        pods: vec!["b0".into(), "b1".into()],
    }
}

fn config(more: &str) -> String {
    let services = [V4, V6].map(|family| {
        let targets = names(family).backends;
        service(&format!("{family:?}"), &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets, more)
    });
    interfaces(&[("c0", "tc"), ("b2", "xdp"), ("b0", "tc"), ("b1", "tc")]) + &services.concat()
}

impl World {
    fn new() -> Self {
        let net = Net::new(3);
        net.backends[2].must("ethtool -K eth0 gro on");
        let servers = net.backends[..2].iter().enumerate().map(|(i, ns)| {
            udp::echo(ns, 53);
            Server::start(ns, &format!("b{i}"), [80])
        });
        let servers = servers.collect();
        let agent = Agent::start(&net.node, &config(""));
        Self { net, servers, agent }
    }

    fn client(&self, client: Option<usize>) -> &Ns {
        client.map_or(&self.net.client, |i| &self.net.backends[i])
    }

    fn load(&self, set: &RuleSet) {
        for family in [V4, V6] {
            load(&self.net.node, family, &set.rules(family, &names(family)));
        }
    }

    /// What doesn't ask the VIP passes: a rule set that lets nobody through shows nothing.
    fn past_the_vip(&self) {
        for ((who, client), family) in cells() {
            self.client(client).run(|| {
                for i in 0..10 {
                    let (from, to) = (at(&address(client, family), PAST + i), at(&family.backend(0), 80));
                    let conn = Conn::open_from(from, to);
                    let mut conn =
                        conn.unwrap_or_else(|e| panic!("{who}, {family:?}, past the VIP, {i}: {e}"));
                    conn.exchange(1_000).expect("past the VIP");
                }
            });
        }
    }

    fn open(&self) -> Vec<Talk> {
        cells().map(|((who, client), family)| Talk::open(self, who, client, family)).collect()
    }

    /// conntrack has every connection as one between client and backend.
    fn seen_whole(&self, talks: &[Talk]) {
        for talk in talks {
            let all = tracked(&self.net.node, talk.family);
            let vip: IpAddr = talk.family.vip(0).parse().expect("an address");
            let strange = all.iter().find(|t| t.names(vip));
            assert!(strange.is_none(), "{}: the VIP is seen: {strange:?}", talk.name);
            let client: IpAddr = address(talk.client, talk.family).parse().expect("an address");
            let backends: Vec<IpAddr> =
                names(talk.family).backends.iter().map(|b| b.parse().expect("an address")).collect();
            let ours: Vec<_> = all
                .iter()
                .filter(|t| t.original[0].0 == client && !(PAST..PAST + 10).contains(&t.original[0].1))
                .filter(|t| backends.contains(&t.original[1].0))
                .collect();
            let whole = |t: &Tracked| t.protocol == "tcp" && t.state == "ESTABLISHED" && t.assured;
            let tcp = ours.iter().filter(|t| whole(t)).count();
            let udp = ours.iter().filter(|t| t.protocol == "udp" && t.answered).count();
            assert!(tcp >= MANY && udp >= SOCKETS, "{}: {tcp} by TCP, {udp} by UDP: {ours:#?}", talk.name);
        }
    }

    fn count(&self, family: Family, wanted: u64) {
        eventually("what is open counts", LIMIT, || {
            match self.agent.active(&format!("{family:?}")).iter().sum::<u64>() {
                n if n == wanted => Ok(()),
                n => Err(format!("{family:?}: {n}, not {wanted}")),
            }
        });
    }

    /// Ends TCP by the clients, then UDP, which would be forgotten in time, by the operator.
    fn close(&self, mut talks: Vec<Talk>) {
        talks.iter_mut().for_each(|talk| talk.conns.clear());
        for family in [V4, V6] {
            self.count(family, (CLIENTS.len() * SOCKETS) as u64);
            self.agent.done(&["connection", "close", "--service", &format!("{family:?}")]);
            self.count(family, 0);
        }
    }
}

fn cells() -> impl Iterator<Item = ((&'static str, Option<usize>), Family)> {
    CLIENTS.into_iter().flat_map(|client| [V4, V6].map(|family| (client, family)))
}

/// What a client has open at a VIP.
struct Talk {
    name: String,
    client: Option<usize>,
    family: Family,
    conns: Vec<Conn>,
    sockets: Vec<UdpSocket>,
}

impl Talk {
    fn open(world: &World, who: &str, client: Option<usize>, family: Family) -> Self {
        let name = format!("{who}, {family:?}");
        let one = |i: usize| {
            Conn::open(at(&family.vip(0), 80)).unwrap_or_else(|e| panic!("{name}, connection {i}: {e}"))
        };
        let (conns, sockets) = world.client(client).run(|| {
            let sockets = (0..SOCKETS).map(|_| udp::connect(at(&family.vip(0), 53))).collect();
            ((0..MANY).map(one).collect::<Vec<_>>(), sockets)
        });
        let each = |backend: &str| conns.iter().filter(|c| c.backend == backend).count();
        assert_eq!((each("b0"), each("b1")), (MANY / 2, MANY / 2), "{name}");
        Self { name, client, family, conns, sockets }
    }

    /// Data both ways over each connection, twice; no datagram is lost.
    fn exchange(&mut self, when: &str) {
        let name = format!("{}, {when}", self.name);
        for round in 0..2 {
            for (i, conn) in self.conns.iter_mut().enumerate() {
                let len = if i == 0 { 1_000_000 } else { 1_000 };
                conn.exchange(len).unwrap_or_else(|e| panic!("{name}, round {round}, connection {i}: {e}"));
            }
        }
        let again: usize = self.sockets.iter().map(|s| udp::exchange(s, 7, 1_000)).sum();
        assert_eq!(again, 0, "{name}: datagrams were lost");
    }
}

fn beside(set: &RuleSet) {
    let world = World::new();
    world.load(set);
    world.past_the_vip();
    let mut talks = world.open();
    talks.iter_mut().for_each(|t| t.exchange("rules first"));
    world.seen_whole(&talks);
    world.close(talks);

    unload(&world.net.node);
    if !set.picks_up {
        [V4, V6].into_iter().for_each(|family| load(&world.net.node, family, WATCH));
    }
    let mut talks = world.open();
    talks.iter_mut().for_each(|t| t.exchange("no rules"));
    world.load(set);
    talks.iter_mut().for_each(|t| t.exchange("rules later"));
    world.seen_whole(&talks);
    world.close(talks);
    assert_eq!(world.agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn invalid_is_dropped_as_kube_proxy_does() {
    beside(&rulesets::INVALID_DROP);
}

#[test]
fn nothing_is_forwarded_but_to_backends_ports() {
    beside(&rulesets::FORWARD_DROP);
}

#[test]
fn policies_on_real_addresses_without_a_state() {
    beside(&rulesets::POLICIES);
}

#[test]
fn policies_on_real_addresses_with_a_state() {
    beside(&rulesets::WORKLOADS);
}

#[test]
fn a_zone_of_firewalld() {
    beside(&rulesets::FIREWALLD);
}

#[test]
fn routes_that_ufw_allows() {
    beside(&rulesets::UFW);
}

#[test]
fn published_ports_of_docker() {
    beside(&rulesets::DOCKER);
}

#[test]
fn invalid_is_dropped_before_routing() {
    beside(&rulesets::HARDENED);
}

#[test]
fn masquerade_towards_backends() {
    beside(&rulesets::MASQUERADE_TO_BACKENDS);
}

#[test]
fn masquerade_towards_clients() {
    beside(&rulesets::MASQUERADE_TO_CLIENTS);
}

#[test]
fn the_way_back_is_looked_for_by_a_rule() {
    beside(&rulesets::REVERSE_PATH);
}

#[test]
fn the_way_back_is_looked_for_by_the_kernel() {
    let world = World::new();
    for strict in ["0", "1"] {
        for link in ["all", "default", "c0", "b0", "b1", "b2"] {
            world.net.node.must(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={strict}"));
        }
        let mut talks = world.open();
        talks.iter_mut().for_each(|t| t.exchange(&format!("rp_filter {strict}")));
        // Turned on while they are open, too.
        world.net.node.must("sysctl -qw net.ipv4.conf.all.rp_filter=1");
        talks.iter_mut().for_each(|t| t.exchange("rp_filter 1"));
        world.close(talks);
    }
}

/// Waits for the end of a connection, which is a reset.
fn reset(conn: &mut Conn) {
    let end = conn.stream.read(&mut [0]).expect_err("it is reset");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

/// Closing makes packets of our own: to both ends, out of any window.
#[test]
fn closed_by_the_operator_behind_a_firewall() {
    let mut world = World::new();
    for set in [rulesets::INVALID_DROP, rulesets::FIREWALLD] {
        unload(&world.net.node);
        world.load(&set);
        let mut talks = world.open();
        talks.iter_mut().for_each(|t| t.exchange("before it is closed"));
        for family in [V4, V6] {
            world.agent.done(&["connection", "close", "--service", &format!("{family:?}")]);
        }
        for conn in talks.iter_mut().flat_map(|t| &mut t.conns) {
            reset(conn);
        }
        eventually("the backends' ends", LIMIT, || {
            match world.servers.iter().map(Server::open).sum::<usize>() {
                0 => Ok(()),
                n => Err(format!("{n} are open")),
            }
        });
        [V4, V6].into_iter().for_each(|family| world.count(family, 0));
    }
    // And at a drain's deadline.
    world.agent.end(Signal::SIGTERM);
    world.agent.write_config(&config("on_deadline = \"reset\""));
    world.agent.up();
    let mut talks = world.open();
    for family in [V4, V6] {
        let backend = at(&family.backend(0), 80).ip().to_string();
        world.agent.done(&[
            "backend",
            "drain",
            &format!("{family:?}"),
            &backend,
            "--deadline",
            "1s",
            "--wait",
        ]);
    }
    for conn in talks.iter_mut().flat_map(|t| &mut t.conns).filter(|c| c.backend == "b0") {
        reset(conn);
    }
    eventually("the drained backend's ends", LIMIT, || match world.servers[0].open() {
        0 => Ok(()),
        n => Err(format!("{n} are open")),
    });
}
