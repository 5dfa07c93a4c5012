//! Eight agents that share counts, on this machine: how soon what one reports is part of what another adds up, and how
//! much CPU an agent takes for it, while a hundred connections a second open at all of them.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Result;
use flowpin_tests::{
    cluster::{Node, Setting, Via, World, wait_until},
    harness::Agent,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{Options, measure::median};

const NODES: usize = 8;
/// All nodes' together.
const OPENS_PER_SECOND: f64 = 100.0;
/// How long a connection stays.
const STAYS: Duration = Duration::from_millis(500);

/// Measures it; a table.
///
/// # Errors
/// Something of it can't be read.
pub fn run(options: &Options) -> Result<String> {
    let time = Duration::from_secs(if options.quick { 10 } else { 60 });
    let mut table = String::from(
        "| nodes share by | report to totals, p50, ms | p99, ms | CPU of an agent, % of a core | least – greatest |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for (name, via) in [("nothing", Via::Nothing), ("TCP", Via::Tcp), ("NATS", Via::Nats)] {
        let world = World::of(&Setting { via, ..Setting::new(NODES, &[1; 4]) });
        if !matches!(via, Via::Nothing) {
            world.meet(NODES);
        }
        // In the first seconds nodes connect and report, and the load is a herd for what the owner knows.
        load(&world, Duration::from_secs(10));
        let agents = || world.nodes.iter().map(|node| &node.agent);
        let of_all = |all: Buckets, node| all.and(&Buckets::of(node), 1.0);
        let reports = || world.nodes.iter().fold(Buckets::default(), of_all);
        let (cpu, before): (Vec<f64>, _) = (agents().map(Agent::cpu).collect(), reports());
        load(&world, time);
        let cpu: Vec<f64> = agents().map(Agent::cpu).zip(cpu).map(|(now, then)| now - then).collect();
        let reports = reports().and(&before, -1.0);
        let share = |cpu: f64| 100.0 * cpu / time.as_secs_f64();
        let (least, greatest) = crate::measure::range(&cpu);
        let at = |part| reports.quantile(part).map_or("–".into(), |at| format!("{:.2}", at * 1_000.0));
        writeln!(
            table,
            "| {name} | {} | {} | {:.2} | {:.2} – {:.2} |",
            at(0.5),
            at(0.99),
            share(median(&cpu)),
            share(least),
            share(greatest)
        )?;
    }
    Ok(table)
}

/// Connections open at nodes and moments that chance names, as clients come, and close.
fn load(world: &World, time: Duration) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut now = Instant::now();
    let end = now + time;
    let mut open = VecDeque::new();
    while now < end {
        wait_until(now);
        while open.front().is_some_and(|(until, _)| *until <= now) {
            open.pop_front();
        }
        open.push_back((now + STAYS, world.open(rng.random_range(0..NODES))));
        let wait = -(1.0 - rng.random_range(0.0f64..1.0)).ln() / OPENS_PER_SECOND;
        now += Duration::from_secs_f64(wait);
    }
}

/// Buckets of `flowpin_cluster_report_seconds`: how many took at most so long.
#[derive(Clone, Debug, Default)]
struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn of(node: &Node) -> Self {
        let page = node.ns.must("curl -sf http://127.0.0.1:9479/metrics");
        let bucket = |line: &str| {
            let rest = line.strip_prefix("flowpin_cluster_report_seconds_bucket{le=\"")?;
            let (most, count) = rest.split_once("\"} ")?;
            Some((most.replace("+Inf", "inf").parse().ok()?, count.parse().ok()?))
        };
        Self(page.lines().filter_map(bucket).collect())
    }

    fn and(self, other: &Self, sign: f64) -> Self {
        if self.0.is_empty() {
            return Self(other.0.iter().map(|(most, count)| (*most, count * sign)).collect());
        }
        Self(self.0.iter().zip(&other.0).map(|(own, other)| (own.0, sign.mul_add(other.1, own.1))).collect())
    }

    /// As Prometheus interpolates (`histogram_quantile`).
    fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = self.0.last()?.1 * part;
        let mut below = (0.0, 0.0);
        for &(most, count) in &self.0 {
            if count >= wanted && count > below.1 {
                return Some(if most.is_finite() {
                    below.0 + (most - below.0) * (wanted - below.1) / (count - below.1)
                } else {
                    below.0
                });
            }
            below = (most, count);
        }
        None
    }
}
