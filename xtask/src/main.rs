//! The verbs: `cargo xtask build`, `test`, `tidy`, `bench`.

mod build;
mod deny;
mod kernels;
mod kubernetes;
mod test;
mod tidy;
mod toolchain;
mod ui;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Builds and tests Flowpin")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The BPF object, then the one binary that embeds it
    Build {
        /// Optimised: target/release/flowpin
        #[arg(long)]
        release: bool,
    },
    /// The BPF object alone: target/bpf/flowpin-bpf.o
    BuildEbpf,
    /// What a later version may be, for the tests of upgrades: target/next/flowpin; and target/release/flowpin
    BuildNext,
    /// Format, lints, unit and property tests, house rules, packets and real traffic (needs root)
    Test(test::Options),
    /// Every kernel of the matrix, under emulation: loads of every program, then real traffic
    TestKernels(kernels::Options),
    /// A Kubernetes of network namespaces, with Flowpin in it by its image and chart: upstream's end-to-end tests (needs root and Go)
    TestKubernetes(kubernetes::Options),
    /// The stats page in headless Chromium, with real connections (needs root, target/release/flowpin and `scripts/setup ui`)
    TestUi,
    /// The house rules
    Tidy,
    /// Flowpin beside its peers, measured: target/bench/results.md (needs root)
    Bench {
        /// What flowpin-bench understands: --quick, --only packets, --keep, --beside COMMIT; all: --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().verb {
        Verb::Build { release } => build::all(release),
        Verb::BuildEbpf => build::ebpf(),
        Verb::BuildNext => build::next().and_then(|()| build::everything()),
        Verb::Test(options) => test::run(&options),
        Verb::TestKernels(options) => kernels::matrix(&options),
        Verb::TestKubernetes(options) => kubernetes::test(&options),
        Verb::TestUi => ui::run(),
        Verb::Tidy => tidy::run(),
        Verb::Bench { options } => bench(&options),
    }
}

fn bench(options: &[String]) -> anyhow::Result<()> {
    build::everything()?;
    run(Command::new(root().join("target/release/flowpin-bench")).args(options))
}

/// The workspace.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Runs a command, in the workspace if it doesn't say where, its output shown.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    let status = command.status().with_context(|| shown.clone())?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Cargo, as it was called; what it makes goes to `target`, whatever the environment says, since tests look there.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What Cargo says of this program to it. Some build scripts ask for the same of their own, and would be run again each time.
    let said = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| said(name))
    {
        command.env_remove(name);
    }
    command.env("CARGO_TARGET_DIR", root().join("target"));
    command
}
