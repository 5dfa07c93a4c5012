//! Promise: a service with a limit as a whole has exactly as many connections as that, over all backends and
//! frontends; who is beyond is refused at once, and what is open stays.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};
use nix::sys::signal::Signal;

/// Connections that a service takes, of three times as many that are tried.
const MOST: usize = 20;
/// Datagrams beyond that: no more than the node answers at once.
const BEYOND: usize = 5;
const LIMIT: Duration = Duration::from_secs(20);
/// Hooks and ways to choose.
const WAYS: [(&str, &str); 4] = [
    ("tc", "least-connections"),
    ("xdp", "consistent-hash"),
    ("tc", "consistent-hash"),
    ("xdp", "least-connections"),
];

/// `v4` and `v6`, by TCP and UDP, each at two addresses. `before`: other tables.
fn setup(hook: &str, before: &str, more: &str) -> (Net, Vec<Server>, Agent) {
    let net = Net::new(3);
    let servers = net.backends.iter().enumerate().map(|(i, ns)| {
        udp::echo(ns, 53);
        Server::start(ns, &format!("b{i}"), [80])
    });
    let servers = servers.collect();
    let of = |name, family: Family| {
        let targets: Vec<String> = (0..3).map(|i| family.backend(i)).collect();
        let more = format!(
            "{more}\nservice_max_connections = {MOST}\n[[service.frontend]]\naddresses = [\"{}\"]",
            family.vip(1)
        );
        service(name, &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets, &more)
    };
    let config =
        before.to_string() + &interfaces(&[("c0", hook), ("b*", hook)]) + &of("v4", V4) + &of("v6", V6);
    let agent = Agent::start(&net.node, &config);
    (net, servers, agent)
}

fn open(agent: &Agent, name: &str) -> u64 {
    agent.active(name).iter().sum()
}

fn await_open(agent: &Agent, name: &str, wanted: usize) {
    eventually(&format!("{wanted} are open"), LIMIT, || match open(agent, name) {
        count if count == wanted as u64 => Ok(()),
        count => Err(count.to_string()),
    });
}

/// Three times as many as the service takes, several at once, by turns at both addresses.
fn rush(net: &Net, family: Family) -> (Vec<Conn>, usize) {
    let connect = |i: usize| Conn::open(at(&family.vip(i % 2), 80));
    let some = |thread: usize| {
        net.client.run(|| (0..10).map(|i| connect(thread + i)).collect::<Vec<std::io::Result<Conn>>>())
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3 * MOST / 10).map(|thread| scope.spawn(move || some(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
    });
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    let refused = refused.map(|error| assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"));
    let refused = refused.count();
    (results.into_iter().flatten().collect(), refused)
}

#[test]
fn exactly_as_many_by_tcp_and_one_more_when_one_is_closed() {
    for (hook, algorithm) in WAYS {
        let (net, _servers, agent) = setup(hook, "", &format!("algorithm = \"{algorithm}\""));
        for (name, family) in [("v4", V4), ("v6", V6)] {
            let (mut conns, refused) = rush(&net, family);
            assert_eq!((conns.len(), refused), (MOST, 2 * MOST), "{hook}, {algorithm}, {name}");
            assert_eq!(open(&agent, name), MOST as u64);
            let shown = agent.done(&["service", "show", name]);
            assert!(shown.contains("Active:     20 / 20 connections\n"), "{shown}");
            net.client.run(|| conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it is open")));
            drop(conns.pop());
            await_open(&agent, name, MOST - 1);
            net.client.run(|| {
                conns.push(Conn::open(at(&family.vip(1), 80)).expect("there is room"));
                let beyond = Conn::open(at(&family.vip(0), 80)).map(drop);
                assert_eq!(beyond.map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused));
            });
            assert_eq!(open(&agent, name), MOST as u64);
        }
        let drops = &agent.json(&["stats"])["drops"];
        assert_eq!(drops["backends_full"], 2 * (2 * MOST + 1), "{drops}");
    }
}

#[test]
fn exactly_as_many_by_udp_and_one_more_when_one_is_over() {
    for (hook, algorithm) in WAYS {
        let (net, _servers, agent) =
            setup(hook, "", &format!("algorithm = \"{algorithm}\"\ntimeouts = {{ udp = \"1h\" }}"));
        for (name, family) in [("v4", V4), ("v6", V6)] {
            let vip = at(&family.vip(0), 53);
            let refused = |socket: std::net::UdpSocket| {
                socket.send(b"?").expect("it is sent");
                let error = socket.recv(&mut [0; 10]).expect_err("it is beyond");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{hook}, {name}: {error}");
            };
            net.client.run(|| {
                let sockets: Vec<_> = (0..MOST).map(|_| udp::connect(vip)).collect();
                for (number, socket) in (0..).zip(&sockets) {
                    udp::exchange(socket, number, 500);
                }
                (0..BEYOND).for_each(|_| refused(udp::connect(vip)));
                for (number, socket) in (0..).zip(&sockets) {
                    udp::exchange(socket, number, 500);
                }
                assert_eq!(open(&agent, name), MOST as u64);
                let gone: SocketAddr = sockets[7].local_addr().expect("a socket");
                agent.done(&["connection", "close", "--service", name, "--client", &gone.to_string()]);
                await_open(&agent, name, MOST - 1);
                udp::exchange(&udp::connect(vip), 1, 500);
                refused(udp::connect(vip));
            });
        }
    }
}

#[test]
fn a_limit_can_be_changed_and_outlives_the_agent() {
    let (net, _servers, mut agent) = setup("tc", "", "");
    agent.done(&[
        "service",
        "add",
        "cli",
        "--vip",
        &V4.vip(2),
        "--port",
        "80/tcp",
        "--service-max-connections",
        "4",
    ]);
    (0..3).for_each(|i| drop(agent.done(&["backend", "add", "cli", &V4.backend(i)])));
    let connect = || net.client.run(|| Conn::open(at(&V4.vip(2), 80)).map_err(|e| e.kind()));
    let full = || assert_eq!(connect().map(drop), Err(ErrorKind::ConnectionRefused));
    let mut conns: Vec<Conn> = (0..4).map(|_| connect().expect("there is room")).collect();
    full();
    let why = agent.json(&["explain", "10.1.0.2", &at(&V4.vip(2), 80).to_string()])["why"].to_string();
    assert!(why.contains("the service has 4 connections, its service_max_connections"), "{why}");
    // The agent is gone; the kernel goes on, and so does who comes next.
    agent.end(Signal::SIGKILL);
    full();
    agent.up();
    full();
    agent.done(&["service", "set", "cli", "--service-max-connections", "6"]);
    conns.extend((0..2).map(|_| connect().expect("there is room")));
    full();
    agent.done(&["service", "set", "cli", "--service-max-connections", "2"]);
    full();
    net.client.run(|| conns.iter_mut().for_each(|conn| conn.exchange(100).expect("what is open stays")));
    // What a removed backend has is the service's as before.
    agent.done(&["service", "set", "cli", "--service-max-connections", "6"]);
    agent.done(&["backend", "remove", "cli", &V4.backend(0)]);
    full();
    agent.done(&["service", "set", "cli", "--default", "service-max-connections"]);
    conns.extend((0..10).map(|_| connect().expect("without a limit")));
    let said = agent.cli(&["service", "set", "cli", "--service-max-connections", "0"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("service_max_connections \"0\"") && said.contains("1 to 4294967294"), "{said}");
}

#[test]
fn processes_of_the_node_count_and_are_refused_as_well() {
    let (net, _servers, agent) = setup("tc", "[sockets]\nscope = \"host\"\n", "");
    let connect = |ns: &Ns| ns.run(|| Conn::open(at(&V4.vip(0), 80)));
    let mut conns: Vec<Conn> = Vec::new();
    for i in 0..MOST {
        let from = if i % 2 == 0 { &net.node } else { &net.client };
        conns.push(connect(from).expect("there is room"));
    }
    for ns in [&net.node, &net.client] {
        assert_eq!(connect(ns).map(drop).map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused));
    }
    assert_eq!(open(&agent, "v4"), MOST as u64);
    conns.swap_remove(0);
    await_open(&agent, "v4", MOST - 1);
    conns.push(connect(&net.node).expect("there is room again"));
    assert_eq!(connect(&net.node).map(drop).map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused));
}
