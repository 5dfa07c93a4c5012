//! The demonstration: kube-proxy's random rules beside Flowpin, with real connections; then a drain and a killed agent under
//! traffic.
//!
//! This process makes nothing and cleans up whatever happens, Ctrl-C and TERM included; `stage` is the show; `serve` and `hold`
//! are its servers and clients, in namespaces.

mod roles;
mod stage;
mod world;

use std::process::Command;

use anyhow::bail;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};

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
    // A demo that was killed outright could not clean up.
    for tag in world::abandoned() {
        world::clean_up(&tag);
    }
    // Held back from before there is anything to clean up, and taken one by one below.
    let signals: SigSet =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block()?;
    let tag = world::tag(std::process::id());
    let mut stage = Command::new(std::env::current_exe()?);
    stage.args(["role", "stage", &tag]);
    roles::heed_signals(&mut stage, signals);
    let mut stage = stage.spawn()?;
    let mut interrupted = false;
    let status = loop {
        if signals.wait()? != Signal::SIGCHLD {
            interrupted = true;
            // Ctrl-C has reached the stage too; a signal to this process alone has not.
            stage.kill()?;
        }
        if let Some(status) = stage.try_wait()? {
            break status;
        }
    };
    world::clean_up(&tag);
    if interrupted {
        bail!("interrupted; everything it made is gone");
    }
    if !status.success() {
        bail!("the demo failed");
    }
    Ok(())
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
