//! Promise: however many frontends a service has, of both families, its backends are given connections as if there
//! were one; a frontend for this node's backends leads to no others; and packets go as the frontend says, by where
//! they come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// Where the backends listen, and where the service is at the node's addresses.
const TARGET: u16 = 8080;
const NODE_PORT: u16 = 30080;

/// Addresses outside of the node's networks, by which others send packets to it.
const fn external(family: Family) -> &'static str {
    match family {
        V4 => "192.0.2.50",
        V6 => "2001:db8::50",
    }
}

/// The node's address towards the client.
const fn node(family: Family) -> &'static str {
    match family {
        V4 => "10.1.0.1",
        V6 => "fd01::1",
    }
}

fn interfaces(hook: &str) -> String {
    format!(
        "[[interface]]\nmatch = \"c0\"\nattach = \"{hook}\"\nrole = \"uplink\"\n\
         [[interface]]\nmatch = \"b*\"\nattach = \"tc\"\n"
    )
}

/// Two VIPs of each family, all of the node's addresses, and `more` frontends. Backends of `count` hosts, `local` of
/// the first.
fn config(hook: &str, count: usize, local: bool, more: &str) -> String {
    let vips = [V4.vip(0), V4.vip(1), V6.vip(0), V6.vip(1)].map(|vip| format!("\"{vip}\"")).join(", ");
    let backends: String = (0..count)
        .flat_map(|i| [V4.backend(i), V6.backend(i)].map(|address| (address, local && i == 0)))
        .map(|(address, local)| format!("[[service.backend]]\naddress = \"{address}\"\nlocal = {local}\n"))
        .collect();
    format!(
        "[sockets]\nscope = \"host\"\n{}[[service]]\nname = \"shop/app:http\"\nvips = [{vips}]\nports = [\"80:{TARGET}/tcp\"]\n\
         [[service.frontend]]\naddresses = [\"0.0.0.0\", \"::\"]\nports = [\"{NODE_PORT}:{TARGET}/tcp\"]\nforward = \"snat\"\n\
         {more}{backends}",
        interfaces(hook)
    )
}

fn external_frontend(scope: &str, forward: &str) -> String {
    let [four, six] = [V4, V6].map(external);
    format!(
        "[[service.frontend]]\naddresses = [\"{four}\", \"{six}\"]\nscope = \"{scope}\"\nforward = {forward}\n"
    )
}

fn servers(net: &Net, count: usize) -> Vec<Server> {
    let start = |(i, ns): (usize, &Ns)| Server::start(ns, &format!("b{i}"), [TARGET]);
    net.backends.iter().take(count).enumerate().map(start).collect()
}

/// Open connections by backend, in the order of addresses: those of IPv4, those of IPv6.
fn counts(agent: &Agent) -> [Vec<u64>; 2] {
    let view = agent.json(&["service", "show", "shop/app:http"]);
    let backends = view["backends"].as_array().expect("backends");
    let count = |b: &Value| -> (IpAddr, u64) {
        let address = b["address"].as_str().expect("text").parse().expect("an address");
        (address, b["active_connections"].as_u64().expect("a count"))
    };
    let all: BTreeMap<IpAddr, u64> = backends.iter().map(count).collect();
    [false, true].map(|v6| all.iter().filter(|(a, _)| a.is_ipv6() == v6).map(|(_, count)| *count).collect())
}

/// Whom a backend's server has connections with.
fn peers(backend: &Ns) -> BTreeSet<String> {
    let all = backend.must(&format!("ss -Htn state established sport = :{TARGET}"));
    let peer = |line: &str| {
        let (address, _) = line.split_whitespace().last()?.rsplit_once(':')?;
        Some(address.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_string())
    };
    all.lines().filter_map(peer).collect()
}

#[test]
fn one_count_over_all_frontends() {
    for hook in ["tc", "xdp"] {
        let net = Net::new(4);
        let _servers = servers(&net, 3);
        let mut agent =
            Agent::start(&net.node, &config(hook, 3, false, &external_frontend("all", "\"nat\"")));
        // From outside, from a pod that is no backend, and from a process of the node's.
        let sources = [&net.client, &net.backends[3], &net.node];
        let mut conns = Vec::new();
        for family in [V4, V6] {
            let places = [
                at(&family.vip(0), 80),
                at(&family.vip(1), 80),
                at(node(family), NODE_PORT),
                at(external(family), 80),
            ];
            for ns in sources {
                for place in places {
                    conns.extend(
                        ns.run(|| (0..25).map(|_| Conn::open(place).expect("answered")).collect::<Vec<_>>()),
                    );
                }
            }
        }
        assert_eq!(counts(&agent), [vec![100; 3], vec![100; 3]], "by {hook}");
        // Whoever takes over finds it so.
        agent.end(Signal::SIGKILL);
        agent.up();
        conns.iter_mut().for_each(|conn| conn.exchange(1_000).expect("its own bytes"));
        let more: Vec<Conn> =
            net.client.run(|| (0..3).map(|_| Conn::open(at(external(V6), 80)).expect("answered")).collect());
        assert_eq!(counts(&agent), [vec![100; 3], vec![101; 3]], "by {hook}");
        drop((conns, more));
        eventually("counts are back to zero", LIMIT, || match counts(&agent) {
            [four, six] if four == [0; 3] && six == [0; 3] => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

#[test]
fn a_frontend_for_backends_of_this_node() {
    for (hook, algorithm) in [("tc", ""), ("xdp", ""), ("tc", "algorithm = \"consistent-hash\"\n")] {
        let net = Net::new(4);
        let _servers = servers(&net, 3);
        let more = external_frontend("local", "\"nat\"");
        let config = config(hook, 3, true, &more).replacen("vips =", &format!("{algorithm}vips ="), 1);
        let agent = Agent::start(&net.node, &config);
        for (index, family) in [V4, V6].into_iter().enumerate() {
            let to = at(external(family), 80);
            let open = |ns: &Ns, count: usize| -> Vec<Conn> {
                ns.run(|| (0..count).map(|_| Conn::open(to).expect("answered")).collect())
            };
            let outside = open(&net.client, 30);
            assert!(outside.iter().all(|conn| conn.backend == "b0"), "by {hook}");
            assert_eq!(counts(&agent)[index], [30, 0, 0]);
            let pod = open(&net.backends[3], 60);
            let process = open(&net.node, 30);
            let here = pod.iter().chain(&process).filter(|conn| conn.backend == "b0").count();
            if algorithm.is_empty() {
                // The same counts: those that came from outside count for the others.
                assert_eq!((here, &counts(&agent)[index]), (10, &vec![40; 3]), "by {hook}");
            } else {
                assert!((1..60).contains(&here), "a pod's connections go everywhere: {here}");
            }
        }
        // Nobody is left here: the client hears nothing, so that whoever sent it here can be asked to send it
        // elsewhere.
        for family in [V4, V6] {
            agent.done(&["backend", "drain", "shop/app:http", &family.backend(0)]);
        }
        let silent =
            net.client.run(|| TcpStream::connect_timeout(&at(external(V4), 80), Duration::from_secs(2)));
        assert_eq!(silent.expect_err("nobody").kind(), ErrorKind::TimedOut);
        let drops = agent.json(&["stats"])["drops"]["no_local_backend"].as_u64().unwrap_or(0);
        assert!(drops > 0 && agent.json(&["stats"])["drops"]["no_backend"] == 0);
        net.backends[3].run(|| Conn::open(at(external(V6), 80)).expect("pods are given to the others"));
    }
}

#[test]
fn clients_are_bound_at_each_port_by_itself_if_that_is_declared() {
    let net = Net::new(2);
    let _servers = servers(&net, 2);
    let declared = |by: &str| {
        let ports = format!("ports = [\"80-81:{TARGET}-{}/tcp\"]\n{by}", TARGET + 1);
        config("tc", 2, false, "").replacen(&format!("ports = [\"80:{TARGET}/tcp\"]\n"), &ports, 1)
    };
    let _more: Vec<Server> = (net.backends.iter().enumerate())
        .map(|(i, ns)| Server::start(ns, &format!("b{i}"), [TARGET + 1]))
        .collect();
    for (by, apart) in [("by = \"port\"", true), ("by = \"service\"", false)] {
        let agent = Agent::start(&net.node, &declared(&format!("affinity = {{ {by} }}\n")));
        for family in [V4, V6] {
            // The second port's client is a new one, and is given to who has fewer.
            let [first, second] = [80, 81].map(|port| {
                let to = at(&family.vip(0), port);
                net.client.run(|| (0..3).map(|_| Conn::open(to).expect("answered")).collect::<Vec<_>>())
            });
            let home = |conns: &[Conn]| {
                assert!(conns.iter().all(|conn| conn.backend == conns[0].backend), "{conns:?}");
                conns[0].backend.clone()
            };
            assert_eq!(home(&first) != home(&second), apart, "{by}");
        }
        assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    }
}

#[test]
fn packets_go_as_the_frontend_says() {
    let net = Net::new(2);
    let _servers = servers(&net, 1);
    let more = external_frontend("all", "{ pod = \"snat\", elsewhere = \"nat\" }");
    let agent = Agent::start(&net.node, &config("xdp", 1, false, &more));
    let process = |to: SocketAddr| net.node.run(|| Conn::open(to).expect("answered"));
    for (family, pod) in [(V4, V4.backend(1)), (V6, V6.backend(1))] {
        let [client, toward] = match family {
            V4 => ["10.1.0.2", "10.2.0.1"],
            V6 => ["fd01::2", "fd02::1"],
        };
        let (cluster, node_port) = (at(&family.vip(0), 80), at(node(family), NODE_PORT));
        for (ns, to, seen) in [
            (&net.client, cluster, client),
            (&net.backends[1], cluster, pod.as_str()),
            // No route by default, and no [snat]: the first address of an interface that is attached to.
            (&net.client, node_port, node(family)),
            (&net.backends[1], node_port, node(family)),
            (&net.client, at(external(family), 80), client),
            (&net.backends[1], at(external(family), 80), node(family)),
        ] {
            let mut conn = ns.run(|| Conn::open(to).expect("answered"));
            conn.exchange(100_000).expect("its own bytes");
            assert_eq!(peers(&net.backends[0]), [seen.to_string()].into(), "from {} to {to}", ns.name);
            drop(conn);
            agent.done(&["connection", "close", "--service", "shop/app:http"]);
            eventually("it is closed", LIMIT, || match peers(&net.backends[0]) {
                none if none.is_empty() => Ok(()),
                some => Err(format!("{some:?}")),
            });
        }
        for to in [cluster, node_port, at(external(family), 80)] {
            let conn = process(to);
            assert_eq!(peers(&net.backends[0]), [toward.to_string()].into(), "a process, to {to}");
            drop(conn);
            eventually("it is closed", LIMIT, || match peers(&net.backends[0]) {
                none if none.is_empty() => Ok(()),
                some => Err(format!("{some:?}")),
            });
        }
    }
}

#[test]
fn source_nat_follows_the_node_s_addresses() {
    let net = Net::new(1);
    let _servers = servers(&net, 1);
    let agent = Agent::start(&net.node, &config("tc", 1, false, ""));
    let open = |node: &str| net.client.run(|| Conn::open(at(node, NODE_PORT)));
    let mut first = open("10.1.0.1").expect("answered");
    assert_eq!(peers(&net.backends[0]), ["10.1.0.1".to_string()].into());
    net.node.ip("addr add 10.2.0.77/24 dev b0");
    net.node.ip("route add default via 10.2.0.2 src 10.2.0.77");
    eventually("new connections have the default route's address", LIMIT, || {
        let mut conn = open("10.1.0.1").map_err(|e| e.to_string())?;
        conn.exchange(1_000).map_err(|e| e.to_string())?;
        match peers(&net.backends[0]) {
            both if both.contains("10.2.0.77") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    first.exchange(100_000).expect("what was open keeps its address");
    // Counts are compared while nothing comes and goes.
    assert_eq!(agent.sweeps(3)["state"], "ok");
}
