//! What is simulated: the rows of the table.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    cluster::{Incident, Outcome, Scenario, run},
    node::Mode,
};

/// Owners have settled by then, and each node has had a connection.
const START: Duration = Duration::from_secs(2);

/// A row: a scenario by lot.
#[derive(Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub runs: u64,
    pub scenario: fn(&mut StdRng) -> Scenario,
}

/// Figures of a row: mean, median and 95th percentile of the runs' ratios, which are means over all times that were
/// looked at. With ten connections a backend ratios are a tenth apart, and so are medians: tests look at the mean.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub mean: f64,
    pub median: f64,
    pub p95: f64,
    /// How many runs in a hundred end with no two backends further apart than one connection.
    pub even: f64,
    /// Frames and bytes that a node has received.
    pub frames: f64,
    pub bytes: f64,
}

impl Row {
    /// Runs it. The same seeds lead to the same connections in all modes.
    pub fn figures(&self, mode: Mode) -> Figures {
        let mut nodes = 1.0;
        let outcomes: Vec<Outcome> = (0..self.runs)
            .map(|seed| {
                let scenario = (self.scenario)(&mut StdRng::seed_from_u64(seed));
                nodes = scenario.nodes as f64;
                run(scenario, mode, seed + 1_000_000)
            })
            .collect();
        let mut ratios: Vec<f64> =
            outcomes.iter().map(|it| it.ratios.iter().sum::<f64>() / it.ratios.len() as f64).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part).round() as usize];
        let even = |it: &&Outcome| it.counts.iter().max() <= it.counts.iter().min().map(|it| it + 1).as_ref();
        let runs = outcomes.len() as f64;
        Figures {
            mean: ratios.iter().sum::<f64>() / runs,
            median: at(0.5),
            p95: at(0.95),
            even: 100.0 * outcomes.iter().filter(even).count() as f64 / runs,
            frames: outcomes.iter().map(|it| it.frames as f64).sum::<f64>() / runs / nodes,
            bytes: outcomes.iter().map(|it| it.bytes as f64).sum::<f64>() / runs / nodes,
        }
    }
}

fn uniform(rng: &mut StdRng, within: Duration) -> Duration {
    within.mul_f64(rng.random_range(0.0..1.0))
}

/// Nodes that have used the service before.
fn cluster(nodes: usize, weights: Vec<u32>) -> Scenario {
    let (before, short) = (Duration::from_secs(1), Duration::from_millis(100));
    let incidents = (0..nodes).map(|node| (before, Incident::Open(node, Some(short)))).collect();
    Scenario { nodes, weights, one_way: Duration::from_micros(500), budget: 1e6, incidents }
}

/// Connections that stay, at any node, within a time.
fn herd(rng: &mut StdRng, scenario: &mut Scenario, from: Duration, connections: usize, within: Duration) {
    for _ in 0..connections {
        let at = from + uniform(rng, within);
        let node = rng.random_range(0..scenario.nodes);
        scenario.incidents.push((at, Incident::Open(node, None)));
    }
}

fn herd_of(rng: &mut StdRng, nodes: usize, backends: usize, connections: usize, seconds: u64) -> Scenario {
    let mut scenario = cluster(nodes, vec![1; backends]);
    herd(rng, &mut scenario, START, connections, Duration::from_secs(seconds));
    scenario
}

/// `round_trip`: in milliseconds.
fn delayed(rng: &mut StdRng, round_trip: u64) -> Scenario {
    Scenario { one_way: Duration::from_millis(round_trip) / 2, ..herd_of(rng, 100, 50, 500, 1) }
}

fn half_on_one(rng: &mut StdRng) -> Scenario {
    let mut scenario = herd_of(rng, 100, 50, 500, 1);
    for (_, incident) in scenario.incidents.iter_mut().skip(100).step_by(2) {
        *incident = Incident::Open(0, None);
    }
    scenario
}

/// The first connections that the nodes have ever had of the service: each picks once before it has heard of others.
fn first_ever(rng: &mut StdRng) -> Scenario {
    let mut scenario = herd_of(rng, 100, 50, 500, 1);
    scenario.incidents.drain(..100);
    scenario
}

fn weights(rng: &mut StdRng) -> Scenario {
    let mut scenario = cluster(100, (0..50).map(|slot| [1, 2, 4][slot % 3]).collect());
    herd(rng, &mut scenario, START, 1_150, Duration::from_secs(1));
    scenario
}

/// Connections with exponential lifetimes, looked at from one mean lifetime on.
fn steady(rng: &mut StdRng, lifetime: Duration) -> Scenario {
    let mut scenario = cluster(100, vec![1; 50]);
    let lived = |rng: &mut StdRng| lifetime.mul_f64(-(1.0 - rng.random_range(0.0f64..1.0)).ln());
    let end = START + lifetime * 3;
    let mut at = START;
    // Those that are there already, in the first seconds; then one after another.
    for i in 0u32.. {
        let waited = if i < 500 { Duration::from_millis(10) } else { lived(rng) / 500 };
        at += waited;
        if at >= end {
            break;
        }
        let (node, lives) = (rng.random_range(0..100), lived(rng));
        scenario.incidents.push((at, Incident::Open(node, Some(lives))));
    }
    scenario.incidents.extend((50..150).map(|i| (START + lifetime * i / 50, Incident::Measure)));
    scenario
}

fn rolling_restart(rng: &mut StdRng) -> Scenario {
    let mut scenario = cluster(100, vec![1; 10]);
    herd(rng, &mut scenario, START, 1_000, Duration::from_secs(20));
    let restart = |slot: usize| (Duration::from_secs(25 + 3 * slot as u64), Incident::Restart(slot));
    scenario.incidents.extend((0..10).map(restart));
    scenario.incidents.push((Duration::from_secs(56), Incident::Measure));
    scenario
}

/// All nodes are cut off for 30 s; a backend is added just then.
fn partition(rng: &mut StdRng) -> Scenario {
    let mut scenario = herd_of(rng, 100, 50, 500, 20);
    let cut = Duration::from_secs(25);
    scenario.incidents.push((cut, Incident::Cut));
    scenario.incidents.push((cut + Duration::from_secs(2), Incident::Backend));
    herd(rng, &mut scenario, cut + Duration::from_secs(2), 100, Duration::from_secs(27));
    scenario
}

/// The owner dies a third of the way into a herd, and is back 3 s later.
fn crash(rng: &mut StdRng) -> Scenario {
    let mut scenario = herd_of(rng, 100, 50, 500, 1);
    scenario.incidents.push((START + Duration::from_millis(300), Incident::OwnerDies));
    scenario.incidents.push((START + Duration::from_millis(3_300), Incident::OwnerStarts));
    scenario
}

const HERD: Row = Row { name: "500 in 1 s", runs: 60, scenario: |rng| herd_of(rng, 100, 50, 500, 1) };

/// Rows that take seconds.
pub const SMALL: [Row; 16] = [
    HERD,
    Row { name: "500 in 1 s, the first ever", scenario: first_ever, ..HERD },
    Row { name: "500 in 60 s", scenario: |rng| herd_of(rng, 100, 50, 500, 60), ..HERD },
    Row { name: "1,000 in 1 s", scenario: |rng| herd_of(rng, 100, 50, 1_000, 1), ..HERD },
    Row { name: "half on one node", scenario: half_on_one, ..HERD },
    Row {
        name: "steady, lifetimes of a minute",
        runs: 8,
        scenario: |rng| steady(rng, Duration::from_secs(60)),
    },
    Row {
        name: "a stream, lifetimes of five seconds",
        runs: 16,
        scenario: |rng| steady(rng, Duration::from_secs(5)),
    },
    Row { name: "rolling restart, 10 backends x 100", runs: 16, scenario: rolling_restart },
    Row { name: "weights 1/2/4, 1,150 in 1 s", scenario: weights, ..HERD },
    Row { name: "8 nodes, 4 backends, 40 in 1 s", runs: 100, scenario: |rng| herd_of(rng, 8, 4, 40, 1) },
    Row { name: "500 in 1 s, 5 ms there and back", scenario: |rng| delayed(rng, 5), ..HERD },
    Row { name: "500 in 1 s, 25 ms there and back", scenario: |rng| delayed(rng, 25), ..HERD },
    Row { name: "500 in 1 s, 50 ms there and back", scenario: |rng| delayed(rng, 50), ..HERD },
    Row { name: "500 in 1 s, 100 ms there and back", scenario: |rng| delayed(rng, 100), ..HERD },
    Row { name: "cut off for 30 s, a backend added", scenario: partition, ..HERD },
    Row { name: "owner gone for 3 s in a herd", scenario: crash, ..HERD },
];

/// Rows that take minutes.
pub const LARGE: [Row; 4] = [
    Row { name: "5,000 in 1 s", runs: 20, scenario: |rng| herd_of(rng, 100, 50, 5_000, 1) },
    Row {
        name: "steady, lifetimes of an hour",
        runs: 4,
        scenario: |rng| steady(rng, Duration::from_secs(3_600)),
    },
    Row {
        name: "1,000 nodes, 100 backends, 5,000 in 1 s",
        runs: 5,
        scenario: |rng| herd_of(rng, 1_000, 100, 5_000, 1),
    },
    Row {
        name: "5,000 nodes, 500 backends, 25,000 in 1 s",
        runs: 3,
        scenario: |rng| herd_of(rng, 5_000, 500, 25_000, 1),
    },
];
