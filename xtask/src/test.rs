//! Everything that must hold; stops at the first thing that doesn't. What costs nothing comes first, then the
//! build, which the agent's lints and tests need, and what takes minutes last.

use std::process::Command;

use anyhow::bail;

use crate::{build, cargo, kernels, tidy};

fn stage(name: &str, command: &mut Command) -> anyhow::Result<()> {
    println!("\n== {name}");
    crate::run(command)
}

/// See the module.
pub fn run() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the packet and traffic tests need root: sudo scripts/test");
    }
    stage("format", cargo().args(["fmt", "--all", "--check"]))?;
    println!("\n== house rules");
    tidy::run()?;
    println!("\n== build");
    build::all(true)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    stage("lints", cargo().args(clippy))?;
    if Command::new("cargo-deny").arg("--version").output().is_ok_and(|o| o.status.success()) {
        stage(
            "licences and sources",
            Command::new("cargo-deny").args(["check", "licenses", "bans", "sources"]),
        )?;
    } else {
        println!(
            "\n== licences and sources: not checked, cargo-deny is not installed (cargo install cargo-deny)"
        );
    }
    let host = ["lb-common", "lb-ebpf", "flowpin", "flowpin-guest", "xtask"];
    let host = host.iter().flat_map(|package| ["--package", package]);
    stage("unit and property tests", cargo().arg("test").args(host))?;
    println!("\n== programs on the oldest and the newest kernel");
    kernels::oldest_and_newest()?;
    traffic("packets and traffic", &[], &ALONE, &[])?;
    let alone: Vec<&str> = FORWARDING.into_iter().filter(|name| ALONE.contains(name)).collect();
    traffic("traffic past the IP stack", &FORWARDING, &alone, &[("FLOWPIN_TEST_FAST", "1")])
}

/// Runs the tests whose names contain one of `names`, side by side but for [`ALONE`]; then those of `alone`, one
/// after the other.
fn traffic(what: &str, names: &[&str], alone: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let tests = |threads: usize| {
        let mut command = cargo();
        command.args(["test", "--release", "--package", "flowpin-tests", "--"]);
        command.arg(format!("--test-threads={threads}")).envs(env.iter().copied());
        command
    };
    let skipped = ALONE.iter().flat_map(|name| ["--skip", *name]);
    stage(&format!("{what}, side by side"), tests(SIDE_BY_SIDE).args(names).args(skipped))?;
    stage(&format!("{what}, alone"), tests(1).args(alone))
}

/// Tests at a time, each with namespaces, pins and an agent of its own. A world waits for the kernel's verifier
/// and for time-outs more than it computes.
const SIDE_BY_SIDE: usize = 2;

/// Tests that run alone: those that count milliseconds or rates, that fill the machine, and that move the whole
/// process to another cgroup.
const ALONE: [&str; 14] = [
    "promise::accounting",
    "promise::close",
    "promise::health",
    "promise::host",
    "promise::lifecycle::ten_thousand_services",
    "promise::matrix",
    "promise::million",
    "promise::persistent",
    "promise::programs",
    "promise::refusal",
    "promise::sight::durations",
    "promise::sockets",
    "promise::stick",
    "promise::timeouts",
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
