//! What is saved is restored, and saved again the same; and no arguments are too odd to be answered.

use std::{net::IpAddr, time::Duration};

use flowpin_import::ipvs::{Algorithm, Forward};
use lb_ipvsadm::{
    Affinity, Command, Protocol, Table,
    plan::{NewService, Plan, Step, plan},
    restore,
    save::save,
    table::{Counts, Frontend, Server, Service},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn address(six: bool) -> BoxedStrategy<IpAddr> {
    match six {
        true => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
        false => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
    }
}

fn server(six: bool, direct: bool) -> impl Strategy<Value = Server> {
    let port = if direct { Just(None).boxed() } else { option::of(1..=u16::MAX).boxed() };
    let limit = option::of(1..u32::MAX);
    (address(six), port, any::<u16>(), limit, any::<[bool; 2]>()).prop_map(
        |(address, port, weight, limit, is)| Server {
            name: format!("{address}, {port:?}"),
            elsewhere: None,
            address,
            port,
            weight,
            draining: is[0],
            unhealthy: is[1],
            limit,
            active: 0,
            clients: 0,
            counts: Counts::default(),
        },
    )
}

fn affinity() -> impl Strategy<Value = Option<Affinity>> {
    let timeout = prop_oneof![Just(10_800), 1..=2_678_400_u64].prop_map(Duration::from_secs);
    let prefix = prop_oneof![Just(128), 1..=128_u8];
    option::of((timeout, prefix).prop_map(|(timeout, ipv6_prefix)| Affinity { timeout, ipv6_prefix }))
}

fn service() -> impl Strategy<Value = Service> {
    let forward = select(vec![Forward::Nat, Forward::Snat, Forward::DsrL2, Forward::DsrIpip]);
    let ports = prop_oneof![3 => (1..=u16::MAX).prop_map(|port| (port, port)), 1 => Just((1, u16::MAX))];
    (any::<bool>(), forward, ports, any::<bool>()).prop_flat_map(|(six, forward, (first, last), tcp)| {
        let direct = forward.is_direct();
        let algorithm =
            select(vec![Algorithm::LeastConnections, Algorithm::ConsistentHash, Algorithm::RoundRobin]);
        (address(six), algorithm, affinity(), vec(server(six, direct), 0..4)).prop_map(
            move |(address, algorithm, mut affinity, mut servers)| {
                if let (Some(affinity), false) = (&mut affinity, six) {
                    affinity.ipv6_prefix = 128;
                }
                servers.dedup_by(|a, b| {
                    (a.address, a.port.unwrap_or(first)) == (b.address, b.port.unwrap_or(first))
                });
                let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
                let frontend = Frontend { protocol, address, first, last, to: None, forward };
                Service {
                    name: format!("{protocol:?} {address} {first}"),
                    elsewhere: None,
                    frontends: vec![frontend],
                    algorithm,
                    affinity,
                    unsaid: Vec::new(),
                    servers,
                }
            },
        )
    })
}

/// As it is after the step.
fn made(new: &NewService) -> Service {
    let (first, last) = new.at.ports();
    let forward = new.forward.unwrap_or(Forward::Nat);
    let servers = new.servers.iter().map(|server| {
        let (address, port) = match server.address.parse::<IpAddr>() {
            Ok(address) => (address, None),
            Err(_) => {
                let place: std::net::SocketAddr = server.address.parse().expect("an address with its port");
                (place.ip(), Some(place.port()))
            }
        };
        Server {
            name: server.address.clone(),
            elsewhere: None,
            address,
            port,
            weight: server.weight,
            draining: false,
            unhealthy: false,
            limit: server.limit,
            active: 0,
            clients: 0,
            counts: Counts::default(),
        }
    });
    Service {
        name: new.name.clone(),
        elsewhere: None,
        frontends: vec![Frontend {
            protocol: new.at.protocol,
            address: new.at.address,
            first,
            last,
            to: None,
            forward,
        }],
        algorithm: new.algorithm,
        affinity: new.affinity,
        unsaid: Vec::new(),
        servers: servers.collect(),
    }
}

fn restored(text: &str) -> Plan {
    let lines = restore::read(text).unwrap_or_else(|refusal| panic!("{refusal}\n{text}"));
    let changes: Vec<_> = lines.into_iter().map(|(line, change)| (Some(line), change)).collect();
    plan(&Table::default(), &changes).unwrap_or_else(|refusal| panic!("{refusal}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn save_restore_save(mut services in vec(service(), 0..5)) {
        services.dedup_by(|a, b| {
            let (a, b) = (a.frontends[0], b.frontends[0]);
            (a.protocol, a.address) == (b.protocol, b.address) && a.first <= b.last && b.first <= a.last
        });
        let saved = save(&Table { services }).text;
        let plan = restored(&saved);
        prop_assert_eq!(&plan.notes, &Vec::<String>::new());
        let services = plan.steps.iter().map(|(_, step)| match step {
            Step::AddService(new) => made(new),
            other => panic!("{other:?} where all is new"),
        });
        let again = save(&Table { services: services.collect() });
        prop_assert_eq!(again.text, saved);
        prop_assert!(again.left_out.is_empty(), "{:?}", again.left_out);
    }

    #[test]
    fn odd_arguments_are_answered(words in vec("\\PC{0,6}|-[A-Za-z6-]{1,4}|--[a-z-]{1,12}=?|10.0.0.1(:[0-9]{0,6})?", 0..8)) {
        if let Err(refusal) = Command::parse(&words) {
            prop_assert!(!refusal.message.is_empty());
        }
        let line = words.join(" ");
        if let Ok(lines) = restore::read(&line) {
            let changes: Vec<_> = lines.into_iter().map(|(line, change)| (Some(line), change)).collect();
            let _ = plan(&Table::default(), &changes);
        }
    }
}
