//! Measures Flowpin beside its peers and writes down what came out. `cargo xtask bench` builds and calls it.

mod agent;
mod beside;
mod cluster;
mod measure;
mod micro;
mod net;
mod report;
mod simulation;
mod verifier;

use std::path::Path;

use anyhow::ensure;
use clap::{Parser, ValueEnum};

/// What is measured.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Cost per packet, without a network.
    Packets,
    /// Real connections, beside peers.
    Network,
    /// What the agent takes beside 10,000 services; only if it is asked for. FLOWPIN_BIN: of another build
    Agent,
    /// Eight agents that share counts: how soon others know of a connection, and what it takes; only if it is asked for
    Cluster,
    /// New connections with and without a line in a log for each, beside HAProxy; only if it is asked for
    Log,
    /// Simulated clusters of up to 5,000 nodes; only if it is asked for
    Simulation,
}

/// What is measured, and how thoroughly.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// Fewer rounds, sizes and contenders: under three minutes
    #[arg(long)]
    pub quick: bool,
    /// Only this
    #[arg(long)]
    pub only: Option<Part>,
    /// So many rounds; beside another build, so many turns of each
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Network: only contenders whose names have this in them, and whom they are compared with
    #[arg(long, value_name = "TEXT")]
    pub contender: Option<String>,
    /// Make the results the baseline that later ones are compared with
    #[arg(long)]
    pub keep: bool,
    /// Instead of all that: cost per packet beside that of another build, which takes turns with this one. A commit,
    /// which is built in a directory that is removed afterwards, or a directory where one is built
    #[arg(long, value_name = "COMMIT|DIRECTORY", conflicts_with_all = ["only", "quick", "contender", "keep"])]
    pub beside: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.only == Some(Part::Simulation) {
        println!("{}", simulation::run(&options)?);
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks load programs and make namespaces: sudo scripts/bench"
    );
    if let Some(other) = &options.beside {
        println!("{}", beside::run(other, &options)?);
        return Ok(());
    }
    if options.only == Some(Part::Agent) {
        println!("{}", agent::run()?);
        return Ok(());
    }
    if options.only == Some(Part::Cluster) {
        println!("{}", cluster::run(&options)?);
        return Ok(());
    }
    if options.only == Some(Part::Log) {
        println!("{}", net::log::run(&options)?);
        return Ok(());
    }
    let wanted = |part| options.only.is_none_or(|only| only == part);
    let mut results = report::Results {
        machine: machine(),
        quick: options.quick,
        programs: verifier::costs()?,
        series: Vec::new(),
    };
    if wanted(Part::Packets) {
        results.series.extend(micro::run(&options)?);
    }
    if wanted(Part::Network) {
        results.series.extend(net::run(&options)?);
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    report::write(&results, &directory)?;
    if options.keep {
        report::keep(&results, &directory)?;
    }
    println!("{}", std::fs::read_to_string(directory.join("results.md"))?);
    println!("# Beside the baseline\n\n{}", report::compare(&results)?);
    println!("\ntarget/bench: results.md, results.json and the plots");
    Ok(())
}

/// Kernel and CPUs, in a line.
fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // What follows the version is the builder's.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("Linux {kernel}, {cpus} CPUs, {}", model.trim_start_matches(['\t', ':', ' ']))
}
