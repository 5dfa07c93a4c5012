//! Work inside a network namespace.

use std::{
    fs::File,
    io,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps namespaces.
pub const NAMESPACES: &str = "/run/netns";

/// Runs `work` on a thread of its own in a namespace. Sockets and processes that it makes are there, and stay there.
///
/// # Errors
/// There is no such namespace, or what `work` failed with.
pub fn within<T: Send>(
    tag: &str,
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> anyhow::Result<T> {
    let file =
        File::open(format!("{NAMESPACES}/{tag}-{name}")).with_context(|| format!("namespace {name}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .with_context(|| format!("in namespace {name}"))
}

/// Runs `ip` with the words of a line.
///
/// # Errors
/// What it said.
pub fn ip(line: &str) -> anyhow::Result<()> {
    let out = Command::new("ip").args(line.split_whitespace()).stdin(Stdio::null()).output();
    succeeded(&format!("ip {line}"), &out.context("ip")?)
}

/// Insists that a command has succeeded.
///
/// # Errors
/// What it said.
pub fn succeeded(line: &str, out: &Output) -> anyhow::Result<()> {
    if !out.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
