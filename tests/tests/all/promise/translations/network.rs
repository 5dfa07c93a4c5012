//! A network load balancer before the ports of an ingress.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use flowpin_tests::harness::{
    Agent, Net, Ns, agent::interfaces, eventually, server::Server, topology::Family::V4,
};
use nix::sys::signal::Signal;

use super::{LIMIT, are_cut, await_healthy, go_on, on, open, start, text, web};

/// An ingress: its two ports, and what it says of itself at a third.
fn ingress(ns: &Ns, number: usize, status: &Arc<AtomicU16>) -> [Server; 2] {
    let status = status.clone();
    web(ns, 15021, move |path| if path == "/healthz/ready" { status.load(Ordering::SeqCst) } else { 404 });
    [8080, 8443].map(|port| Server::start(ns, &format!("b{number}:{port}"), [port]))
}

/// Whom a backend's server at a port has connections with.
fn peers(backend: &Ns, port: u16) -> BTreeSet<String> {
    let all = backend.must(&format!("ss -Htn state established sport = :{port}"));
    let peer = |line: &str| {
        let (address, _) = line.split_whitespace().last()?.rsplit_once(':')?;
        Some(address.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_string())
    };
    all.lines().filter_map(peer).collect()
}

/// Waits until the agent has given up a backend.
fn await_removal(agent: &Agent, address: &str) {
    eventually("it is deregistered", LIMIT, || {
        let list = agent.json(&["backend", "list", "ingress"]);
        let mut all = list.as_array().expect("a list").iter();
        let there = all.any(|b| b["address"] == address && b["origin"] != "removed");
        if there { Err(list.to_string()) } else { Ok(()) }
    });
}

#[test]
fn two_listeners_lead_to_other_ports_and_a_target_leaves_with_a_delay() {
    let net = Net::new(3);
    let status: Vec<_> = (0..3).map(|_| Arc::new(AtomicU16::new(200))).collect();
    let start_one = |(number, ns): (usize, &Ns)| ingress(ns, number, &status[number]);
    let _servers: Vec<_> = net.backends.iter().enumerate().map(start_one).collect();
    let all = text("network", &[("interval = \"10s\"", "interval = \"300ms\""), ("\"300s\"", "\"6s\"")]);
    let agent = start(&net, &all);
    let [first, second, third] = [0, 1, 2].map(|i| V4.backend(i));
    for (port, target) in [(80, 8080), (443, 8443)] {
        let conns = open(&net, port, 60);
        let counts = [0, 1, 2].map(|i| on(&conns, &format!("b{i}:{target}")));
        assert!(counts.iter().sum::<usize>() == 60 && !counts.contains(&0), "all targets: {counts:?}");
        for backend in &net.backends {
            assert_eq!(peers(backend, target), ["10.1.0.2".to_string()].into(), "they see the client");
        }
    }

    // A target that isn't ready loses what it has.
    let split = |name: &str| open(&net, 80, 60).into_iter().partition(|conn| conn.backend == name);
    let (theirs, mut others): (Vec<_>, Vec<_>) = split("b2:8080");
    status[2].store(503, Ordering::SeqCst);
    are_cut(theirs);
    await_healthy(&agent, "ingress", &[&first, &second]);
    assert_eq!(on(&open(&net, 80, 60), "b2:8080"), 0);
    go_on(&mut others);
    status[2].store(204, Ordering::SeqCst);
    await_healthy(&agent, "ingress", &[&first, &second, &third]);

    // One that is deregistered keeps what it has for a while.
    let (mut theirs, mut others): (Vec<_>, Vec<_>) = split("b1:8080");
    let without = all.replace(&format!("[[service.backend]]\naddress = \"{second}\"\n"), "");
    assert_ne!(without, all);
    agent.write_config(&(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &without));
    agent.signal(Signal::SIGHUP);
    await_removal(&agent, &second);
    go_on(&mut theirs);
    assert_eq!(on(&open(&net, 80, 60), "b1:8080"), 0);
    are_cut(theirs);
    go_on(&mut others);

    // Where none is ready, all are used.
    status.iter().for_each(|status| status.store(503, Ordering::SeqCst));
    await_healthy(&agent, "ingress", &[]);
    let conns = open(&net, 443, 60);
    assert!(["b0:8443", "b2:8443"].iter().all(|name| on(&conns, name) > 0), "they are tried");
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
