//! Everything that must hold, cheapest first; stops at the first thing that doesn't.

use std::process::Command;

use anyhow::bail;

use crate::{build, cargo, tidy};

fn stage(name: &str, command: &mut Command) -> anyhow::Result<()> {
    println!("\n== {name}");
    crate::run(command)
}

/// See the module.
pub fn run() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the packet and traffic tests need root: sudo scripts/test");
    }
    println!("\n== build");
    build::all(true)?;
    stage("format", cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    stage("lints", cargo().args(clippy))?;
    println!("\n== house rules");
    tidy::run()?;
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
    let host = ["test", "--package", "lb-common", "--package", "lb-ebpf", "--package", "flowpin"];
    stage("unit and property tests", cargo().args(host))?;
    // One after the other: some of them count milliseconds, and all of them share two or more CPUs with real servers.
    let traffic = ["test", "--release", "--package", "flowpin-tests", "--", "--test-threads=1"];
    stage("packets and traffic", cargo().args(traffic))
}
