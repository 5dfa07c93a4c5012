//! Real connections through real stacks: every contender in namespaces of its own, all there at once, taking turns.

mod contender;
mod load;
pub mod log;
mod rules;
mod server;
mod stage;

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use lb_common::abi::maps;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{
    contender::{Contender, Running, Way, feed},
    stage::Stage,
};
use crate::{
    Options,
    measure::{Series, Table},
};

/// Services that everything is measured at.
const SERVICES: [u32; 3] = [1, 1_000, 10_000];
/// Long-lived connections whose spread over the backends is looked at.
const CONNECTIONS: [usize; 3] = [100, 900, 5_000];
/// Times they are opened.
const SPREADS: usize = 3;
/// Changes of a service timed for each figure.
const CHANGES: usize = 9;
/// Descriptors: both ends of every connection are in this process. The proxies need as many.
const DESCRIPTORS: u64 = 16_384;

/// Sets the stages, in the order of tables.
fn stages(options: &Options) -> Result<Vec<Stage>> {
    let sizes: &[u32] = if options.quick { &SERVICES[..2] } else { &SERVICES };
    let mut all = Vec::new();
    for (count, contender) in [
        (1, Contender::Plain),
        (1, Contender::Idle),
        (1, Contender::Conntrack),
        (sizes.len(), Contender::Iptables),
        (sizes.len(), Contender::Nftables),
        (1, Contender::Haproxy),
        (1, Contender::Nginx),
        (1, Contender::Direct),
        (1, Contender::Socket),
        (1, Contender::SocketInTurn),
        (sizes.len(), Contender::Flowpin { way: Way::Tc, hashing: false }),
        (sizes.len(), Contender::Flowpin { way: Way::Xdp, hashing: false }),
        (1, Contender::Flowpin { way: Way::Fast, hashing: false }),
        (if options.quick { 1 } else { sizes.len() }, Contender::Flowpin { way: Way::Tc, hashing: true }),
        (if options.quick { 1 } else { sizes.len() }, Contender::Flowpin { way: Way::Xdp, hashing: true }),
    ] {
        let yardstick = [Contender::Plain, Contender::Direct].contains(&contender);
        if !yardstick && options.contender.as_ref().is_some_and(|part| !contender.name().contains(part)) {
            continue;
        }
        for services in &sizes[..count] {
            let started = Instant::now();
            all.push(Stage::set(contender, *services)?);
            println!(
                "  {} with {services} services: there after {:.1?}",
                contender.name(),
                started.elapsed()
            );
        }
    }
    Ok(all)
}

/// All of it.
///
/// # Errors
/// A contender isn't installed, or a connection failed.
pub fn run(options: &Options) -> Result<Vec<Series>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most >= DESCRIPTORS, "the limit of open files is {most}: raise it to {DESCRIPTORS} (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    println!("contenders");
    let stages = stages(options)?;
    let mut table = Table::default();
    let (rounds, lasts, trips) = if options.quick {
        (3, Duration::from_millis(250), 3_000)
    } else {
        (5, Duration::from_secs(1), 20_000)
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let of = |contender| stages.iter().find(|s| s.contender == contender).context("no yardstick");
    let (plain, direct) = (of(Contender::Plain)?, of(Contender::Direct)?);
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        for stage in stages.iter().filter(|s| ![Contender::Plain, Contender::Direct].contains(&s.contender)) {
            // Machines have good minutes and bad ones: the yardstick is measured beside each.
            let yardstick = if stage.contender.on_node() { direct } else { plain };
            let beside = measure(yardstick, lasts, trips).with_context(|| yardstick.describe())?;
            let figures = measure(stage, lasts, trips).with_context(|| stage.describe())?;
            let at = |stage: &Stage| Some(("services".to_string(), f64::from(stage.services)));
            for (name, unit, value) in &beside {
                table.note(name, yardstick.name, at(yardstick), unit, *value);
            }
            for (name, unit, value) in figures {
                if let Some((_, _, other)) = beside.iter().find(|(other, ..)| *other == name) {
                    table.note_beside(name, stage.name, at(stage), unit, (value, *other));
                }
            }
        }
    }
    for stage in &stages {
        if stage.services == 1 && stage.contender.balances() {
            for connections in CONNECTIONS {
                let at = Some(("connections".into(), connections as f64));
                for _ in 0..SPREADS {
                    let spread = load::balance(stage, connections)?;
                    table.note("balance", stage.name, at.clone(), "max/mean", spread);
                }
            }
        }
        changes(stage, &mut table)?;
        memory(stage, &mut table)?;
    }
    Ok(table.0)
}

/// What was measured, its unit, the figure.
type Figure = (&'static str, &'static str, f64);

/// One turn of one contender.
fn measure(stage: &Stage, lasts: Duration, trips: usize) -> Result<Vec<Figure>> {
    let fresh = load::connections(stage, lasts)?;
    let asked = load::requests(stage, lasts)?;
    let open = load::latency(stage, trips)?;
    let bulk = load::bulk(stage, lasts)?;
    let mut figures = vec![
        ("new connections", "1/s", fresh.per_second),
        ("CPU per new connection", "µs", fresh.cpu * 1e6),
        ("requests", "1/s", asked.per_second),
        ("CPU per request", "µs", asked.cpu * 1e6),
        ("latency p50", "µs", open.p50 * 1e6),
        ("latency p99", "µs", open.p99 * 1e6),
        ("latency p99.9", "µs", open.p999 * 1e6),
        ("bulk", "GB/s", bulk.per_second / 1e9),
        ("CPU per GB", "ms", bulk.cpu * 1e9 * 1e3),
    ];
    if stage.contender.datagrams() {
        let small = load::datagrams(stage, lasts)?;
        figures.push(("small packets", "1/s", small.per_second));
        figures.push(("CPU per small packet", "µs", small.cpu * 1e6));
    }
    Ok(figures)
}

/// How long one change of one service's backends takes: a backend goes and comes back, by the means that operators have.
fn changes(stage: &Stage, table: &mut Table) -> Result<()> {
    let at = || Some(("services".to_string(), f64::from(stage.services)));
    let node = &stage.net.node;
    for change in 0..CHANGES {
        let started = Instant::now();
        match (&stage.running, stage.contender) {
            (Running::Rules, Contender::Iptables) => {
                feed(node, "iptables-restore --noflush", &rules::iptables_change())?;
            }
            (Running::Rules, Contender::Nftables) => feed(node, "nft -f -", &rules::nftables_change())?,
            (Running::Agent(agent), _) => {
                let verb = if change % 2 == 0 { "drain" } else { "undrain" };
                agent.done(&["backend", verb, "measured", "10.2.3.2"]);
            }
            _ => return Ok(()),
        }
        let took = started.elapsed().as_secs_f64();
        table.note("a change, command to return", stage.name, at(), "ms", took * 1e3);
    }
    if let Running::Agent(agent) = &stage.running {
        // What the agent itself needs, read off its histogram; the changes above are the only ones since it started.
        for change in 0..CHANGES {
            let before = reconciled(stage)?;
            let verb = if change % 2 == 0 { "undrain" } else { "drain" };
            agent.done(&["backend", verb, "measured", "10.2.3.2"]);
            let took = reconciled(stage)? - before;
            table.note("a change, in the agent", stage.name, at(), "ms", took * 1e3);
        }
    }
    Ok(())
}

/// Seconds that the agent has spent on changes.
fn reconciled(stage: &Stage) -> Result<f64> {
    let text = stage.net.node.must("curl -sf http://127.0.0.1:9479/metrics");
    let line = text.lines().find(|line| line.starts_with("flowpin_reconcile_duration_seconds_sum"));
    let value = line.and_then(|line| line.split_whitespace().last());
    Ok(value.context("no flowpin_reconcile_duration_seconds_sum")?.parse()?)
}

/// Memory of Flowpin's maps: all, and those that hold flows for each flow that there is room for.
fn memory(stage: &Stage, table: &mut Table) -> Result<()> {
    let Running::Agent(agent) = &stage.running else { return Ok(()) };
    let at = || Some(("services".to_string(), f64::from(stage.services)));
    let bytes = |name: &str| -> Result<f64> {
        let map = MapData::from_pin(agent.pins().join("maps").join(name))?;
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(info)?;
        let locked = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("memlock")?;
        Ok(locked.trim().parse()?)
    };
    let all = maps::ALL.iter().map(|name| bytes(name)).sum::<Result<f64>>()?;
    table.note("memory of maps", stage.name, at(), "MiB", all / f64::from(1 << 20));
    for (name, flows, heads) in
        [("IPv4", maps::FLOWS4, maps::FLOW_HEADS4), ("IPv6", maps::FLOWS6, maps::FLOW_HEADS6)]
    {
        let each = (bytes(flows)? + bytes(heads)?) / f64::from(contender::FLOWS);
        table.note(&format!("memory of a flow, {name}, tables full"), stage.name, at(), "bytes", each);
        table.note(
            &format!("memory of a flow, {name}, tables half full"),
            stage.name,
            at(),
            "bytes",
            2.0 * each,
        );
    }
    Ok(())
}
