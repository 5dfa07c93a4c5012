//! Promise: a drain ends when its deadline says, whatever else is being closed.

use std::{
    io::{ErrorKind, Read},
    net::IpAddr,
    time::{Duration, Instant},
};

use flowpin_tests::{
    harness::{
        Agent, Net,
        agent::{interfaces, service},
        client::{Conn, at},
        eventually,
        server::Server,
        topology::Family::V4,
    },
    packet::{
        build::{SYN, eth},
        crowd::crowd,
    },
};

/// Connections of the crowd, half of them on each backend.
const CROWD: u32 = 100_000;
/// Connections of the service that drains besides, on the backend that does.
const OURS: usize = 500;

/// Opens the crowd's connections: each has sent its SYN.
fn open_crowd() {
    let vip: IpAddr = V4.vip(0).parse().expect("an address");
    crowd(CROWD, |client, port| eth().ip(client, vip).tcp(port, 80, SYN).bytes());
}

#[test]
fn a_hundred_thousand_resets_delay_no_other_services_deadline() {
    let net = Net::new(2);
    let servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let targets = [V4.backend(0), V4.backend(1)];
    let reset = "on_deadline = \"reset\"\n";
    let crowd = format!("timeouts = {{ half_open = \"1h\" }}\n{reset}");
    let config = "[conntrack]\nmax_flows = 524288\n".to_string()
        + &interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("crowd", &V4.vip(0), "\"80/tcp\"", &targets, &crowd)
        + &service("ours", &V4.vip(1), "\"80/tcp\"", &targets, reset);
    let agent = Agent::start(&net.node, &config);
    let open = |count| -> Vec<Conn> {
        net.client.run(|| (0..count).map(|_| Conn::open(at(&V4.vip(1), 80)).expect("answered")).collect())
    };
    let (mut drained, mut others): (Vec<Conn>, Vec<Conn>) =
        open(2 * OURS).into_iter().partition(|conn| conn.backend == "b0");
    assert_eq!(drained.len(), OURS);
    open_crowd();
    let crowd = || agent.active("crowd").iter().sum::<u64>();
    assert_eq!(crowd(), u64::from(CROWD));

    let drain = |service: &str, backend: &str, deadline: &str| {
        agent.done(&["backend", "drain", service, backend, "--deadline", deadline]);
    };
    let began = Instant::now();
    drain("ours", &targets[0], "5s");
    targets.iter().for_each(|backend| drain("crowd", backend, "3s"));
    for conn in &mut drained {
        let end = conn.stream.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
    }
    let (took, left) = (began.elapsed(), crowd());
    println!("the drain of 5 s ended after {took:?}, with {left} of {CROWD} others still to be reset");
    assert!(took >= Duration::from_secs(5), "too early: {took:?}");
    assert!(took < Duration::from_secs(7), "too late: {took:?}");
    assert!(left > 0 && left < u64::from(CROWD), "{left} are left: it ended beside nothing");
    for conn in &mut others {
        conn.exchange(100).expect("another backend's");
    }
    eventually("the crowd is gone", Duration::from_secs(60), || match crowd() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    });
    println!("the crowd was gone after {:?}", began.elapsed());
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    drop(servers);
}
