//! Promise: a service can be at all of the node's addresses, whichever they are at the time, and at none that is left out; and it takes
//! connections of those only whom it is for.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

const PORT: u16 = 30080;
const DATAGRAMS: u16 = 30053;

/// Addresses of the node's: towards the client, and towards the first backend.
fn own(family: Family) -> [&'static str; 2] {
    match family {
        V4 => ["10.1.0.1", "10.2.0.1"],
        V6 => ["fd01::1", "fd02:0::1"],
    }
}

fn any(family: Family) -> &'static str {
    if family == V4 { "0.0.0.0" } else { "::" }
}

/// A service of each family at all addresses of the node's; `more` is put in place for each.
fn config(hook: &str, more: impl Fn(Family) -> String) -> String {
    let services: String = [V4, V6]
        .map(|family| {
            let targets: Vec<String> = (0..2).map(|i| family.backend(i)).collect();
            let ports = format!("\"{PORT}/tcp\", \"{DATAGRAMS}/udp\"");
            service(&format!("{family:?}"), any(family), &ports, &targets, &more(family))
        })
        .concat();
    interfaces(&[("c0", hook), ("b*", "tc")]) + &services
}

fn servers(net: &Net) -> Vec<Server> {
    let start = |(i, ns)| {
        udp::echo(ns, DATAGRAMS);
        Server::start(ns, &format!("b{i}"), [PORT])
    };
    net.backends.iter().enumerate().map(start).collect()
}

#[test]
fn at_whichever_address_the_node_has() {
    for hook in ["tc", "xdp", "peer"] {
        let net = Net::new(2);
        let _servers = servers(&net);
        // What of the node's own isn't the service's stays the node's.
        let _own = Server::start(&net.node, "node", [22]);
        for address in [V4, V6].into_iter().flat_map(own) {
            udp::echo_at(&net.node, at(address, 5353));
        }
        let agent = Agent::start(&net.node, &config(hook, |_| String::new()));
        for family in [V4, V6] {
            let name = format!("{family:?}");
            net.client.run(|| {
                let mut conns = Vec::new();
                for address in own(family) {
                    for _ in 0..4 {
                        let mut conn = Conn::open(at(address, PORT)).unwrap();
                        conn.exchange(100_000).unwrap();
                        conns.push(conn);
                    }
                    udp::exchange(&udp::connect(at(address, DATAGRAMS)), 1, 1000);
                    udp::exchange(&udp::connect(at(address, DATAGRAMS)), 2, 8000);
                    assert_eq!(Conn::open(at(address, 22)).unwrap().backend, "node");
                    udp::exchange(&udp::connect(at(address, 5353)), 3, 8000);
                }
                let mut vips: Vec<String> = agent
                    .json(&["connection", "list", "--service", &name, "--state", "established"])
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|c| c["vip"].as_str().unwrap().to_string())
                    .collect();
                vips.sort_unstable();
                let wanted: Vec<String> =
                    own(family).iter().flat_map(|a| vec![at(a, PORT).to_string(); 4]).collect();
                assert_eq!(vips, wanted, "{name} by {hook}");
            });
            let address = if family == V4 { "10.1.0.77" } else { "fd01::77" };
            let explained = || {
                let vip = at(address, PORT).to_string();
                let client = if family == V4 { "10.1.0.2" } else { "fd01::2" };
                agent.cli(&["explain", client, &vip]).status.success()
            };
            assert!(!explained());
            let prefix = if family == V4 { 24 } else { 64 };
            net.node.ip(&format!("addr add {address}/{prefix} dev c0 nodad"));
            eventually("the new address is the service's", Duration::from_secs(20), || {
                if explained() { Ok(()) } else { Err("it isn't".into()) }
            });
            net.client.run(|| Conn::open(at(address, PORT)).unwrap().exchange(1000).unwrap());
            net.node.ip(&format!("addr del {address}/{prefix} dev c0"));
            eventually("an address that is gone is no service's", Duration::from_secs(20), || {
                if explained() { Err("it is".into()) } else { Ok(()) }
            });
        }
        assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
        assert_eq!(agent.json(&["service", "list"])[0]["vip"], "0.0.0.0");
    }
}

#[test]
fn not_where_it_is_left_out_or_another_is_named() {
    let net = Net::new(2);
    let _servers = servers(&net);
    let _own = Server::start(&net.node, "node", [PORT]);
    let except = |family| format!("vip_except = [\"{}\"]", own(family)[1]);
    let mut agent = Agent::start(&net.node, &config("xdp", except));
    for family in [V4, V6] {
        let [near, far] = own(family).map(|address| at(address, PORT));
        let [a, b] = net.client.run(|| [near, far].map(|to| Conn::open(to).unwrap().backend));
        assert!(a.starts_with('b') && b == "node", "{a} {b}");
        // A service that names one of the addresses goes first there, and gives way when it goes.
        let backend = family.backend(1);
        let vip = own(family)[0];
        agent.done(&["service", "add", "named", "--vip", vip, "--port", &format!("{PORT}/tcp")]);
        agent.done(&["backend", "add", "named", &backend]);
        // Whoever has to start anew finds it so as well.
        agent.end(nix::sys::signal::Signal::SIGKILL);
        agent.up();
        net.client.run(|| {
            let conns: Vec<Conn> = (0..4).map(|_| Conn::open(near).unwrap()).collect();
            assert!(conns.iter().all(|c| c.backend == "b1"));
            assert_eq!(agent.active("named"), [4]);
        });
        agent.done(&["service", "remove", "named"]);
        net.client.run(|| {
            let conns: Vec<Conn> = (0..4).map(|_| Conn::open(near).unwrap()).collect();
            assert_eq!(conns.iter().filter(|c| c.backend == "b0").count(), 2);
        });
    }
}

#[test]
fn only_whom_it_is_for() {
    // For one of two clients: that one is let in, or the other isn't.
    let ranges = |denies: bool, family, last: &str| {
        let net = if family == V4 { "10.1.0." } else { "fd01::" };
        match denies {
            false => format!("source_ranges = [\"{net}{last}\"]"),
            true => format!("deny_ranges = [\"{net}{}\"]", if last == "2" { "3" } else { "2" }),
        }
    };
    for (hook, denies) in [("tc", false), ("xdp", false), ("fast", false), ("tc", true), ("xdp", true)] {
        let ranges = |family, last| ranges(denies, family, last);
        let net = Net::new(2);
        let _servers = servers(&net);
        let agent = Agent::start(&net.node, &config(hook, |family| ranges(family, "2")));
        let mut refused = 0;
        for family in [V4, V6] {
            let (friend, stranger, prefix) = match family {
                V4 => ("10.1.0.2", "10.1.0.3", 24),
                V6 => ("fd01::2", "fd01::3", 64),
            };
            net.client.ip(&format!("addr add {stranger}/{prefix} dev eth0 nodad"));
            let to = at(own(family)[0], PORT);
            let drops = || agent.json(&["stats"])["drops"]["source_not_allowed"].as_u64().unwrap();
            net.client.run(|| {
                let mut conn = Conn::open_from(at(friend, 0), to).unwrap();
                conn.exchange(100_000).unwrap();
                let socket = UdpSocket::bind(at(stranger, 0)).unwrap();
                socket.send_to(b"?", at(own(family)[0], DATAGRAMS)).unwrap();
                refused += 1;
                eventually("a stranger's datagram is counted", Duration::from_secs(20), || {
                    if drops() == refused { Ok(()) } else { Err(drops().to_string()) }
                });
                // The other way round: who is open stays open.
                agent.write_config(&config(hook, |family| ranges(family, "3")));
                agent.signal(nix::sys::signal::Signal::SIGHUP);
                eventually("the stranger is let in", Duration::from_secs(20), || {
                    let shown = agent.json(&["service", "show", &format!("{family:?}")]);
                    let (ranges, first) =
                        if denies { ("deny_ranges", friend) } else { ("source_ranges", stranger) };
                    match shown[ranges][0].as_str() {
                        Some(range) if range.starts_with(first) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                });
                Conn::open_from(at(stranger, 0), to).unwrap().exchange(1000).unwrap();
                conn.exchange(100_000).unwrap();
                let why = agent.done(&["explain", friend, &to.to_string()]);
                assert!(why.contains(if denies { "deny ranges" } else { "source ranges" }), "{why}");
                agent.write_config(&config(hook, |family| ranges(family, "2")));
                agent.signal(nix::sys::signal::Signal::SIGHUP);
                eventually("the friend again", Duration::from_secs(20), || {
                    Conn::open_from(at(friend, 0), to).map(drop).map_err(|e| e.to_string())
                });
                refused = drops();
            });
        }
    }
}

#[test]
fn the_node_s_own_processes_at_its_own_addresses() {
    let net = Net::new(2);
    let _servers = servers(&net);
    let sockets = "[sockets]\nscope = \"host\"\n".to_string();
    let listed = |range: &str| {
        let range = range.to_string();
        config("tc", move |family| if family == V4 { range.clone() } else { String::new() })
    };
    let mut agent = Agent::start(&net.node, &(sockets.clone() + &listed("")));
    let to = at(own(V4)[0], PORT);
    let connects = |agent: &Agent| {
        net.node.run(|| {
            let conns: Vec<Conn> = (0..10).map(|_| Conn::open(to).unwrap()).collect();
            assert!(conns.iter().all(|c| c.stream.peer_addr().unwrap() == to));
            assert_eq!(agent.active("V4"), [5, 5]);
        });
    };
    connects(&agent);
    for (range, allowed) in [("10.99.0.0/16", false), ("10.2.0.0/24", true)] {
        agent.end(nix::sys::signal::Signal::SIGTERM);
        agent.write_config(&(sockets.clone() + &listed(&format!("source_ranges = [\"{range}\"]"))));
        agent.up();
        eventually("what was open is closed", Duration::from_secs(20), || {
            if agent.active("V4") == [0, 0] { Ok(()) } else { Err("not yet".into()) }
        });
        if allowed {
            connects(&agent);
            continue;
        }
        net.node.run(|| {
            let error = TcpStream::connect(to).expect_err("it isn't for the node");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let error =
                socket.send_to(b"?", SocketAddr::new(to.ip(), DATAGRAMS)).expect_err("nor for datagrams");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        });
        assert_eq!(agent.json(&["stats"])["drops"]["source_not_allowed"], 2);
    }
}
