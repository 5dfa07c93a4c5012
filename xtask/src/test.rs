//! Everything that must hold; stops at the first thing that doesn't. What costs nothing comes first, then the
//! build, which the agent's lints and tests need, and what takes minutes last. All of it is built with one profile and in one go, so that
//! nothing is compiled twice; then the test programs are run.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::{build, cargo, deny, kernels, kubernetes, tidy};

/// How much is tested.
#[derive(Args)]
pub struct Options {
    /// Only what needs no root: format, house rules, lints, unit and property tests
    #[arg(long)]
    no_root: bool,
    /// All but the Kubernetes cluster, whose programs take a quarter of an hour to build for the first time
    #[arg(long)]
    no_cluster: bool,
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
        stages.run("build of a later version", build::next)?;
        stages.run("build", build::everything)?;
    }
    // Without the optimiser where nothing else needs what it makes.
    let profile: &[&str] = if options.no_root { &[] } else { &["--release"] };
    let clippy = ["--workspace", "--all-targets", "--", "--deny", "warnings"];
    stages.cargo("lints", &[&["clippy"], profile, &clippy].concat())?;
    let mut unchecked = None;
    stages.run("licences, sources and advisories of crates", || {
        if let deny::Advisories::Unchecked(why) = deny::run()? {
            unchecked = Some(why);
        }
        Ok(())
    })?;
    stages.0.extend(unchecked.map(|why| (format!("advisories were NOT checked: {why}"), Duration::ZERO)));
    if options.no_root {
        let host = [
            "cluster-simulation",
            "lb-cluster",
            "lb-common",
            "lb-ebpf",
            "lb-ipvsadm",
            "lb-mesh",
            "lb-probes",
            "lb-text",
            "flowpin",
            "flowpin-import",
            "xtask",
        ]
        .iter()
        .flat_map(|name| ["--package", *name]);
        let test: Vec<&str> = ["test"].into_iter().chain(host).collect();
        stages.cargo("unit and property tests", &test)?;
        stages.report();
        return Ok(());
    }
    let mut programs = Vec::new();
    stages.run("tests are built", || {
        programs = test_programs()?;
        Ok(())
    })?;
    let (packets, host): (Vec<Program>, Vec<Program>) = programs
        .into_iter()
        .partition(|program| program.directory.ends_with("tests") && program.name == "all");
    stages.run("unit and property tests", || {
        host.iter().try_for_each(|program| crate::run(&mut program.command()))
    })?;
    let packets = packets.first().context("flowpin-tests has no test program")?;
    stages.run("programs on the oldest and the newest kernel", kernels::oldest_and_newest)?;
    traffic(&mut stages, packets, "packets and traffic", &[], &[])?;
    let fast = [("FLOWPIN_TEST_FAST", "1")];
    traffic(&mut stages, packets, "traffic past the IP stack", &FORWARDING, &fast)?;
    if !options.no_cluster {
        stages.run("upstream's tests on a cluster", kubernetes::default_part)?;
    }
    stages.report();
    Ok(())
}

/// A program with tests.
struct Program {
    name: String,
    /// Its package's.
    directory: PathBuf,
    executable: PathBuf,
}

impl Program {
    /// As Cargo would call it.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command
    }
}

/// Builds the workspace's tests.
fn test_programs() -> anyhow::Result<Vec<Program>> {
    let mut command = cargo();
    command.args([
        "test",
        "--release",
        "--workspace",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let out = command.current_dir(crate::root()).stderr(Stdio::inherit()).output().context("cargo")?;
    if !out.status.success() {
        bail!("{command:?}: {}", out.status);
    }
    let messages = out.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let programs = messages.map(|line| {
        let message: Value = serde_json::from_slice(line).context("what cargo says is JSON")?;
        let text = |value: &Value| value.as_str().map(String::from);
        let tests = message["profile"]["test"] == true;
        let program = || {
            let manifest = PathBuf::from(text(&message["manifest_path"])?);
            Some(Program {
                name: text(&message["target"]["name"])?,
                directory: manifest.parent().map(Path::to_path_buf)?,
                executable: PathBuf::from(text(&message["executable"])?),
            })
        };
        Ok(tests.then(program).flatten())
    });
    programs.filter_map(Result::transpose).collect()
}

/// Runs the tests whose names contain one of `names`, or all: most of them side by side, then those of [`LANES`], then those of [`ALONE`].
fn traffic(
    stages: &mut Stages,
    program: &Program,
    what: &str,
    names: &[&str],
    env: &[(&str, &str)],
) -> anyhow::Result<()> {
    let tests = |threads: usize| {
        let mut command = program.command();
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
    let child = command.stdout(Stdio::piped()).spawn();
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
const SIDE_BY_SIDE: usize = 3;

/// Tests that run one after the other, and beside those of the other lanes: they mostly wait, and would wait too long beside more than two
/// others. Those that move their whole process to another cgroup are all in the first.
const LANES: [&[&str]; 3] = [
    &[
        "promise::affinity::pods_whose_sockets_are_led_are_clients_of_their_own",
        "promise::host",
        "promise::kubernetes::localhost",
        "promise::leaving",
        "promise::matrix",
        "promise::stick",
    ],
    &["promise::cluster::moving", "promise::persistent", "promise::programs", "promise::sockets"],
    &["promise::close", "promise::cluster::cut", "promise::health", "promise::refusal", "promise::timeouts"],
];

/// Tests that run alone: those that count rates, or fill the machine.
const ALONE: [&str; 11] = [
    "promise::accounting",
    "promise::cluster::herd",
    "promise::deadlines",
    "promise::ends",
    "promise::flood",
    "promise::followed",
    "promise::lifecycle::ten_thousand_services",
    "promise::million",
    "promise::sight::durations",
    "promise::stays_behind::two_datagrams",
    "promise::upgrade",
];

/// Promises about what happens to packets, which have to hold as well when every interface has `fast = true`.
/// Left out are those that are about the agent alone, and those that go every way by themselves.
const FORWARDING: [&str; 8] = [
    "promise::accounting",
    "promise::affinity",
    "promise::balance",
    "promise::close",
    "promise::persistent",
    "promise::pinning",
    "promise::sockets",
    "promise::timeouts",
];
