//! Everything that must hold; stops at the first thing that doesn't. What costs nothing comes first, then the build, which the
//! agent's lints and tests need, and what takes minutes last.

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
    // One after the other: some of them count milliseconds, and all of them share two or more CPUs with real servers.
    let traffic = ["test", "--release", "--package", "flowpin-tests", "--", "--test-threads=1"];
    stage("packets and traffic", cargo().args(traffic))?;
    stage("traffic past the IP stack", cargo().args(traffic).args(FORWARDING).env("FLOWPIN_TEST_FAST", "1"))
}

/// Promises about what happens to packets, which have to hold as well when every interface has `fast = true`. Left out are those that are about the
/// agent alone, and those that go every way by themselves.
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
