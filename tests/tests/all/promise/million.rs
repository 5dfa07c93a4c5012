//! Promise: with a million flows in the table the operator gets the right answers, and the sweeper does its work. What it takes is
//! printed: figures are a benchmark's.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    os::fd::AsFd as _,
    process::Stdio,
    time::{Duration, Instant},
};

use flowpin_tests::{
    harness::{
        Agent, Net,
        agent::{interfaces, service, tc_program},
        client::{Conn, at},
        eventually,
        server::Server,
        topology::Family::V4,
    },
    packet::{
        build::eth,
        run::{program_named, test_run},
    },
};
use nix::sys::signal::Signal;

const FLOWS: u32 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

/// CPU time of the agent in seconds (proc(5): utime and stime, in ticks of 10 ms).
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    [11, 12].iter().map(|i| fields[*i].parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

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

    // Clients that send one datagram each, by the program that is attached.
    let program = program_named(tc_program()).expect("the agent's program");
    let vip: IpAddr = V4.vip(0).parse().expect("an address");
    let mut out = Vec::new();
    for i in 0..FLOWS {
        let client = IpAddr::from([172, 16 + (i >> 20) as u8, (i >> 12) as u8, (i >> 4) as u8]);
        let frame = eth().ip(client, vip).udp(1024 + (i & 15) as u16, 53).fill(16).bytes();
        test_run(program.as_fd(), &frame, &mut out, 0).expect("the kernel runs it");
    }
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

    let (before, began) = (cpu(agent.pid()), Instant::now());
    agent.sweeps(4);
    let (used, passed) = (cpu(agent.pid()) - before, began.elapsed().as_secs_f64());
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
