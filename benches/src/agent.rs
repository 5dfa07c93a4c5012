//! What the agent itself takes beside 10,000 services: at start, when nothing changes, for a scrape, to end.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use flowpin_tests::harness::{Agent, Net, agent::interfaces};
use nix::{
    sys::signal::Signal,
    unistd::{SysconfVar, sysconf},
};

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
        let pid = agent.pid();
        let (start, loading) = (begun.elapsed(), cpu(pid)?);
        std::thread::sleep(REST);
        let idle = rate(pid, || std::thread::sleep(IDLE))?;
        let memory = anonymous(pid)?;
        let scrape = || {
            for _ in 0..SCRAPES {
                net.node.must("curl -sf -o /dev/null http://127.0.0.1:9479/metrics");
                std::thread::sleep(APART);
            }
        };
        let (before, took) = (cpu(pid)?, Instant::now());
        scrape();
        let scraping = (cpu(pid)? - before - idle * took.elapsed().as_secs_f64()) / f64::from(SCRAPES);
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
    let mut config = interfaces(&[("c0", "tc")]);
    for service in 0..SERVICES {
        let vip = format!("10.{}.{}.{}", 100 + service / 65_536, service / 256 % 256, service % 256);
        let _ = write!(config, "[[service]]\nname = \"s{service}\"\nvip = \"{vip}\"\nports = [\"80/tcp\"]\n");
        for backend in 0..backends {
            let at = service * backends + backend;
            let _ = write!(
                config,
                "[[service.backend]]\naddress = \"10.{}.{}.{}\"\n",
                20 + at / 62_500,
                at / 250 % 250,
                at % 250 + 1
            );
        }
    }
    config
}

/// Seconds of CPU that a process has had.
fn cpu(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| -> Result<f64> { Ok(fields.get(i).context("a short /proc/PID/stat")?.parse()?) };
    let second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")? as f64;
    Ok((ticks(11)? + ticks(12)?) / second)
}

/// CPU per second while something goes on.
fn rate(pid: u32, meanwhile: impl FnOnce()) -> Result<f64> {
    let (before, begun) = (cpu(pid)?, Instant::now());
    meanwhile();
    Ok((cpu(pid)? - before) / begun.elapsed().as_secs_f64())
}

/// MiB of a process that are its own, without mapped maps and files.
fn anonymous(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib / 1024)
}
