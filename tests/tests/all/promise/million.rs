//! Promise: with a million flows in the table the operator gets the right answers, and the sweeper does its work. What it takes is
//! printed: figures are a benchmark's.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::Stdio,
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
    packet::{build::eth, crowd::crowd},
};
use nix::sys::signal::Signal;

const FLOWS: u32 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_million_flows_are_listed_swept_and_in_nobodys_way() {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let targets = [V4.backend(0), V4.backend(1)];
    let config = "[conntrack]\nmax_flows = 2097152\n".to_string()
        + &interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("many", &V4.vip(0), "\"53/udp\"", &targets, "timeouts = { udp = \"1h\" }")
        + &service("few", &V4.vip(1), "\"80/tcp\"", &targets, "");
    let agent = Agent::start(&net.node, &config);
    let mut conns: Vec<Conn> =
        net.client.run(|| (0..200).map(|_| Conn::open(at(&V4.vip(1), 80)).expect("answered")).collect());

    // Clients that send one datagram each.
    let vip: IpAddr = V4.vip(0).parse().expect("an address");
    crowd(FLOWS, |client, port| eth().ip(client, vip).udp(port, 53).fill(16).bytes());
    let status = eventually("the sweeper has seen them", LIMIT, || {
        let status = agent.json(&["status"]);
        if status["conntrack_entries"].as_u64() >= Some(u64::from(FLOWS) + 200) {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(status["accounting_drift"], 0);
    assert_eq!(agent.active("many").iter().sum::<u64>(), u64::from(FLOWS));

    let began = Instant::now();
    let list = agent.json(&["connection", "list", "--service", "many", "--limit", "100"]);
    println!("list --limit 100: {:?}", began.elapsed());
    assert_eq!(list.as_array().expect("a list").len(), 100);
    let began = Instant::now();
    let list = agent.json(&["connection", "list", "--service", "few", "--sort", "bytes", "--limit", "100"]);
    println!("list of another service, sorted: {:?}", began.elapsed());
    assert_eq!(list.as_array().expect("a list").len(), 100);

    // All of them, as they come.
    let began = Instant::now();
    let mut all = agent.spawn_cli(&["connection", "list", "-o", "json"], Stdio::piped());
    let lines = BufReader::new(all.stdout.take().expect("a pipe")).lines().count();
    assert!(all.wait().expect("it ends").success());
    println!("list of all: {lines} lines in {:?}", began.elapsed());
    assert_eq!(lines, FLOWS as usize + 200);

    let (before, began) = (agent.cpu(), Instant::now());
    agent.sweeps(4);
    let (used, passed) = (agent.cpu() - before, began.elapsed().as_secs_f64());
    println!("4 sweeps: {used:.2} s of CPU in {passed:.1} s");
    for conn in &mut conns {
        conn.exchange(1_000).expect("packets go on");
    }
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
    // The same connection, with a sweeper at work and without.
    for (what, signal) in [("beside the sweeper", Signal::SIGCONT), ("without it", Signal::SIGSTOP)] {
        agent.signal(signal);
        let mut took: Vec<Duration> = (0..20_000)
            .map(|_| {
                let began = Instant::now();
                conns[0].exchange(64).expect("packets go on");
                began.elapsed()
            })
            .collect();
        took.sort_unstable();
        println!(
            "there and back {what}: median {:?}, 99 % {:?}, 99.9 % {:?}",
            took[10_000], took[19_800], took[19_980]
        );
    }
    agent.signal(Signal::SIGCONT);
}
