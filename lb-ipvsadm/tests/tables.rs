//! Tables, to the blank: `tables/` has what ipvsadm 1.31 printed of the same services with `-n`, but for the name in the
//! heading.

use std::time::Duration;

use flowpin_import::ipvs::{Algorithm, Forward};
use lb_ipvsadm::{
    Affinity, Command, List, Protocol, Table, Timeouts,
    print::{self, Connection, Heading, State},
    save::save,
    table::{Counts, Frontend, Server, Service},
};

const COUNTS: Counts = Counts {
    connections: 1_000_000_000,
    packets_in: 99_999_999,
    packets_out: 100_000_000,
    bytes_in: 99_999_999_999,
    bytes_out: 123_456_789_012_345,
};
/// Of ten seconds.
const GAINED: Counts = Counts {
    connections: 11,
    packets_in: 97,
    packets_out: 1_000,
    bytes_in: 10_000,
    bytes_out: 40_000_000_000,
};

fn servers() -> Vec<Server> {
    let first = Server {
        name: "192.168.100.101:80".into(),
        elsewhere: None,
        address: "192.168.100.101".parse().unwrap(),
        port: Some(80),
        weight: 1,
        draining: false,
        unhealthy: false,
        limit: Some(100),
        active: 12,
        clients: 2,
        counts: COUNTS,
    };
    let second = Server {
        name: "192.168.1.2:8080".into(),
        elsewhere: None,
        address: "192.168.1.2".parse().unwrap(),
        port: Some(8080),
        weight: 65_535,
        limit: None,
        active: 1_234_567_890,
        clients: 0,
        counts: Counts { connections: 1, ..Counts::default() },
        ..first.clone()
    };
    vec![first, second]
}

fn service(protocol: Protocol, port: u16, forward: Forward, persistent: Option<u64>) -> Service {
    let address = "10.0.0.1".parse().unwrap();
    let affinity = persistent.map(|s| Affinity { timeout: Duration::from_secs(s), ipv6_prefix: 128 });
    Service {
        name: port.to_string(),
        elsewhere: None,
        frontends: vec![Frontend { protocol, address, first: port, last: port, to: None, forward }],
        algorithm: if affinity.is_some() { Algorithm::ConsistentHash } else { Algorithm::LeastConnections },
        affinity,
        unsaid: Vec::new(),
        servers: servers(),
    }
}

fn table(forward: Forward) -> Table {
    let (udp, tcp) = (Protocol::Udp, Protocol::Tcp);
    Table {
        services: vec![
            service(udp, 81, forward, None),
            service(tcp, 82, forward, Some(300)),
            service(tcp, 80, forward, None),
        ],
    }
}

fn list(line: &str) -> List {
    match Command::parse(&line.split_whitespace().collect::<Vec<_>>()) {
        Ok(Command::List(list)) => list,
        other => panic!("{line}: {other:?}"),
    }
}

fn shown(line: &str, table: &Table) -> String {
    print::servers(Heading { version: "1.2.1", size: 4096 }, table, &list(line)).expect(line)
}

#[test]
fn services_and_servers() {
    let masq = table(Forward::Nat);
    for (line, table, want) in [
        ("-L -n", &masq, include_str!("tables/list.txt")),
        ("-L -n", &table(Forward::Snat), include_str!("tables/list.txt")),
        ("-L -n --stats", &masq, include_str!("tables/stats.txt")),
        ("-L -n --stats --exact", &masq, include_str!("tables/exact.txt")),
        ("-L -n --thresholds", &masq, include_str!("tables/thresholds.txt")),
        ("-L -n --persistent-conn", &masq, include_str!("tables/persistent.txt")),
        ("-L -n --tun-info", &table(Forward::DsrIpip), include_str!("tables/tunnels.txt")),
        ("-L -n -t 10.0.0.1:80", &masq, include_str!("tables/one.txt")),
        ("-L -n --stats -t 10.0.0.1:80", &masq, include_str!("tables/one-stats.txt")),
        ("-L -n -t 10.0.0.1:82", &table(Forward::DsrL2), include_str!("tables/routed.txt")),
    ] {
        assert_eq!(shown(line, table), want, "{line}");
    }
    let none = print::servers(Heading { version: "", size: 0 }, &masq, &list("-L -t 10.0.0.1:99"));
    assert!(none.unwrap_err().to_string().starts_with("No such service: -t 10.0.0.1:99"));
}

#[test]
fn rates_are_what_two_readings_differ_by() {
    let mut earlier = table(Forward::Nat);
    let mut later = earlier.clone();
    for server in later.services.iter_mut().map(|service| &mut service.servers[0]) {
        server.counts = COUNTS.plus(GAINED);
    }
    assert_eq!(shown("-L -n --rate", &later.clone().rates(&earlier, 10.0)), include_str!("tables/rate.txt"));
    // Counters that began anew, and a server that wasn't there.
    later.services[0].servers[0].counts = Counts { connections: 20, ..Counts::default() };
    earlier.services[0].servers.pop();
    let rates = later.rates(&earlier, 10.0);
    let of = |i: usize| rates.services[0].servers[i].counts.connections;
    assert_eq!((of(0), of(1)), (2, 0));
}

#[test]
fn connections_and_timeouts() {
    let connection = |state, protocol, seconds, client: &str, service: &str| Connection {
        protocol,
        expires: Duration::from_secs(seconds),
        state,
        client: client.parse().unwrap(),
        service: service.parse().unwrap(),
        server: "192.168.1.2:8080".parse().unwrap(),
    };
    let list = [
        connection(State::Open, Protocol::Tcp, 899, "192.0.2.7:40000", "10.0.0.1:80"),
        connection(State::Datagrams, Protocol::Udp, 59, "192.0.2.7:40001", "10.0.0.1:81"),
        connection(State::Unconfirmed, Protocol::Tcp, 10_800, "192.0.2.7:0", "10.0.0.1:80"),
    ];
    assert_eq!(print::connections(list), include_str!("tables/connections.txt"));
    let seconds = |s| Some(Duration::from_secs(s));
    let timeouts = Timeouts { tcp: seconds(900), tcp_fin: seconds(120), udp: seconds(300) };
    assert_eq!(print::timeouts(&timeouts), include_str!("tables/timeouts.txt"));
}

#[test]
fn a_saved_table_says_what_it_leaves_out() {
    let mut table = table(Forward::Nat);
    let limited = save(&table).text;
    assert!(
        limited.contains("-r 192.168.100.101:80 -m -w 1 -x 100\n"),
        "ipvsadm leaves limits out: {limited}"
    );
    for server in table.services.iter_mut().flat_map(|service| &mut service.servers) {
        server.limit = None;
    }
    let saved = save(&table);
    assert_eq!(saved.text, include_str!("tables/save.txt"));
    assert!(saved.left_out.is_empty() && saved.unsaid.is_empty(), "{saved:?}");
    table.services[0].frontends[0].last = 83;
    table.services[1].unsaid = vec!["health checks".into(), "source ranges".into()];
    (table.services[2].frontends[0].first, table.services[2].frontends[0].last) = (1, 65_535);
    let saved = save(&table);
    assert!(saved.text.starts_with("-A -t 10.0.0.1:82 ") && !saved.text.contains(" -u "), "{}", saved.text);
    let ([every, range], [unsaid]) = (&saved.left_out[..], &saved.unsaid[..]) else { panic!("{saved:?}") };
    assert!(range.contains("\"81\" at udp 10.0.0.1:81-83"), "{range}");
    assert!(every.contains("\"80\" at tcp 10.0.0.1:0: every port"), "{every}");
    assert!(unsaid.contains("\"82\": health checks, source ranges"), "{unsaid}");
}

/// Each address of a service with each of its ports is a block; so is a range.
#[test]
fn frontends_are_blocks_with_the_same_servers() {
    let mut web = service(Protocol::Tcp, 80, Forward::Nat, None);
    let six = web.frontends[0];
    web.frontends.push(Frontend { address: "2001:db8::80".parse().unwrap(), ..six });
    web.frontends.push(Frontend { first: 8001, last: 8003, to: Some(9001), ..six });
    web.frontends.push(Frontend { address: "0.0.0.0".parse().unwrap(), first: 1, last: 65_535, ..six });
    for server in &mut web.servers {
        server.port = None;
    }
    web.servers[0].draining = true;
    web.servers[1].unhealthy = true;
    let fd00 = "fd00::11".parse().unwrap();
    web.servers.push(Server {
        name: "fd00::11".into(),
        elsewhere: None,
        address: fd00,
        unhealthy: false,
        ..web.servers[1].clone()
    });
    let table = Table { services: vec![web] };
    let text = shown("-L", &table);
    let lines: Vec<&str> = text.lines().skip(3).map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "TCP  0.0.0.0:0 wlc",
            "  -> 192.168.1.2:0                Masq    0      1234567890 0",
            "  -> 192.168.100.101:0            Masq    0      12         0",
            "TCP  10.0.0.1:80 wlc",
            "  -> 192.168.1.2:80               Masq    0      1234567890 0",
            "  -> 192.168.100.101:80           Masq    0      12         0",
            "TCP  10.0.0.1:8001-8003 wlc",
            "  -> 192.168.1.2:9001-9003        Masq    0      1234567890 0",
            "  -> 192.168.100.101:9001-9003    Masq    0      12         0",
            "TCP  [2001:db8::80]:80 wlc",
            "  -> [fd00::11]:80                Masq    65535  1234567890 0",
        ],
    );
    let one = shown("-L -t 10.0.0.1:8002", &table);
    assert!(one.contains("10.0.0.1:8001-8003") && one.lines().count() == 5, "{one}");
    // A drain is an operator's word and kept; health isn't.
    let saved = save(&table).text;
    for line in ["-r 192.168.100.101:80 -m -w 0 -x 100\n", "-r 192.168.1.2:80 -m -w 65535\n"] {
        assert!(saved.contains(line), "{line}: {saved}");
    }
}
