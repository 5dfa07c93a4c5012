//! The demonstration: kube-proxy's random rules beside Flowpin, with real connections; then a drain and a killed agent under
//! traffic.
//!
//! Three processes a stage: this one makes nothing and cleans up whatever happens, Ctrl-C included; `stage` is the show;
//! `serve` and `hold` are its servers and clients, in namespaces.

mod roles;
mod stage;
mod world;

use std::process::Command;

use anyhow::bail;
use clap::Args;
use nix::sys::signal::{SigHandler, Signal, signal};

/// A part that runs in a process of its own.
#[derive(Args)]
pub struct Role {
    /// `stage`, `serve` or `hold`
    name: String,
    /// What it needs
    args: Vec<String>,
}

/// Runs the show and cleans up after it.
pub fn run() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes network namespaces and needs root: sudo scripts/demo");
    }
    for interrupt in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: ignoring a signal runs no code. The stage and its parts get it too, and end; then this goes on.
        unsafe { signal(interrupt, SigHandler::SigIgn) }?;
    }
    let tag = format!("fpd{}", std::process::id());
    let mut stage = Command::new(std::env::current_exe()?);
    stage.args(["role", "stage", &tag]);
    roles::heed_signals(&mut stage);
    let result = stage.status();
    world::clean_up(&tag);
    match result?.code() {
        Some(0) => Ok(()),
        Some(_) => bail!("the demo failed"),
        None => bail!("interrupted; everything it made is gone"),
    }
}

/// Runs a part.
pub fn role(role: Role) -> anyhow::Result<()> {
    let args: Vec<&str> = role.args.iter().map(String::as_str).collect();
    match (role.name.as_str(), args.as_slice()) {
        ("stage", [tag]) => stage::run(tag),
        ("serve", [name]) => roles::serve(name),
        ("hold", [address, count]) => roles::hold(address, count.parse()?),
        (name, _) => bail!("there is no role {name} {args:?}"),
    }
}
