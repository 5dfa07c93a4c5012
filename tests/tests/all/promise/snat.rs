//! Promise: with source NAT a backend may answer by whatever way it has; a backend reaches itself through the
//! VIP; ports are used to the last.

use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use flowpin_tests::{
    harness::{
        Agent, Net, Ns,
        agent::{interfaces, service},
        client::{Conn, at},
        eventually,
        netfilter::load,
        server::{PLEASE_CLOSE, Server},
        topology::Family::{self, V4, V6},
        udp,
    },
    packet::build::eth,
};
use lb_common::abi::{Addr4, SourceKey, SourcePorts};
use nix::sys::signal::Signal;
use socket2::{Domain, Protocol, Socket, Type};

const LIMIT: Duration = Duration::from_secs(60);

/// The node's addresses towards backend 0.
const SNAT: &str = "[snat]\naddresses = [\"10.2.0.1\", \"fd02:0::1\"]\n";

/// Gives every backend a way to the client that isn't by the node.
fn bypass(net: &Net) {
    for (i, backend) in net.backends.iter().enumerate() {
        backend.ip(&format!("link add past type veth peer name past{i} netns {}", net.client.name));
        for (ns, link, host) in [(backend, "past".to_string(), 2), (&net.client, format!("past{i}"), 1)] {
            ns.ip(&format!("addr add 10.9.{i}.{host}/24 dev {link}"));
            ns.ip(&format!("addr add fd09:{i}::{host}/64 dev {link} nodad"));
            ns.ip(&format!("link set {link} up"));
        }
        backend.ip(&format!("route add 10.1.0.0/24 via 10.9.{i}.1"));
        backend.ip(&format!("-6 route add fd01::/64 via fd09:{i}::1"));
        let way = backend.ip("route get 10.1.0.2");
        assert!(way.contains("dev past"), "{way}");
    }
}

fn services(family: Family, forward: &str, backends: usize) -> String {
    let targets: Vec<String> = (0..backends).map(|i| family.backend(i)).collect();
    let more = format!("forward = \"{forward}\"");
    service("app", &family.vip(0), "\"80/tcp\", \"53/udp\"", &targets, &more)
}

/// A mebibyte each way by TCP and datagrams of 8 KB, by several connections; then nothing is left that counts.
fn talk(ns: &Ns, family: Family, agent: &Agent, backends: usize) {
    let count = 4 * backends;
    let mut conns: Vec<Conn> =
        ns.run(|| (0..count).map(|_| Conn::open(at(&family.vip(0), 80)).expect("answered")).collect());
    conns.iter_mut().for_each(|conn| (0..16).for_each(|_| conn.exchange(65_536).expect("its own bytes")));
    let sockets: Vec<UdpSocket> =
        ns.run(|| (0..count).map(|_| udp::connect(at(&family.vip(0), 53))).collect());
    for socket in &sockets {
        (0..20).for_each(|number| {
            udp::exchange(socket, number, 8_000);
        });
    }
    assert_eq!(agent.active("app"), vec![8; backends]);
    let listed = agent.json(&["connection", "list"]);
    let backend = at(&family.backend(0), 80).to_string();
    let on_first = listed.as_array().unwrap().iter().filter(|c| c["backend"] == backend.as_str()).count();
    assert_eq!(on_first, 4, "{listed}");
    drop(conns);
    agent.done(&["connection", "close", "--service", "app"]);
    eventually("all closed", LIMIT, || match agent.active("app") {
        counts if counts.iter().sum::<u64>() == 0 => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn backends_that_would_answer_past_the_node() {
    for (client, server) in [("tc", "tc"), ("fast", "peer"), ("xdp", "tc"), ("xdp", "xdp")] {
        let net = Net::new(2);
        bypass(&net);
        let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
        net.backends.iter().for_each(|ns| udp::echo(ns, 53));
        for family in [V4, V6] {
            let config = interfaces(&[("c0", client), ("b*", server)]) + SNAT + &services(family, "snat", 2);
            let agent = Agent::start(&net.node, &config);
            talk(&net.client, family, &agent, 2);
        }
    }
}

#[test]
fn a_backend_reaches_itself_through_the_vip() {
    for hook in ["fast", "xdp"] {
        let net = Net::new(1);
        // What XDP sends back into the veth it came by.
        net.backends[0].must("ethtool -K eth0 gro on");
        let _server = Server::start(&net.backends[0], "b", [80]);
        udp::echo(&net.backends[0], 53);
        for family in [V4, V6] {
            let config = interfaces(&[("c0", hook), ("b*", hook)]) + SNAT + &services(family, "nat", 1);
            let agent = Agent::start(&net.node, &config);
            talk(&net.backends[0], family, &agent, 1);
        }
    }
}

/// Bitmaps of ports that the datapath keeps.
fn bitmaps(agent: &Agent) -> usize {
    let map = aya::maps::MapData::from_pin(agent.pins().join("maps/SOURCE_PORTS4")).expect("the pin");
    let map: aya::maps::HashMap<_, SourceKey<Addr4>, SourcePorts> =
        aya::maps::Map::HashMap(map).try_into().expect("a hash map");
    map.keys().count()
}

#[test]
fn other_ports_for_new_connections_and_nothing_kept_of_old_ones() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b", [80]);
    let config = |ports: &str| {
        format!("[snat]\naddresses = [\"10.2.0.1\"]\nports = \"{ports}\"\n")
            + &interfaces(&[("c0", "tc"), ("b0", "tc")])
            + &services(V4, "snat", 1)
    };
    let agent = Agent::start(&net.node, &config("2000-2015"));
    let open = || net.client.run(|| Conn::open(at(&V4.vip(0), 80)));
    let peers = |first: u16, last: u16| {
        let all = net.backends[0].must("ss -Htn state established sport = :80");
        let port = |line: &str| line.rsplit(':').next()?.trim().parse::<u16>().ok();
        all.lines().filter_map(port).filter(|p| (first..=last).contains(p)).count()
    };
    let mut conns: Vec<Conn> = (0..16).map(|_| open().expect("a port for each")).collect();
    assert_eq!(open().expect_err("there are 16").kind(), ErrorKind::ConnectionRefused);
    agent.write_config(&config("2008-2039"));
    agent.signal(Signal::SIGHUP);
    // Eight of the new range's are still in use.
    eventually("the new range is in force", LIMIT, || {
        conns.extend(open().map_err(|e| e.to_string()));
        if conns.len() == 40 { Ok(()) } else { Err(format!("{} connections", conns.len())) }
    });
    assert_eq!((peers(2000, 2015), peers(2016, 2039)), (16, 24));
    conns.iter_mut().for_each(|conn| conn.exchange(1000).expect("old and new go on"));
    assert_eq!(bitmaps(&agent), 1);
    drop(conns);
    agent.done(&["connection", "close", "--service", "app"]);
    eventually("what is empty is not kept", LIMIT, || match bitmaps(&agent) {
        0 => Ok(()),
        n => Err(format!("{n} bitmaps, {}", agent.json(&["status"])["conntrack_entries"])),
    });
}

/// A masquerade gives ports of the same address to connections of its own: none is cut, and ours get others.
#[test]
fn a_masquerade_that_has_ports_of_the_same_address() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b", [80]);
    let rules = "*nat\n\
        -A PREROUTING -d 10.96.0.99 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x4000/0x4000\n\
        -A PREROUTING -d 10.96.0.99 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.2:80\n\
        -A POSTROUTING -m mark --mark 0x4000/0x4000 -p tcp -j MASQUERADE --to-ports 2000-2063\n\
        COMMIT\n";
    load(&net.node, V4, rules);
    let config = "[snat]\naddresses = [\"10.2.0.1\"]\nports = \"2000-2063\"\n".to_string()
        + &interfaces(&[("c0", "tc"), ("b0", "tc")])
        + &services(V4, "snat", 1);
    let agent = Agent::start(&net.node, &config);
    let open = |to: &str, count: usize| -> Vec<Conn> {
        let one = |i| Conn::open(at(to, 80)).unwrap_or_else(|e| panic!("{i} to {to}: {e}"));
        net.client.run(|| (0..count).map(one).collect())
    };
    let mut others = open("10.96.0.99", 5);
    let mut ours = open(&V4.vip(0), 30);
    assert_eq!(agent.active("app"), [30]);
    others.iter_mut().chain(&mut ours).for_each(|conn| conn.exchange(1_000).expect("its own bytes"));
}

/// Eight ports, four of which are held: as many connections one after the other as anybody wants get through by
/// the rest.
fn again_and_again(family: Family, hook: &str, end: fn(&Agent, Conn)) {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b", [80]);
    let config = interfaces(&[("c0", hook), ("b0", "tc")])
        + "[snat]\naddresses = [\"10.2.0.1\", \"fd02:0::1\"]\nports = \"2000-2007\"\n"
        + &services(family, "snat", 1);
    let agent = Agent::start(&net.node, &config);
    let open = || net.client.run(|| Conn::open(at(&family.vip(0), 80)));
    let mut held: Vec<Conn> = (0..4).map(|_| open().expect("a port")).collect();
    let began = Instant::now();
    for i in 0..100 {
        let mut conn = open().unwrap_or_else(|e| panic!("{family:?} by {hook}, connection {i}: {e}"));
        conn.exchange(100).expect("its own bytes");
        end(&agent, conn);
        // Over, and not yet forgotten.
        eventually("it is closed", LIMIT, || match agent.active("app") {
            counts if counts == [4] => Ok(()),
            counts => Err(format!("{counts:?}")),
        });
    }
    assert!(began.elapsed() < LIMIT / 2, "closed flows were waited for: {:?}", began.elapsed());
    held.iter_mut().for_each(|conn| conn.exchange(1_000).expect("what is open keeps its port"));
    held.extend((0..4).map(|_| open().expect("a port that nobody holds")));
    assert_eq!(open().expect_err("all are held").kind(), ErrorKind::ConnectionRefused);
    held.iter_mut().for_each(|conn| conn.exchange(1_000).expect("what is open keeps its port"));
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn ports_of_connections_that_clients_close() {
    again_and_again(V4, "tc", |_, conn| drop(conn));
    again_and_again(V6, "xdp", |_, conn| drop(conn));
}

#[test]
fn ports_of_connections_that_are_reset() {
    again_and_again(V6, "tc", |_, conn| conn.reset().expect("reset"));
}

#[test]
fn ports_of_connections_that_servers_close() {
    again_and_again(V4, "xdp", |_, mut conn| {
        conn.stream.write_all(&[PLEASE_CLOSE]).expect("sent");
        assert_eq!(conn.stream.read(&mut [0]).expect("a farewell"), 0);
    });
}

#[test]
fn ports_of_connections_that_the_operator_closes() {
    again_and_again(V6, "xdp", |agent, mut conn| {
        let client = conn.stream.local_addr().expect("an address").to_string();
        agent.done(&["connection", "close", "--client", &client]);
        let end = conn.stream.read(&mut [0]).expect_err("it is reset");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    });
}

/// Who has asked a server: each peer once.
fn listen(ns: &Ns) -> Arc<Mutex<HashSet<SocketAddr>>> {
    let socket = ns.run(|| UdpSocket::bind("0.0.0.0:53").expect("bind"));
    let seen: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let noted = seen.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            noted.lock().expect("whole").insert(from);
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    seen
}

/// A client of many addresses and ports: packets are put together, so that it takes one socket and not one for each.
struct Crowd {
    out: Socket,
    back: Socket,
}

impl Crowd {
    fn new(ns: &Ns) -> Self {
        // The stack knows of no such sockets, and would say so to each answer.
        ns.must("iptables -A OUTPUT -p icmp --icmp-type port-unreachable -j DROP");
        ns.run(|| {
            let out =
                Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).expect("raw");
            let back = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).expect("raw");
            back.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
            back.set_recv_buffer_size(8 << 20).expect("room");
            Self { out, back }
        })
    }

    /// Sends a query of client `n`.
    fn ask(&self, n: u32) {
        let port = 10_000 + (n % 40_000) as u16;
        let client: std::net::IpAddr = format!("10.1.0.{}", 2 + n / 40_000).parse().expect("an address");
        let vip: std::net::IpAddr = V4.vip(0).parse().expect("an address");
        let packet = eth().ip(client, vip).fresh().udp(port, 53).payload(&n.to_be_bytes()).packet();
        let to: SocketAddr = at(&V4.vip(0), 53);
        self.out.send_to(&packet, &to.into()).expect("sent");
    }

    /// Numbers of clients that have an answer.
    fn answers(&self, into: &mut HashSet<u32>) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 256];
        loop {
            match self.back.recv(&mut buffer) {
                Ok(len) if len >= 32 => {
                    // SAFETY: the kernel has written so many bytes.
                    let packet: Vec<u8> = buffer[..len].iter().map(|b| unsafe { b.assume_init() }).collect();
                    into.insert(u32::from_be_bytes([packet[28], packet[29], packet[30], packet[31]]));
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// Asks until each of these has been answered.
    fn settle(&self, clients: std::ops::Range<u32>) {
        let mut answered = HashSet::new();
        eventually("every client is answered", 5 * LIMIT, || {
            for part in clients.clone().filter(|n| !answered.contains(n)).collect::<Vec<_>>().chunks(100) {
                part.iter().for_each(|n| self.ask(*n));
                std::thread::yield_now();
            }
            self.answers(&mut answered);
            match clients.clone().find(|n| !answered.contains(n)) {
                None => Ok(()),
                Some(n) => Err(format!("{} were, {n} wasn't", answered.len())),
            }
        });
    }
}

#[test]
fn sixty_thousand_flows_to_one_backend_and_then_no_more() {
    let net = Net::new(1);
    net.client.ip("addr add 10.1.0.3/24 dev eth0");
    net.node.ip("addr add 10.2.0.9/24 dev b0");
    let peers = listen(&net.backends[0]);
    let crowd = Crowd::new(&net.client);
    let config = interfaces(&[("c0", "tc"), ("b0", "tc")])
        + "[snat]\naddresses = [\"10.2.0.1\", \"10.2.0.9\"]\nports = \"1024-32767\"\n"
        + &service(
            "app",
            &V4.vip(0),
            "\"53/udp\"",
            &[V4.backend(0)],
            "forward = \"snat\"\ntimeouts = { udp = \"1h\" }",
        );
    let agent = Agent::start(&net.node, &config);
    crowd.settle(0..60_000);
    assert_eq!(agent.active("app"), [60_000]);
    {
        let peers = peers.lock().unwrap();
        assert_eq!(peers.len(), 60_000, "each flow has an address and port that no other has");
        let addresses: HashSet<_> = peers.iter().map(|p| p.ip()).collect();
        assert_eq!(addresses.len(), 2, "{addresses:?}");
    }
    // Two addresses with 31,744 ports each.
    crowd.settle(60_000..63_488);
    assert_eq!(agent.active("app"), [63_488]);
    let refused = |agent: &Agent| agent.json(&["stats"])["drops"]["no_source_port"].as_u64().unwrap_or(0);
    assert_eq!(refused(&agent), 0, "to the last port");
    (70_000..70_500).for_each(|n| crowd.ask(n));
    eventually("what is too much is refused", LIMIT, || match (refused(&agent), agent.active("app")) {
        (500, counts) if counts == [63_488] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    crowd.settle(0..200);
    // The table is emptied, and all is as before.
    agent.done(&["connection", "close", "--service", "app", "--rate", "100000"]);
    assert_eq!(agent.active("app"), [0]);
    crowd.settle(70_000..70_500);
    assert_eq!(agent.active("app"), [500]);
    assert_eq!(refused(&agent), 500);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
