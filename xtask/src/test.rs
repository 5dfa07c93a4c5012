//! Everything that must hold; stops at the first thing that doesn't. What costs nothing comes first, then the
//! build, which the agent's lints and tests need, and what takes minutes last. All of it is built with one profile, so that
//! dependencies are compiled once.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{build, cargo, kernels, tidy};

/// How much is tested.
#[derive(Args)]
pub struct Options {
    /// Only what needs no root: format, house rules, lints, unit and property tests
    #[arg(long)]
    no_root: bool,
}

/// What was done, and how long it took.
#[derive(Default)]
struct Stages(Vec<(String, Duration)>);

impl Stages {
    fn run(&mut self, name: &str, stage: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        println!("\n== {name}");
        let began = Instant::now();
        stage()?;
        self.0.push((name.to_string(), began.elapsed()));
        Ok(())
    }

    fn cargo(&mut self, name: &str, args: &[&str]) -> anyhow::Result<()> {
        self.run(name, || crate::run(cargo().args(args)))
    }

    fn report(&self) {
        println!();
        for (name, took) in &self.0 {
            println!("{:>5} s  {name}", took.as_secs());
        }
        println!("{:>5} s  in all", self.0.iter().map(|(_, took)| took).sum::<Duration>().as_secs());
    }
}

/// See the module.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.no_root && !nix::unistd::geteuid().is_root() {
        bail!(
            "the packet and traffic tests need root: sudo scripts/test, or cargo xtask test --no-root for the others"
        );
    }
    let mut stages = Stages::default();
    stages.cargo("format", &["fmt", "--all", "--check"])?;
    stages.run("house rules", tidy::run)?;
    if !options.no_root {
        stages.run("build", || build::all(true))?;
    }
    let clippy = ["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    stages.cargo("lints", &clippy)?;
    if Command::new("cargo-deny").arg("--version").output().is_ok_and(|o| o.status.success()) {
        stages.run("licences and sources", || {
            crate::run(Command::new("cargo-deny").args(["check", "licenses", "bans", "sources"]))
        })?;
    } else {
        println!(
            "\n== licences and sources: not checked, cargo-deny is not installed (cargo install cargo-deny)"
        );
    }
    let host = ["lb-common", "lb-ebpf", "flowpin", "flowpin-guest", "xtask"];
    let host: Vec<&str> = host.iter().flat_map(|package| ["--package", package]).collect();
    stages.cargo("unit and property tests", &[&["test", "--release"], host.as_slice()].concat())?;
    if !options.no_root {
        stages.run("programs on the oldest and the newest kernel", kernels::oldest_and_newest)?;
        traffic(&mut stages, "packets and traffic", &[], &[])?;
        traffic(&mut stages, "traffic past the IP stack", &FORWARDING, &[("FLOWPIN_TEST_FAST", "1")])?;
    }
    stages.report();
    Ok(())
}

/// Runs the tests whose names contain one of `names`, or all: most of them side by side, then those of [`LANES`], then those of [`ALONE`].
fn traffic(stages: &mut Stages, what: &str, names: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let tests = |threads: usize| {
        let mut command = cargo();
        command.args(["test", "--release", "--package", "flowpin-tests", "--"]);
        command.arg(format!("--test-threads={threads}")).envs(env.iter().copied());
        command
    };
    // Of a list, those that are wanted.
    let wanted = |list: &'static [&'static str]| {
        let all = list
            .iter()
            .filter(|name| names.is_empty() || names.iter().any(|wanted| name.starts_with(wanted)));
        all.copied().collect::<Vec<&str>>()
    };
    let apart = LANES.into_iter().flatten().chain(&ALONE).flat_map(|name| ["--skip", *name]);
    stages
        .run(&format!("{what}, side by side"), || crate::run(tests(SIDE_BY_SIDE).args(names).args(apart)))?;
    let lanes: Vec<Command> = LANES
        .into_iter()
        .map(wanted)
        .filter(|lane| !lane.is_empty())
        .map(|lane| {
            let mut command = tests(1);
            command.args(lane);
            command
        })
        .collect();
    stages.run(&format!("{what}, one after the other in each lane"), || at_once(lanes))?;
    stages.run(&format!("{what}, alone"), || crate::run(tests(1).args(wanted(&ALONE))))
}

/// Runs commands at the same time. What they say is shown by lines, as it comes.
fn at_once(commands: Vec<Command>) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let running: Vec<_> = commands.into_iter().map(|command| scope.spawn(|| by_lines(command))).collect();
        let ended =
            running.into_iter().map(|one| one.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

fn by_lines(mut command: Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let child = command.current_dir(crate::root()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| shown.clone())?;
    for line in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
        println!("{}", line?);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Tests at a time, each with namespaces, pins and an agent of its own. A world waits for the kernel's verifier
/// and for time-outs more than it computes.
const SIDE_BY_SIDE: usize = 2;

/// Tests that run one after the other, and beside those of the other lane. The first lane's move their whole process to another cgroup; the
/// second's mostly wait, and would wait too long beside more than one other.
const LANES: [&[&str]; 2] = [
    &["promise::host", "promise::matrix", "promise::sockets", "promise::stick"],
    &[
        "promise::close",
        "promise::health",
        "promise::persistent",
        "promise::programs",
        "promise::refusal",
        "promise::timeouts",
    ],
];

/// Tests that run alone: those that count rates, or fill the machine.
const ALONE: [&str; 4] = [
    "promise::accounting",
    "promise::lifecycle::ten_thousand_services",
    "promise::million",
    "promise::sight::durations",
];

/// Promises about what happens to packets, which have to hold as well when every interface has `fast = true`.
/// Left out are those that are about the agent alone, and those that go every way by themselves.
const FORWARDING: [&str; 9] = [
    "promise::accounting",
    "promise::affinity",
    "promise::balance",
    "promise::close",
    "promise::persistent",
    "promise::pinning",
    "promise::programs",
    "promise::sockets",
    "promise::timeouts",
];
