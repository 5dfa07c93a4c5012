//! Promise: sockets of the node's processes leave a backend that is to have no connections any more: connected ones are
//! told and connect anew, others go elsewhere with their next datagram. By default that is so for datagrams only, and
//! with `keep` for nobody.

use std::{
    io::{ErrorKind, Read as _},
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Cgroup, Net,
    agent::{interfaces_of_pods, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(20);
const HOST: &str = "[sockets]\nscope = \"host\"\n";
const RESET: &str = "on_removal = \"reset\"\non_deadline = \"reset\"";

/// A service of each family, `v4` and `v6`, with two backends each, the second the command line's.
fn setup(sockets: &str, more: &str) -> (Net, Vec<Server>, Agent) {
    let net = Net::new(2);
    let servers = net.backends.iter().enumerate().map(|(i, ns)| {
        udp::echo(ns, 53);
        Server::start(ns, &format!("b{i}"), [80])
    });
    let servers = servers.collect();
    let of = |name, family: Family| {
        service(name, &family.vip(0), "\"80/tcp\", \"53/udp\"", &[family.backend(0)], more)
    };
    let pods = interfaces_of_pods(&[("c0", "tc"), ("b*", "tc")]);
    let config = [sockets, &pods, &of("v4", V4), &of("v6", V6)].concat();
    let agent = Agent::start(&net.node, &config);
    agent.done(&["backend", "add", "v4", &V4.backend(1)]);
    agent.done(&["backend", "add", "v6", &V6.backend(1)]);
    (net, servers, agent)
}

const FAMILIES: [(&str, Family); 2] = [("v4", V4), ("v6", V6)];

/// Takes the second backend away, or lets it come back.
fn remove(agent: &Agent, name: &str, family: Family) {
    agent.done(&["backend", "remove", name, &family.backend(1)]);
}

fn add(agent: &Agent, name: &str, family: Family) {
    agent.done(&["backend", "add", name, &family.backend(1)]);
}

/// Which of a service's backends a socket is at, as the agent has it; `None`: it has none.
fn backend(agent: &Agent, name: &str, socket: &UdpSocket) -> Option<usize> {
    let own = socket.local_addr().expect("bound").port();
    let list = agent.json(&["connection", "list", "--service", name]);
    let of = |c: &&serde_json::Value| {
        c["client"].as_str().is_some_and(|client| client.ends_with(&format!(":{own}")))
    };
    let at = list.as_array().expect("a list").iter().find(of)?["backend"].as_str().expect("a backend");
    Some(usize::from(at.contains("10.2.1.2") || at.contains("fd02:1::2")))
}

fn total(agent: &Agent, name: &str) -> u64 {
    agent.active(name).iter().sum()
}

/// Waits until so many sockets are a service's, those at a backend that is removed as well.
fn are(agent: &Agent, name: &str, wanted: usize) {
    eventually(&format!("{wanted} sockets of {name}"), LIMIT, || {
        let list = agent.json(&["connection", "list", "--service", name]);
        match list.as_array().expect("a list").len() {
            n if n == wanted => Ok(()),
            _ => Err(list.to_string()),
        }
    });
}

/// Waits for what a socket that hears nothing gets.
fn error(socket: &UdpSocket) -> ErrorKind {
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    let result = socket.recv(&mut [0; 100]);
    result.map_or_else(|e| e.kind(), |length| panic!("{length} bytes instead of an error"))
}

#[test]
fn connected_udp_sockets_are_told_and_connect_anew() {
    let (net, _servers, agent) = setup(HOST, RESET);
    for (name, family) in FAMILIES {
        net.node.run(|| {
            let vip = at(&family.vip(0), 53);
            let mut sockets: Vec<UdpSocket> = (0..20).map(|_| udp::connect(vip)).collect();
            for (number, socket) in (0..).zip(&sockets) {
                udp::exchange(socket, number, 500);
            }
            assert_eq!(agent.active(name), [10, 10]);
            sockets.sort_by_cached_key(|socket| backend(&agent, name, socket));
            let theirs = sockets.split_off(10);
            remove(&agent, name, family);
            for (number, socket) in (0..).zip(&theirs) {
                assert_eq!(error(socket), ErrorKind::ConnectionAborted);
                // The same socket may be used again.
                socket.connect(vip).expect("a route");
                socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
                udp::exchange(socket, number, 500);
                assert_eq!(socket.peer_addr().expect("connected"), vip);
            }
            for (number, socket) in (0..).zip(&sockets) {
                udp::exchange(socket, number, 500);
            }
            assert_eq!(total(&agent, name), 20);
            drop((sockets, theirs));
        });
        are(&agent, name, 0);
    }
    // An IPv6 socket that talks IPv4.
    add(&agent, "v4", V4);
    net.node.run(|| {
        let vip: SocketAddr = format!("[::ffff:{}]:53", V4.vip(0)).parse().expect("an address");
        let sockets = [udp::connect(vip), udp::connect(vip)];
        let theirs =
            sockets.iter().find(|socket| backend(&agent, "v4", socket) == Some(1)).expect("one of two");
        remove(&agent, "v4", V4);
        assert_eq!(error(theirs), ErrorKind::ConnectionAborted);
    });
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn others_go_elsewhere_with_their_next_datagram() {
    let (net, _servers, agent) = setup(HOST, RESET);
    for (name, family) in FAMILIES {
        net.node.run(|| {
            let vip = at(&family.vip(0), 53);
            let any = if family == V4 { "0.0.0.0:0" } else { "[::]:0" };
            let sockets = [(); 2].map(|()| UdpSocket::bind(any).expect("a port"));
            let ask = |socket: &UdpSocket, number: u8| {
                socket.set_read_timeout(Some(LIMIT)).expect("a limit");
                socket.send_to(&[number; 50], vip).expect("sent");
                let mut buffer = [0; 100];
                let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
                assert_eq!(&buffer[..length], &[number; 50][..]);
                from
            };
            sockets.iter().for_each(|socket| assert_eq!(ask(socket, 1), vip));
            let theirs =
                sockets.iter().find(|socket| backend(&agent, name, socket) == Some(1)).expect("one of two");
            remove(&agent, name, family);
            // In use all the time, and with no error.
            let mut number = 2;
            eventually("it is at the other", LIMIT, || {
                // What is on its way while it moves comes from the backend itself.
                let from = ask(theirs, number);
                assert!(from == vip || from == at(&family.backend(1), 53), "{from}");
                number = number.wrapping_add(1);
                if backend(&agent, name, theirs) == Some(0) { Ok(()) } else { Err("not yet".into()) }
            });
            sockets.iter().for_each(|socket| assert_eq!(ask(socket, 0), vip));
            assert_eq!(total(&agent, name), 2);
        });
    }
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

fn open(net: &Net, family: Family, count: usize) -> Vec<Conn> {
    net.node.run(|| (0..count).map(|_| Conn::open(at(&family.vip(0), 80)).expect("answered")).collect())
}

fn end(conn: &mut Conn) -> ErrorKind {
    let result = conn.stream.read(&mut [0]);
    result.map_or_else(|e| e.kind(), |n| panic!("{n} bytes instead of an end"))
}

#[test]
fn tcp_connections_end_when_the_service_or_the_operator_says_so() {
    let (net, servers, agent) = setup(HOST, RESET);
    for (name, family) in FAMILIES {
        let (mut theirs, mut others): (Vec<Conn>, Vec<Conn>) =
            open(&net, family, 20).into_iter().partition(|conn| conn.backend == "b1");
        assert_eq!((theirs.len(), others.len()), (10, 10));
        remove(&agent, name, family);
        theirs.iter_mut().for_each(|conn| assert_eq!(end(conn), ErrorKind::ConnectionAborted));
        others.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it is at the other"));
        eventually("the server hears of it", LIMIT, || match servers[1].open() {
            0 => Ok(()),
            n => Err(n.to_string()),
        });
        // Though their process still has them.
        are(&agent, name, 10);
        // On request; a connected one is never taken for idle.
        let close = ["connection", "close", "--service", name];
        let said = agent.done(&[&close[..], &["--idle-for", "1s"]].concat());
        assert_eq!(said.trim(), "0 connections closed");
        assert_eq!(agent.done(&close).trim(), "10 connections closed");
        others.iter_mut().for_each(|conn| assert_eq!(end(conn), ErrorKind::ConnectionAborted));
        assert_eq!(total(&agent, name), 0);
    }
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn connections_end_at_a_deadline_and_when_a_check_fails() {
    let checks = "health = { type = \"tcp\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }";
    let (net, _servers, agent) = setup(HOST, &format!("{RESET}\non_unhealthy = \"reset\"\n{checks}"));
    for (name, family) in FAMILIES {
        eventually("both are healthy", LIMIT, || {
            let conns = open(&net, family, 2);
            if conns.iter().any(|conn| conn.backend == "b1") { Ok(()) } else { Err("all at b0".into()) }
        });
        are(&agent, name, 0);
        let of_both = || -> (Vec<Conn>, Vec<Conn>) {
            let (theirs, others): (Vec<Conn>, Vec<Conn>) =
                open(&net, family, 10).into_iter().partition(|conn| conn.backend == "b1");
            assert_eq!((theirs.len(), others.len()), (5, 5));
            (theirs, others)
        };
        let end_all = |theirs: &mut [Conn], others: &mut [Conn]| {
            theirs.iter_mut().for_each(|conn| assert_eq!(end(conn), ErrorKind::ConnectionAborted));
            others.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it is at the other"));
        };

        let (mut theirs, mut others) = of_both();
        agent.done(&["backend", "drain", name, &family.backend(1), "--deadline", "2s"]);
        end_all(&mut theirs, &mut others);
        drop((theirs, others));
        agent.done(&["backend", "undrain", name, &family.backend(1)]);
        are(&agent, name, 0);

        // It takes no new connections, those of checks included; what is open would go on.
        let (mut theirs, mut others) = of_both();
        let tables = if family == V4 { "iptables" } else { "ip6tables" };
        net.backends[1].must(&format!("{tables} -A INPUT -p tcp --syn -j DROP"));
        end_all(&mut theirs, &mut others);
        net.backends[1].must(&format!("{tables} -F INPUT"));
        drop((theirs, others));
        are(&agent, name, 0);
    }
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn without_a_policy_connections_stay_and_datagrams_leave() {
    let (net, _servers, agent) = setup(HOST, "");
    let mut conns = open(&net, V4, 10);
    let (theirs, other) = two_sockets(&net, &agent);
    remove(&agent, "v4", V4);
    // Nothing at the client sees that a server of datagrams is gone, so that it is told.
    assert_eq!(error(&theirs), ErrorKind::ConnectionAborted);
    agent.sweeps(3);
    conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("what is open stays"));
    udp::exchange(&other, 1, 500);
    drop((conns, theirs, other));
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

#[test]
fn what_is_to_be_kept_is_not_disturbed() {
    let (net, _servers, agent) = setup(HOST, "on_removal = \"keep\"");
    let mut conns = open(&net, V4, 10);
    let (theirs, other) = two_sockets(&net, &agent);
    remove(&agent, "v4", V4);
    agent.sweeps(6);
    conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("what is open stays"));
    for socket in [&theirs, &other] {
        udp::exchange(socket, 1, 500);
    }
    drop((conns, theirs, other));
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

/// Two connected UDP sockets of `v4`, the first at the second backend.
fn two_sockets(net: &Net, agent: &Agent) -> (UdpSocket, UdpSocket) {
    let [a, b] = net.node.run(|| [(); 2].map(|()| udp::connect(at(&V4.vip(0), 53))));
    if backend(agent, "v4", &a) == Some(1) { (a, b) } else { (b, a) }
}

#[test]
fn of_pods_all_but_those_connected_by_tcp() {
    let cgroup = Cgroup::enter();
    let all = format!("[sockets]\nscope = \"all\"\ncgroup = \"{}\"\n", cgroup.path().display());
    // What goes by packets ends by its silence.
    let (net, _servers, agent) = setup(&all, &format!("{RESET}\ntimeouts = {{ udp = \"10s\" }}"));
    net.client.run(|| {
        let vip = at(&V4.vip(0), 53);
        let sockets = [(); 4].map(|()| UdpSocket::bind("0.0.0.0:0").expect("a port"));
        let (connected, free) = sockets.split_at(2);
        let ask = |number: u8| {
            for socket in free {
                socket.send_to(&[number], vip).expect("sent");
                assert_eq!(socket.recv_from(&mut [0; 10]).expect("an answer"), (1, vip));
            }
            for socket in connected {
                udp::exchange(socket, number.into(), 500);
                assert_eq!(socket.peer_addr().expect("connected"), vip);
            }
        };
        sockets.iter().for_each(|socket| socket.set_read_timeout(Some(LIMIT)).expect("a limit"));
        connected.iter().for_each(|socket| socket.connect(vip).expect("a route"));
        let mut conns = [Conn::open(at(&V4.vip(0), 80)), Conn::open(at(&V4.vip(0), 80))].map(Result::unwrap);
        ask(1);
        assert_eq!(agent.active("v4"), [3, 3]);
        remove(&agent, "v4", V4);
        // A connection is the other namespace's: it stays, and counts, until it is closed.
        are(&agent, "v4", 4);
        ask(2);
        assert_eq!(agent.active("v4"), [5]);
        conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("it stays"));
        drop((conns, sockets));
    });
    are(&agent, "v4", 0);
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}
