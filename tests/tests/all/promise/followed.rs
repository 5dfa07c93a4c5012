//! Promise: whoever follows events and doesn't read them costs neither memory nor time, is told how many were lost, and holds nobody
//! up, whatever happens meanwhile.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    eventually,
    topology::Family::V4,
    udp,
};
use lb_common::abi::{event::listen, maps};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// Flows in all: each client's socket opens one to every port.
const SOCKETS: usize = 40;
const PORTS: std::ops::Range<u16> = 10_000..12_500;

/// Memory that the agent has, in bytes (proc(5): VmRSS, without what is mapped of files).
fn memory(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn one_who_does_not_read_is_told_what_was_lost() {
    let net = Net::new(1);
    let ports = format!("\"{}-{}/udp\"", PORTS.start, PORTS.end - 1);
    let config = "[conntrack]\nmax_flows = 262144\n".to_string()
        + &interfaces(&[("c0", "tc"), ("b0", "tc")])
        + &service("app", &V4.vip(0), &ports, &[V4.backend(0)], "");
    let agent = Agent::start(&net.node, &config);
    let follow = || {
        let mut stream = UnixStream::connect(agent.config().with_file_name("api.sock")).expect("it listens");
        stream.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").expect("asked");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
        stream
    };
    let (still, listening) = (follow(), agent.pins().join("maps").join(maps::LISTEN));
    let listening: Array<_, u32> =
        Map::Array(MapData::from_pin(listening).expect("the pin")).try_into().expect("an array");
    eventually("somebody follows", LIMIT, || match listening.get(&listen::WANTED, 0) {
        Ok(wanted) if wanted & listen::OPENED != 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (before, cpu) = (memory(&agent), agent.cpu());
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for _ in 0..SOCKETS {
        udp::to_each_port(&net.client, &V4.vip(0), PORTS);
        let asked = Instant::now();
        agent.json(&["status"]);
        slowest = slowest.max(asked.elapsed());
    }
    let flood = began.elapsed();
    let opened = eventually("all are open", LIMIT, || {
        match agent.json(&["service", "show", "app"])["backends"][0]["total_connections"].as_u64() {
            Some(n) if n >= (SOCKETS * PORTS.len()) as u64 * 9 / 10 => Ok(n),
            n => Err(format!("{n:?}")),
        }
    });
    let (grown, used) = (memory(&agent).saturating_sub(before) >> 20, agent.cpu() - cpu);
    println!("{opened} flows in {flood:?}: {grown} MiB more, {used:.2} s of CPU, slowest answer {slowest:?}");
    assert!(grown < 48, "{grown} MiB");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // Nothing goes on for the sake of somebody who doesn't read.
    agent.sweeps(2);
    let (cpu, began) = (agent.cpu(), Instant::now());
    agent.sweeps(3);
    let share = (agent.cpu() - cpu) / began.elapsed().as_secs_f64();
    println!("{:.1} % of a CPU afterwards", share * 100.0);
    assert!(share < 0.5, "{share}");
    // Who reads after all gets what had been on its way, then how many are lost, then the latest.
    let (mut told, mut lost) = (0, 0);
    for line in BufReader::new(still).lines().map_while(Result::ok).filter(|line| line.starts_with('{')) {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        match event["kind"].as_str() {
            Some("open") => told += 1,
            Some("gap") => {
                let detail = event["detail"].as_str().expect("a sentence");
                lost += detail.split(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
            }
            other => panic!("{other:?}: {line}"),
        }
    }
    println!("{told} told, {lost} lost of {opened}");
    assert!(lost > 0 && told > 0);
    assert!(told + lost <= opened, "{told} and {lost} of {opened}");
}
