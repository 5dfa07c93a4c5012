//! Promise: the node's own processes are balanced when they connect, counted exactly until their sockets are closed, and pay nothing per packet.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Cgroup, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    program::Program,
    server::Server,
    topology::Family,
    udp,
};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};

const PORT: u16 = 80;
const UDP: u16 = 53;
const HOST: &str = "[sockets]\nscope = \"host\"\n";

/// A service of each family, `v4` and `v6`, TCP and UDP, with so many backends.
fn config(backends: usize, more: &str) -> String {
    let service = |name, family: Family| {
        let targets: Vec<String> = (0..backends).map(|i| family.backend(i)).collect();
        service(name, &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets, more)
    };
    interfaces(&[("c0", "tc"), ("b*", "tc")]) + &service("v4", Family::V4) + &service("v6", Family::V6)
}

fn setup(backends: usize, sockets: &str, more: &str) -> (Net, Vec<Server>, Agent) {
    let net = Net::new(backends);
    let servers = net.backends.iter().enumerate().map(|(i, ns)| {
        udp::echo(ns, UDP);
        Server::start(ns, &format!("b{i}"), [PORT])
    });
    let servers = servers.collect();
    let agent = Agent::start(&net.node, &(sockets.to_string() + &config(backends, more)));
    (net, servers, agent)
}

fn spread(counts: &[u64]) -> u64 {
    counts.iter().max().unwrap() - counts.iter().min().unwrap()
}

fn none_left(agent: &Agent, service: &str) {
    eventually(&format!("no connection of {service} is counted"), Duration::from_secs(20), || {
        let counts = agent.active(service);
        if counts.iter().sum::<u64>() == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    });
}

#[test]
fn a_thousand_connections_are_even_whoever_runs_the_agent_meanwhile() {
    let (net, servers, mut agent) = setup(4, HOST, "");
    for (name, family) in [("v4", Family::V4), ("v6", Family::V6)] {
        net.node.run(|| {
            let vip = at(&family.vip(0), PORT);
            let mut conns: Vec<Conn> = (0..500).map(|_| Conn::open(vip).unwrap()).collect();
            assert!(conns.iter().all(|c| c.stream.peer_addr().unwrap() == vip), "the process sees its VIP");
            agent.end(Signal::SIGKILL);
            // Without an agent as well.
            conns.extend((0..250).map(|_| Conn::open(vip).unwrap()));
            agent.up();
            conns.extend((0..250).map(|_| Conn::open(vip).unwrap()));
            let counts = agent.active(name);
            assert_eq!(counts.iter().sum::<u64>(), 1000, "{counts:?}");
            assert!(spread(&counts) <= 1, "{counts:?}");
            let open: Vec<u64> = servers.iter().map(|s| s.open() as u64).collect();
            assert_eq!(counts, open, "the backends' own sockets say otherwise");
            conns.iter_mut().for_each(|c| c.exchange(1000).unwrap());

            let list = agent.json(&["connection", "list", "--service", name]);
            let list = list.as_array().unwrap();
            assert_eq!(list.len(), 1000);
            let mut clients: Vec<&str> = list.iter().map(|c| c["client"].as_str().unwrap()).collect();
            let mut own: Vec<String> =
                conns.iter().map(|c| c.stream.local_addr().unwrap().to_string()).collect();
            clients.sort_unstable();
            own.sort_unstable();
            assert_eq!(clients, own);
            assert!(list.iter().all(|c| c["vip"] == vip.to_string() && c["state"] == "established"));
            assert_eq!(agent.sweeps(3)["accounting_drift"], 0);

            drop(conns.split_off(100));
            eventually("closed sockets don't count", Duration::from_secs(20), || {
                let count = agent.active(name).iter().sum::<u64>();
                if count == 100 { Ok(()) } else { Err(count.to_string()) }
            });
            drop(conns);
        });
        none_left(&agent, name);
        eventually("the servers see them go", Duration::from_secs(20), || {
            let open: usize = servers.iter().map(Server::open).sum();
            if open == 0 { Ok(()) } else { Err(open.to_string()) }
        });
    }
    let stats = agent.json(&["service", "show", "v4"]);
    let packets: u64 =
        stats["backends"].as_array().unwrap().iter().map(|b| b["packets_in"].as_u64().unwrap()).sum();
    assert_eq!(packets, 0, "packets that cost something");
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn a_killed_process_leaves_no_count() {
    let (net, _servers, agent) = setup(4, HOST, "");
    let vip = format!("http://{}/", at(&Family::V4.vip(0), PORT));
    let program = Program::start(&net.node, "wrk", &["-t1", "-c100", "-d600s", &vip]);
    eventually("its connections are counted", Duration::from_secs(20), || {
        let counts = agent.active("v4");
        if counts.iter().sum::<u64>() >= 100 { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    assert!(spread(&agent.active("v4")) <= 2);
    program.kill();
    none_left(&agent, "v4");
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn nobody_is_there_or_nobody_has_room() {
    let (net, servers, agent) = setup(2, HOST, "");
    agent.done(&["service", "add", "empty", "--vip", "10.96.0.77", "--port", "80/tcp", "--port", "53/udp"]);
    agent.done(&["service", "add", "small", "--vip", "10.96.0.78", "--port", "80/tcp"]);
    for i in 0..2 {
        agent.done(&["backend", "add", "small", &Family::V4.backend(i), "--max-connections", "10"]);
    }
    net.node.run(|| {
        let refused = |result: std::io::Result<()>| {
            let error = result.expect_err("somebody answers");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
        };
        refused(TcpStream::connect("10.96.0.77:80").map(drop));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        refused(socket.send_to(b"?", "10.96.0.77:53").map(drop));
        let small: SocketAddr = "10.96.0.78:80".parse().unwrap();
        let conns: Vec<Conn> = (0..20).map(|_| Conn::open(small).unwrap()).collect();
        for _ in 0..5 {
            refused(TcpStream::connect(small).map(drop));
        }
        assert_eq!(agent.active("small"), [10, 10]);
        drop(conns);
    });
    none_left(&agent, "small");
    let drops = &agent.json(&["stats"])["drops"];
    assert_eq!((drops["no_backend"].as_u64(), drops["backends_full"].as_u64()), (Some(2), Some(5)));
    assert_eq!(servers.len(), 2);
}

#[test]
fn datagrams_come_from_whom_they_were_sent_to() {
    let (net, _servers, agent) = setup(3, HOST, "timeouts = { udp = \"2s\" }");
    for (name, family) in [("v4", Family::V4), ("v6", Family::V6)] {
        let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
        let vip = at(&family.vip(0), UDP);
        net.node.run(|| {
            let connected: Vec<UdpSocket> = (0..30).map(|_| udp::connect(vip)).collect();
            for (number, socket) in (0..).zip(&connected) {
                assert_eq!(socket.peer_addr().unwrap(), vip);
                udp::exchange(socket, number, 1000);
            }
            assert_eq!(agent.active(name), [10, 10, 10]);
            // Connected to something else, it is at the service no longer.
            connected[0].connect(at(&family.backend(0), 9)).unwrap();
            assert_eq!(agent.active(name).iter().sum::<u64>(), 29);
            drop(connected);
        });
        none_left(&agent, name);
        net.node.run(|| {
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut buffer = [0; 100];
            for number in 0..10u8 {
                socket.send_to(&[number; 50], vip).unwrap();
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from), (&[number; 50][..], vip));
            }
            assert_eq!(agent.active(name).iter().sum::<u64>(), 1, "one socket, one backend");
            // Open, but silent.
            none_left(&agent, name);
            socket.send_to(b"again", vip).unwrap();
            assert_eq!(socket.recv_from(&mut buffer).unwrap(), (5, vip));
            assert_eq!(agent.active(name).iter().sum::<u64>(), 1);
        });
        none_left(&agent, name);
    }
    // An IPv6 socket that talks IPv4.
    net.node.run(|| {
        let vip: SocketAddr = format!("[::ffff:{}]:{UDP}", Family::V4.vip(0)).parse().unwrap();
        let socket = udp::connect(vip);
        assert_eq!(socket.peer_addr().unwrap(), vip);
        udp::exchange(&socket, 1, 1000);
        assert_eq!(agent.active("v4").iter().sum::<u64>(), 1);
        let conn = TcpStream::connect(format!("[::ffff:{}]:{PORT}", Family::V4.vip(0))).unwrap();
        assert_eq!(agent.active("v4").iter().sum::<u64>(), 2);
        drop(conn);
    });
    none_left(&agent, "v4");
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn the_node_is_one_client_of_a_service_with_affinity() {
    let more = "affinity = { client_ip = true, timeout = \"1h\" }";
    let (net, _servers, agent) = setup(3, HOST, more);
    net.node.run(|| {
        let conns: Vec<Conn> = (0..9).map(|_| Conn::open(at(&Family::V4.vip(0), PORT)).unwrap()).collect();
        assert!(conns.iter().all(|c| c.backend == conns[0].backend));
        let mut counts = agent.active("v4");
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 9]);
    });
    none_left(&agent, "v4");
    let again = net.node.run(|| Conn::open(at(&Family::V4.vip(0), PORT)).unwrap());
    drop(again);
    none_left(&agent, "v4");
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn only_whom_the_scope_names() {
    let cgroup = Cgroup::enter();
    let (net, _servers, mut agent) = setup(2, HOST, "");
    let vip = at(&Family::V4.vip(0), PORT);
    // A client's packets go by way of the node, as without.
    net.client.run(|| {
        let conn = Conn::open(vip).unwrap();
        let list = agent.json(&["connection", "list", "--service", "v4"]);
        assert!(list[0]["packets_in"].as_u64().unwrap() > 0, "{list}");
        drop(conn);
    });
    none_left(&agent, "v4");
    let held = net.node.run(|| Conn::open(vip).unwrap());
    assert_eq!(agent.active("v4").iter().sum::<u64>(), 1);
    // Everybody's: pods' too.
    agent.end(Signal::SIGTERM);
    let all = format!("[sockets]\nscope = \"all\"\ncgroup = \"{}\"\n", cgroup.path().display());
    agent.write_config(&(all + &config(2, "")));
    agent.up();
    net.client.run(|| {
        let conn = Conn::open(vip).unwrap();
        let list = agent.json(&["connection", "list", "--service", "v4", "--state", "established"]);
        assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
        assert!(list.as_array().unwrap().iter().all(|c| c["packets_in"] == 0), "{list}");
        assert_eq!(conn.stream.peer_addr().unwrap(), vip);
    });
    assert_eq!(agent.active("v4").iter().sum::<u64>(), 1);
    // Nobody's: nobody would notice that this one is closed.
    agent.end(Signal::SIGTERM);
    agent.write_config(&config(2, ""));
    agent.up();
    assert_eq!(agent.active("v4").iter().sum::<u64>(), 0);
    assert!(!agent.pins().join("sockets/flowpin_connect4").exists());
    net.node.run(|| assert!(TcpStream::connect_timeout(&vip, Duration::from_millis(200)).is_err()));
    drop(held);
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn thousands_of_sockets_are_found_again() {
    const SOCKETS: usize = 12_000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(most > 13_000, "the limit of open files is {most}: raise it (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let (net, _servers, mut agent) = setup(4, HOST, "");
    net.node.run(|| {
        // By both, in turn: so many that some find their places in the table taken.
        let vips = [Family::V4, Family::V6].map(|family| at(&family.vip(0), UDP));
        let mut sockets: Vec<UdpSocket> = (0..SOCKETS).map(|i| udp::connect(vips[i % 2])).collect();
        let each = [(SOCKETS / 8) as u64; 4];
        assert_eq!((agent.active("v4"), agent.active("v6")), (each.into(), each.into()));
        assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
        // Two of three go, some of them while nobody looks.
        let mut number = 0;
        let mut third = || {
            number += 1;
            number % 3 == 0
        };
        let rest = sockets.split_off(SOCKETS / 2);
        sockets.retain(|_| third());
        agent.end(Signal::SIGKILL);
        sockets.extend(rest.into_iter().filter(|_| third()));
        agent.up();
        // A program that another test was just starting may hold some for a moment.
        let left = || agent.active("v4").iter().chain(&agent.active("v6")).sum::<u64>();
        eventually("a third is left", Duration::from_secs(20), || match left() {
            n if n == (SOCKETS / 3) as u64 => Ok(()),
            n => Err(n.to_string()),
        });
        assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
        for (number, socket) in (0..).zip(sockets.iter().step_by(40)) {
            udp::exchange(socket, number, 100);
        }
    });
    none_left(&agent, "v4");
    none_left(&agent, "v6");
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn a_socket_that_asks_many_services_stays_at_the_last_few() {
    let (net, _servers, agent) = setup(2, HOST, "");
    let names: Vec<String> = (0..7).map(|i| format!("s{i}")).collect();
    let vips: Vec<SocketAddr> = (0..7).map(|i| at(&format!("10.96.1.{i}"), UDP)).collect();
    for ((name, vip), port) in names.iter().zip(&vips).zip(5300..) {
        // Each at a port of its own: from whom an answer comes is all that tells which service it is of.
        udp::echo(&net.backends[0], port);
        agent.done(&["service", "add", name, "--vip", &vip.ip().to_string(), "--port", "53/udp"]);
        agent.done(&["backend", "add", name, &format!("{}:{port}", Family::V4.backend(0))]);
    }
    let pinned = || names.iter().map(|name| agent.active(name)[0]).collect::<Vec<_>>();
    net.node.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buffer = [0; 100];
        for round in 0..3u8 {
            for (vip, name) in vips.iter().zip(&names) {
                socket.send_to(&[round; 50], vip).unwrap();
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from), (&[round; 50][..], *vip));
                assert_eq!(agent.active(name), [1], "the one just asked");
            }
            assert_eq!(pinned().iter().sum::<u64>(), 4, "{:?}", pinned());
        }
        assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
    });
    eventually("a closed socket counts nowhere", Duration::from_secs(20), || {
        if pinned().iter().sum::<u64>() == 0 { Ok(()) } else { Err(format!("{:?}", pinned())) }
    });
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}
