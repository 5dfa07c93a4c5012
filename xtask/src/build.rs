//! The BPF object, then the agent that embeds it.

use std::{fs, process::Command};

use anyhow::{Context, bail};

use crate::{cargo, root, run, toolchain};

/// Flags of the BPF build. v3 of the instruction set (Linux 5.12) has the atomic operations that accounting stands on; BTF is
/// for maps and messages.
const FLAGS: &str = "-C linker=bpf-linker -C link-arg=--btf -C debuginfo=2 -C panic=abort -C target-cpu=v3";

/// Object and binary.
pub fn all(release: bool) -> anyhow::Result<()> {
    ebpf()?;
    agent(release)
}

/// What a later version may be, for the tests of upgrades: `target/next/flowpin`. What is built after it is this version again. Its dependencies are
/// those of [`everything`].
pub fn next() -> anyhow::Result<()> {
    object("flowpin-bpf-next.o", &["--features", "next"])?;
    run(cargo().args([
        "build",
        "--release",
        "--workspace",
        "--bin",
        "flowpin",
        "--features",
        "flowpin/next",
    ]))?;
    let (built, next) = (root().join("target/release/flowpin"), root().join("target/next"));
    fs::create_dir_all(&next)?;
    // Under another name first: what has this one may be running.
    let aside = next.join("flowpin-new");
    fs::copy(&built, &aside)?;
    fs::rename(aside, next.join("flowpin"))?;
    Ok(())
}

/// The binary, which embeds the object.
fn agent(release: bool) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["build", "--package", "flowpin"]);
    if release {
        command.arg("--release");
    }
    run(&mut command)?;
    if release { strip() } else { Ok(()) }
}

/// Moves what debuggers and backtraces need out of `target/release/flowpin`, to `flowpin.debug` beside it, which they find by a link in the binary.
/// Cargo's own `strip` would throw it away. Cargo puts the whole one back when it builds again; it is in `target/release/deps` all along.
fn strip() -> anyhow::Result<()> {
    let release = root().join("target/release");
    let tool = |name: &str, args: &[&str]| run(Command::new(name).args(args).current_dir(&release));
    tool("objcopy", &["--only-keep-debug", "flowpin", "flowpin.debug"])?;
    // Under another name first: what has this one may be running, and is Cargo's own file under another name.
    tool("objcopy", &["--strip-all", "--add-gnu-debuglink=flowpin.debug", "flowpin", "flowpin-stripped"])?;
    fs::rename(release.join("flowpin-stripped"), release.join("flowpin"))?;
    Ok(())
}

/// Object, binary, and what tests and benchmarks call. In one go: what is asked for alone may be built with other features of its dependencies,
/// and so twice.
pub fn everything() -> anyhow::Result<()> {
    ebpf()?;
    run(cargo().args(["build", "--release", "--workspace"]))
}

/// The object: `target/bpf/flowpin-bpf.o`.
pub fn ebpf() -> anyhow::Result<()> {
    object("flowpin-bpf.o", &[])
}

/// An object, under this name in `target/bpf`.
fn object(name: &str, features: &[&str]) -> anyhow::Result<()> {
    let linker = Command::new("bpf-linker").arg("--version").output();
    if !linker.is_ok_and(|o| o.status.success()) {
        bail!("bpf-linker is not there: run scripts/setup");
    }
    let toolchain = toolchain::find()?;
    println!("BPF object: with {}", toolchain.name);
    // BPF programs run in the byte order of the machine that they are built on.
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let out = root().join("target/ebpf");
    let mut command = Command::new(toolchain::cargo()?);
    command
        .args(["build", "--release", "--package", "lb-ebpf", "--bin", "flowpin-bpf"])
        .args(features)
        .args(["-Z", "build-std=core", "--target", target])
        .arg("--target-dir")
        .arg(&out)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        // For cargo's -Z, and for what a stable compiler has and does not offer.
        .env("RUSTC_BOOTSTRAP", "1");
    run(&mut command)?;
    let built =
        fs::read(out.join(target).join("release/flowpin-bpf")).context("the BPF build left no object")?;
    let object = root().join("target/bpf").join(name);
    // Written only when it is another one, so that the agent isn't built again for nothing.
    if fs::read(&object).ok().as_ref() != Some(&built) {
        fs::create_dir_all(root().join("target/bpf"))?;
        fs::write(&object, built)?;
    }
    Ok(())
}
