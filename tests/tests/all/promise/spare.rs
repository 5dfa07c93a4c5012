//! Promise: a backup gets new connections only while nobody else takes any, a backend of weight 0 none; and a check is made at the port, by the protocol
//! and with the outcome that it is said to.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::interfaces,
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};

const LIMIT: Duration = Duration::from_secs(40);

/// A service at port 80 whose backends have these settings.
fn start(net: &Net, family: Family, more: &str, backends: &[&str]) -> Agent {
    let mut config = interfaces(&[("c0", "tc"), ("b*", "tc")]);
    config +=
        &format!("[[service]]\nname = \"app\"\nvip = \"{}\"\nports = [\"80/tcp\"]\n{more}\n", family.vip(0));
    for (number, settings) in backends.iter().enumerate() {
        config += &format!("[[service.backend]]\naddress = \"{}\"\n{settings}\n", family.backend(number));
    }
    Agent::start(&net.node, &config)
}

fn servers(net: &Net) -> Vec<Server> {
    net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect()
}

/// So many new connections, by backend.
fn spread(net: &Net, family: Family, count: usize) -> [usize; 3] {
    let open = || (0..count).map(|_| Conn::open(at(&family.vip(0), 80)).expect("somebody answers")).collect();
    let conns: Vec<Conn> = net.client.run(open);
    ["b0", "b1", "b2"].map(|name| conns.iter().filter(|conn| conn.backend == name).count())
}

fn await_health(agent: &Agent, address: &str, healthy: bool) {
    // As the command line writes it.
    let address = address.parse::<std::net::IpAddr>().expect("an address").to_string();
    eventually("the check's conclusion", LIMIT, || {
        let list = agent.json(&["backend", "list", "app"]);
        let one = list.as_array().expect("a list").iter().find(|one| one["address"] == address);
        if one.expect("the backend")["healthy"] == healthy { Ok(()) } else { Err(list.to_string()) }
    });
}

#[test]
fn a_backup_takes_what_nobody_else_does() {
    let checks = "health = { type = \"tcp\", interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 2 }";
    for (family, algorithm) in [(V4, "least-connections"), (V6, "consistent-hash")] {
        let net = Net::new(3);
        let _servers = servers(&net);
        let more = format!("{checks}\nalgorithm = \"{algorithm}\"");
        let agent = start(&net, family, &more, &["", "", "backup = true"]);
        let last = |spread: [usize; 3]| spread[2];
        assert_eq!(last(spread(&net, family, 20)), 0, "it isn't needed");
        agent.done(&["backend", "drain", "app", &family.backend(0)]);
        assert_eq!(spread(&net, family, 8), [0, 8, 0], "there is one other");
        net.backends[1].ip("link set eth0 down");
        await_health(&agent, &family.backend(1), false);
        assert_eq!(spread(&net, family, 8), [0, 0, 8], "one is drained, and the other fails");
        agent.done(&["backend", "undrain", "app", &family.backend(0)]);
        assert_eq!(spread(&net, family, 8), [8, 0, 0], "one is back");
        let shown = agent.done(&["backend", "list", "app"]);
        assert!(shown.contains("1 backup"), "{shown}");
    }
}

#[test]
fn with_less_than_the_quorum_backups_get_new_clients_or_nobody_does() {
    let net = Net::new(3);
    let _servers = servers(&net);
    for (third, instead) in [("backup = true", Some([0, 0, 8])), ("weight = 0", None)] {
        let agent = start(&net, V4, "quorum = 2", &["", "", third]);
        assert_eq!(spread(&net, V4, 8), [4, 4, 0]);
        let mut open = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("an answer"));
        agent.done(&["backend", "drain", "app", &V4.backend(0)]);
        match instead {
            Some(instead) => assert_eq!(spread(&net, V4, 8), instead),
            None => {
                let refused = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).map(drop));
                assert_eq!(refused.map_err(|e| e.kind()), Err(std::io::ErrorKind::ConnectionRefused));
            }
        }
        net.client.run(|| open.exchange(1_000).expect("what is open stays"));
        let shown = agent.done(&["service", "show", "app"]);
        assert!(
            shown.contains("Down:       its quorum of 2 isn't met: healthy IPv4 backends weigh 1"),
            "{shown}"
        );
        assert_eq!(agent.json(&["status"])["warnings"][0]["about"], "quorum");
        agent.done(&["backend", "undrain", "app", &V4.backend(0)]);
        let mut again = spread(&net, V4, 7);
        again[usize::from(open.backend == "b1")] += 1;
        assert_eq!(again, [4, 4, 0], "it is met again, and one has been open all the time");
        let events = agent.done(&["events", "--service", "app"]);
        assert!(events.contains(" down ") && events.contains(" up "), "{events}");
    }
}

#[test]
fn weight_0_takes_nothing_new_and_keeps_what_is_open() {
    let net = Net::new(2);
    let _servers = servers(&net);
    let agent = start(&net, V4, "", &["", "weight = 0"]);
    assert_eq!(spread(&net, V4, 6), [6, 0, 0]);
    agent.done(&["backend", "add", "app", &format!("{}:80", V4.backend(1)), "--weight", "2"]);
    let mut open = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("an answer"));
    while open.backend != "b1" {
        open = net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("an answer"));
    }
    agent.done(&["backend", "set", "app", &format!("{}:80", V4.backend(1)), "--weight", "0"]);
    assert_eq!(spread(&net, V4, 6), [6, 0, 0]);
    net.client.run(|| open.exchange(1_000).expect("it stays open"));
    assert!(agent.json(&["service", "show", "app"])["imbalance"].as_f64().is_none_or(f64::is_finite));
}

/// A web server that answers each request with a status.
fn web(ns: &Ns, port: u16, status: u16) {
    let listener = ns.run(|| TcpListener::bind(("::", port))).expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                if line.is_empty() {
                    break;
                }
            }
            // A check that has gone meanwhile is no matter.
            let _ = write!(&stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
}

/// As Patroni has it: a replica says 503 at a port of its own, and its database answers.
#[test]
fn a_check_goes_to_its_own_port_and_takes_the_statuses_that_are_good() {
    let net = Net::new(3);
    let _servers = servers(&net);
    for (ns, status) in net.backends.iter().zip([204, 503, 302]) {
        web(ns, 8008, status);
    }
    let checks = "health = { type = \"http\", path = \"/primary\", port = 8008, expect = \"200-299\", interval = \"200ms\", fall = 1 }";
    let agent = start(&net, V6, checks, &["", "", ""]);
    await_health(&agent, &V6.backend(1), false);
    await_health(&agent, &V6.backend(2), false);
    assert_eq!(spread(&net, V6, 6), [6, 0, 0]);
}

#[test]
fn a_udp_check_wants_an_answer_or_at_least_no_refusal() {
    let net = Net::new(3);
    let _servers = servers(&net);
    udp::echo(&net.backends[0], 1812);
    for (family, send, silent_is_good) in [(V4, "", true), (V6, "send = \"who?\",", false)] {
        // The third says nothing, and refuses nothing.
        let mute = net.backends[2].run(|| std::net::UdpSocket::bind(("::", 1812))).expect("a port");
        let checks = format!(
            "health = {{ type = \"udp\", port = 1812, {send} interval = \"200ms\", timeout = \"300ms\", fall = 1 }}"
        );
        let agent = start(&net, family, &checks, &["", "", ""]);
        await_health(&agent, &family.backend(1), false);
        await_health(&agent, &family.backend(2), silent_is_good);
        await_health(&agent, &family.backend(0), true);
        let wanted = if silent_is_good { [3, 0, 3] } else { [6, 0, 0] };
        assert_eq!(spread(&net, family, 6), wanted);
        drop(mute);
    }
}
