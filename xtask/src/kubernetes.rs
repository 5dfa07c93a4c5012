//! A real Kubernetes of network namespaces, Flowpin in it, and upstream's tests: `tests/kubernetes` is a program in Go, which is built and called here.

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{build, root, run};

/// Which tests, and how Flowpin is attached.
#[derive(Args)]
pub struct Options {
    /// Which way Flowpin is attached
    #[arg(long, value_parser = ["tc", "sockets", "xdp"], default_value = "tc")]
    mode: String,
    /// What Flowpin promises in a cluster, instead of upstream's tests: take-over, label, rolling update, kill, outage
    #[arg(long, conflicts_with = "record")]
    promises: bool,
    /// kube-proxy instead of Flowpin, to tell what is the rig's fault; with --promises, the one that is there first
    #[arg(long, value_parser = ["iptables", "nftables"])]
    kube_proxy: Option<String>,
    /// Write the results into the table of docs/kubernetes.md
    #[arg(long)]
    record: bool,
    /// What `cluster test` understands besides: --all, --cni bridge, --focus EXPRESSION, --procs N, --keep; with
    /// --promises `cluster promises`: --outage 5m, names of promises
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    more: Vec<String>,
}

/// Builds what is missing, boots, tests and cleans up.
///
/// # Errors
/// Something can't be built or booted, or a test fails.
pub fn test(options: &Options) -> anyhow::Result<()> {
    let cluster = cluster()?;
    chart(&cluster)?;
    let mut command = if options.promises { call(&cluster, "promises") } else { upstreams(&cluster) };
    if options.record {
        command.arg("--record").arg(root().join("docs/kubernetes.md"));
    }
    if let Some(mode) = &options.kube_proxy {
        command.args(["--kube-proxy", mode]);
    }
    if options.promises || options.kube_proxy.is_none() {
        build::all(true)?;
        command.args(["--mode", &options.mode]).arg("--image").arg(image()?);
    }
    command.args(&options.more);
    // In the place of this process: whoever interrupts it interrupts the program that has a cluster to remove.
    Err(command.exec()).with_context(|| format!("{command:?}"))
}

/// Upstream's tests that take minutes together, with the binary that is in `target/release`, attached by TC.
///
/// # Errors
/// As [`test`].
pub fn default_part() -> anyhow::Result<()> {
    let cluster = cluster()?;
    chart(&cluster)?;
    run(upstreams(&cluster).arg("--image").arg(image()?))
}

/// Upstream's tests, whose results are kept.
fn upstreams(cluster: &Path) -> Command {
    let mut command = call(cluster, "test");
    command.arg("--out").arg(root().join("target/kubernetes"));
    command
}

/// The cluster program, where its module is.
fn call(cluster: &Path, verb: &str) -> Command {
    let mut command = Command::new(cluster);
    command.current_dir(module()).arg(verb);
    command
}

/// Builds the cluster program, and with it all that it runs.
fn cluster() -> anyhow::Result<PathBuf> {
    let program = cache()?.join("bin/cluster");
    // As it builds the rest: what both depend on is compiled once.
    let flags = ["build", "-trimpath", "-ldflags=-s -w", "-o"];
    run(go().args(flags).arg(&program).arg("./cluster"))?;
    run(&mut call(&program, "build"))?;
    Ok(program)
}

/// Tests of the chart, with the Helm that was built beside the cluster program.
fn chart(cluster: &Path) -> anyhow::Result<()> {
    run(go()
        .args(["test", "-count=1", "-trimpath", "."])
        .current_dir(module().join("helm"))
        .env("HELM", cluster.with_file_name("helm")))
}

/// Flowpin's image, of the binary in `target/release`.
fn image() -> anyhow::Result<PathBuf> {
    run(Command::new("scripts/image").args(["--binary", "target/release/flowpin"]))?;
    let image = root().join(format!("target/image/flowpin-{}.tar", env!("CARGO_PKG_VERSION")));
    if !image.exists() {
        bail!("scripts/image left no {}", image.display());
    }
    Ok(image)
}

fn go() -> Command {
    let mut command = Command::new("go");
    command.env("CGO_ENABLED", "0").current_dir(module());
    command
}

fn module() -> PathBuf {
    root().join("tests/kubernetes")
}

/// Where the cluster program keeps what it builds.
fn cache() -> anyhow::Result<PathBuf> {
    if let Some(cache) = env::var_os("FLOWPIN_KUBERNETES_CACHE") {
        return Ok(cache.into());
    }
    let user = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    Ok(user.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("flowpin/kubernetes"))
}
