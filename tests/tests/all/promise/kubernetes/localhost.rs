//! Promise: node ports at localhost, if they are asked for: processes of the node reach endpoints, and nobody else does.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Cgroup, Net,
    client::{Conn, at},
    eventually,
    topology::Family::{V4, V6},
    udp,
};
use nix::sys::signal::Signal;

use super::{LIMIT, World};

const PORT: u16 = 30_090;
const UDP: u16 = 30_053;
const AT_LOCALHOST: &str = "node_port_addresses = [\"primary\", \"localhost\"]";

/// A Service of both families, by TCP and UDP.
fn both() -> String {
    let slice = |name: &str, family: &str, backends: [String; 2]| {
        format!(
            "- kind: EndpointSlice
  metadata: {{namespace: d, name: {name}, labels: {{kubernetes.io/service-name: both}}}}
  addressType: {family}
  ports: [{{name: http, port: 80}}, {{name: dns, port: 53, protocol: UDP}}]
  endpoints: [{{addresses: ['{}'], nodeName: other}}, {{addresses: ['{}'], nodeName: other}}]
",
            backends[0], backends[1]
        )
    };
    format!(
        "- kind: Service
  metadata: {{namespace: d, name: both, uid: both-1}}
  spec:
    type: NodePort
    externalTrafficPolicy: Local
    clusterIP: {}
    clusterIPs: ['{}', '{}']
    ipFamilies: [IPv4, IPv6]
    ports: [{{name: http, port: 80, nodePort: {PORT}}}, {{name: dns, port: 53, protocol: UDP, nodePort: {UDP}}}]
",
        V4.vip(3),
        V4.vip(3),
        V6.vip(3)
    ) + &slice("both-4", "IPv4", [0, 1].map(|i| V4.backend(i)))
        + &slice("both-6", "IPv6", [0, 1].map(|i| V6.backend(i)))
}

fn world(sockets: &str, more: &str) -> World {
    let net = Net::new(2);
    net.backends.iter().for_each(|ns| udp::echo(ns, 53));
    let world = World::with(net, sockets, more);
    world.api.apply(&both());
    world.are(&["cli", "d/a:http", "d/both:dns", "d/both:http", "file"]);
    world.has_backends("d/both:dns");
    world.has_backends("d/both:http");
    world
}

fn total(agent: &Agent, service: &str) -> u64 {
    agent.active(service).iter().sum()
}

fn none_left(agent: &Agent) {
    eventually("nothing is open", LIMIT, || {
        match ["d/both:dns", "d/both:http"].map(|service| total(agent, service)) {
            [0, 0] => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    });
}

#[test]
fn processes_of_the_node_reach_endpoints_by_localhost() {
    let mut world = world("[sockets]\nscope = \"host\"\n", AT_LOCALHOST);
    for address in ["127.0.0.1", "::1"] {
        let World { net, agent, .. } = &mut world;
        net.node.run(|| {
            let (tcp, dns) = (at(address, PORT), at(address, UDP));
            let mut conns: Vec<Conn> = (0..20).map(|_| Conn::open(tcp).expect("it is served")).collect();
            assert!(conns.iter().all(|c| c.stream.peer_addr().expect("connected") == tcp));
            // Those of the other family count as well, and have none.
            let mut counts = agent.active("d/both:http");
            counts.sort_unstable();
            assert_eq!(counts, [0, 0, 10, 10], "{address}");
            agent.end(Signal::SIGKILL);
            conns.iter_mut().for_each(|conn| conn.exchange(5_000).expect("without an agent too"));
            conns.extend((0..10).map(|_| Conn::open(tcp).expect("and so is opening")));
            agent.up();
            assert_eq!(total(agent, "d/both:http"), 30);
            let list = agent.json(&["connection", "list", "--service", "d/both:http"]);
            let at_localhost =
                list.as_array().expect("a list").iter().filter(|c| c["vip"] == tcp.to_string());
            assert_eq!(at_localhost.count(), 30, "{list}");
            let socket = udp::connect(dns);
            udp::exchange(&socket, 1, 1000);
            assert_eq!(total(agent, "d/both:dns"), 1);
        });
        none_left(agent);
    }
    assert_eq!(world.agent.sweeps(3)["accounting_drift"], 0);
    let said = world.agent.json(&["explain", "127.0.0.1", "127.0.0.1:30090"]);
    let frontend = &said["kubernetes"]["frontend"];
    assert_eq!((frontend, said["candidates"][0]["takes_new"].as_bool()), (&"node port".into(), Some(true)));
    let said = world.agent.json(&["explain", &V4.backend(0), "127.0.0.1:30090"]);
    assert_eq!(said["why"], "only processes of the node get to a loopback address", "{said}");

    // Whoever sends packets there from elsewhere gets nowhere: it isn't the node's address for them.
    let client = &world.net.client;
    client.must("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    client.ip("addr del 127.0.0.1/8 dev lo");
    client.ip("route add 127.0.0.1 via 10.1.0.1 dev eth0");
    client.run(|| {
        let there = at("127.0.0.1", PORT);
        let error = TcpStream::connect_timeout(&there, Duration::from_millis(300)).expect_err("served");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    });
    let drops = world.agent.json(&["stats"])["drops"].clone();
    assert!(drops["source_not_allowed"].as_u64() > Some(0), "{drops}");

    // The Service goes, and its port with it.
    world.api.delete("services", "d/both");
    world.are(&["cli", "d/a:http", "file"]);
    world.net.node.run(|| {
        let error = TcpStream::connect(at("127.0.0.1", PORT)).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    });
}

#[test]
fn pods_have_a_localhost_of_their_own() {
    let cgroup = Cgroup::enter();
    let sockets = format!("[sockets]\nscope = \"all\"\ncgroup = \"{}\"\n", cgroup.path().display());
    let world = world(&sockets, AT_LOCALHOST);
    world.net.client.run(|| {
        // By the cluster address it is led at its socket, so the hook is there for it.
        let conn = Conn::open(at(&V4.vip(3), 80)).expect("it is served");
        assert_eq!(total(&world.agent, "d/both:http"), 1);
        drop(conn);
        let there = at("127.0.0.1", PORT);
        assert_eq!(TcpStream::connect(there).expect_err("nobody is").kind(), ErrorKind::ConnectionRefused);
        let own = TcpListener::bind(there).expect("its own");
        let (stream, peer) = (TcpStream::connect(there).expect("its own"), own.accept().expect("it came").1);
        assert_eq!(stream.local_addr().expect("connected"), peer);
    });
    let conn = world.net.node.run(|| Conn::open(at("127.0.0.1", PORT))).expect("it is served");
    drop(conn);
    none_left(&world.agent);
    assert_eq!(world.agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn localhost_is_only_what_it_was_unless_asked_for() {
    let world = world("[sockets]\nscope = \"host\"\n", "");
    world.net.node.run(|| {
        assert!(Conn::open(at("10.1.0.1", PORT)).is_ok(), "the primary address is served");
        for there in ["127.0.0.1", "::1"].map(|address| at(address, PORT)) {
            let error = TcpStream::connect(there).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        }
        // A server of the node's own.
        let own = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], PORT))).expect("a port");
        let there = own.local_addr().expect("an address");
        let (stream, peer) = (TcpStream::connect(there).expect("its own"), own.accept().expect("it came").1);
        assert_eq!(stream.local_addr().expect("connected"), peer);
    });
}
