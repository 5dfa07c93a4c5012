//! What the agent itself takes beside 10,000 services: at start, when nothing changes, for a scrape, to end.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
};
use nix::sys::signal::Signal;

/// Services.
const SERVICES: usize = 10_000;
/// Backends of each.
const BACKENDS: [usize; 2] = [1, 10];
/// How long it is left alone, after it has come to rest.
const IDLE: Duration = Duration::from_secs(30);
/// Rest before that: the first walks over the tables, and memory that is given back.
const REST: Duration = Duration::from_secs(10);
/// Scrapes, each later than what they share is kept.
const SCRAPES: u32 = 5;
const APART: Duration = Duration::from_millis(1_500);

/// Measures an agent, another build's if `FLOWPIN_BIN` says so; a table.
///
/// # Errors
/// Something of it can't be read.
pub fn run() -> Result<String> {
    let mut table = String::from(
        "| backends a service | start, s | start, CPU s | idle, % of a core | anonymous, MiB | scrape, CPU ms | end, s |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for backends in BACKENDS {
        let net = Net::new(1);
        let mut agent = Agent::prepare(&net.node, &config(backends));
        let begun = Instant::now();
        agent.up();
        let (start, loading) = (begun.elapsed(), agent.cpu());
        std::thread::sleep(REST);
        let (idle, passed) = spent(&agent, || std::thread::sleep(IDLE));
        let idle = idle / passed;
        let memory = anonymous(agent.pid())?;
        let (scraping, passed) = spent(&agent, || {
            for _ in 0..SCRAPES {
                net.node.must("curl -sf -o /dev/null http://127.0.0.1:9479/metrics");
                std::thread::sleep(APART);
            }
        });
        let scraping = (scraping - idle * passed) / f64::from(SCRAPES);
        let ending = Instant::now();
        agent.end(Signal::SIGTERM);
        writeln!(
            table,
            "| {backends} | {:.1} | {loading:.1} | {:.2} | {memory} | {:.0} | {:.2} |",
            start.as_secs_f64(),
            idle * 100.0,
            scraping * 1_000.0,
            ending.elapsed().as_secs_f64()
        )?;
    }
    Ok(table)
}

fn config(backends: usize) -> String {
    let one = |i: usize| {
        let vip = format!("10.{}.{}.{}", 100 + i / 65_536, i / 256 % 256, i % 256);
        let target = |at: usize| format!("10.{}.{}.{}", 20 + at / 62_500, at / 250 % 250, at % 250 + 1);
        let targets: Vec<String> = (i * backends..(i + 1) * backends).map(target).collect();
        service(&format!("s{i}"), &vip, "\"80/tcp\"", &targets, "")
    };
    (0..SERVICES).fold(interfaces(&[("c0", "tc")]), |all, i| all + &one(i))
}

/// Seconds of CPU that an agent has while something goes on, and how long that takes.
fn spent(agent: &Agent, meanwhile: impl FnOnce()) -> (f64, f64) {
    let (before, begun) = (agent.cpu(), Instant::now());
    meanwhile();
    (agent.cpu() - before, begun.elapsed().as_secs_f64())
}

/// MiB of a process that are its own, without mapped maps and files.
fn anonymous(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib / 1024)
}
