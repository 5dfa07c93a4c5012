//! Promise: a balancer's rules take over new connections, and what is open through Flowpin goes on until it ends; then
//! the programs leave. And back again.

use std::{process::Stdio, time::Duration};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    netfilter::load,
    server::Server,
    topology::Family::{self, V4, V6},
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);

struct World {
    net: Net,
    agent: Agent,
    _servers: Vec<Server>,
}

impl World {
    /// Backends 0 and 1 are Flowpin's, backend 2 is where the rules of another balancer lead.
    fn new() -> Self {
        let net = Net::new(3);
        let name = |i: usize| format!("b{i}");
        let servers =
            net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &name(i), [80])).collect();
        let backends = [V4.backend(0), V4.backend(1)];
        let more = "stray = \"pass\"\non_removal = \"reset\"";
        let agent = Agent::start(
            &net.node,
            &(interfaces(&[("c0", "tc"), ("b*", "tc")])
                + &service("app", &V4.vip(0), "\"80/tcp\"", &backends, more)),
        );
        load(
            &net.node,
            V4,
            &format!(
                "*nat\n-A PREROUTING -d {} -p tcp -m tcp --dport 80 -j DNAT --to-destination {}\nCOMMIT\n",
                V4.vip(0),
                V4.target(2, 80)
            ),
        );
        Self { net, agent, _servers: servers }
    }

    fn open(&self, n: usize) -> Vec<Conn> {
        (0..n)
            .map(|_| self.net.client.run(|| Conn::open(at(&V4.vip(0), 80))).expect("somebody serves it"))
            .collect()
    }

    /// Attached programs, by their pins.
    fn links(&self) -> usize {
        std::fs::read_dir(self.agent.pins().join("links")).map_or(0, |entries| entries.count())
    }
}

fn by(conns: &[Conn], name: &str) -> usize {
    conns.iter().filter(|conn| conn.backend == name).count()
}

fn all_open(conns: &mut [Conn]) {
    conns.iter_mut().for_each(|conn| conn.exchange(100).expect("it is open"));
}

#[test]
fn no_connection_is_cut_by_a_hand_over_and_the_way_back() {
    let mut world = World::new();
    let mut old = world.open(20);
    assert_eq!([by(&old, "b0"), by(&old, "b1")], [10, 10], "the other's rules see nothing of it");

    let mut waits = world.agent.spawn_cli(&["detach", "--hand-over", "--wait"], Stdio::null());
    eventually("it has begun", LIMIT, || {
        let detached = world.agent.json(&["status"])["detached"].clone();
        if detached["detached"] == false { Ok(()) } else { Err(detached.to_string()) }
    });
    let mut new = world.open(6);
    assert_eq!(by(&new, "b2"), 6, "new connections are the other's");
    all_open(&mut old);
    let out = world.agent.cli(&["service", "add", "late", "--vip", "10.96.0.99", "--port", "80/tcp"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("flowpin attach"));

    // An agent that comes after finds what was asked of this one.
    world.agent.end(Signal::SIGKILL);
    all_open(&mut old);
    world.agent.spawn(&[]);
    world.agent.answers();
    world.agent.sweeps(3);
    all_open(&mut old);
    all_open(&mut new);
    new.extend(world.open(1));
    assert_eq!(by(&new, "b2"), 7);
    assert!(world.links() > 0 && waits.try_wait().unwrap().is_none(), "20 connections are open");
    let status = world.agent.json(&["status"]);
    assert_eq!(status["detached"]["open_connections"], 20);
    assert_eq!(status["state"], "degraded");

    drop(old);
    eventually("the programs leave", LIMIT, || match world.links() {
        0 => Ok(()),
        n => Err(format!("{n} links; {}", world.agent.json(&["status"])["detached"])),
    });
    assert!(waits.wait().unwrap().success());
    all_open(&mut new);
    new.extend(world.open(1));

    // A reload brings nothing back, and a look at interfaces neither.
    world.agent.signal(Signal::SIGHUP);
    world.agent.sweeps(2);
    assert_eq!((world.links(), by(&world.open(1), "b2")), (0, 1));

    world.agent.done(&["attach"]);
    let status = world.agent.json(&["status"]);
    assert_eq!((&status["state"], &status["detached"]), (&"ok".into(), &serde_json::Value::Null));
    let again = world.open(4);
    assert_eq!([by(&again, "b0"), by(&again, "b1")], [2, 2]);
    all_open(&mut new);
}

#[test]
fn at_the_deadline_the_programs_leave_and_with_the_agent_all_goes() {
    let mut world = World::new();
    let old = world.open(2);
    world.agent.done(&["detach", "--hand-over", "--deadline", "2s", "--wait"]);
    assert_eq!(world.links(), 0);
    assert_eq!(by(&world.open(1), "b2"), 1);
    world.agent.end(Signal::SIGTERM);
    assert!(!world.agent.pins().exists(), "nothing is left in the kernel");
    drop(old);
}

#[test]
fn without_an_agent_what_it_left_is_removed() {
    let mut world = World::new();
    let pins = world.agent.pins().to_str().unwrap().to_string();
    world.agent.end(Signal::SIGKILL);
    assert!(world.links() > 0);
    let out = world.agent.cli(&["detach", "--hand-over"]);
    assert_eq!(out.status.code(), Some(3), "that needs an agent");
    let detach = |world: &World| {
        let mut command = world.net.node.command(world.agent.binary.to_str().unwrap());
        command.args(["--api-socket", "/nowhere/api.sock", "detach", "--pin-dir", &pins]);
        command.output().expect("it runs")
    };
    let out = detach(&world);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!world.agent.pins().exists());
    // The kernel takes a link's program off a moment after its last name is gone.
    let served = || world.net.client.run(|| Conn::open(at(&V4.vip(0), 80)));
    eventually("new connections are the other's", LIMIT, || match served() {
        Ok(conn) if conn.backend == "b2" => Ok(()),
        // One that was opened meanwhile is cut.
        other => Err(format!("{other:?}")),
    });
    assert_eq!(detach(&world).status.code(), Some(1), "there is nothing more");
}

/// Who comes after masquerades to ports of the same address: each of ours is kept from it while its connection is open.
fn ports_are_kept(family: Family) {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b", [80]);
    let config = "[snat]\naddresses = [\"10.2.0.1\", \"fd02:0::1\"]\nports = \"2000-2063\"\n".to_string()
        + &interfaces(&[("c0", "tc"), ("b0", "tc")])
        + &service(
            "app",
            &family.vip(0),
            "\"80/tcp\"",
            &[family.backend(0)],
            "forward = \"snat\"\nstray = \"pass\"",
        );
    let agent = Agent::start(&net.node, &config);
    let (vip, backend, target) = (family.vip(0), family.backend(0), family.target(0, 80));
    let rules = format!(
        "*nat\n-A PREROUTING -d {vip} -p tcp -m tcp --dport 80 -j DNAT --to-destination {target}\n\
         -A POSTROUTING -d {backend} -p tcp -j MASQUERADE --to-ports 2000-2063\nCOMMIT\n"
    );
    load(&net.node, family, &rules);
    let open = |count: usize| -> Vec<Conn> {
        let one = |i| Conn::open(at(&vip, 80)).unwrap_or_else(|e| panic!("{i}: {e}"));
        net.client.run(|| (0..count).map(one).collect())
    };
    let ours = match family {
        V4 => "-f ipv4 --orig-src 10.2.0.1",
        V6 => "-f ipv6 --orig-src fd02:0::1",
    };
    let kept = |wanted: usize| {
        eventually("ports in nf_conntrack", LIMIT, || {
            match net.node.must(&format!("conntrack -L {ours} -p tcp")).lines().count() {
                n if n == wanted => Ok(()),
                n => Err(format!("{n}, not {wanted}")),
            }
        });
    };
    let mut old = open(30);
    kept(0);
    agent.done(&["detach", "--hand-over"]);
    kept(30);
    let mut new = open(30);
    old.iter_mut().chain(&mut new).for_each(|conn| conn.exchange(1_000).expect("its own bytes"));
    assert_eq!(agent.json(&["status"])["detached"]["open_connections"], 30, "the others are the rules'");
    drop(old);
    kept(0);
    all_open(&mut new);
}

#[test]
fn a_masquerade_takes_no_port_of_what_goes_on() {
    ports_are_kept(V4);
    ports_are_kept(V6);
}
