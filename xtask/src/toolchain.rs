//! Which compiler builds for BPF: a nightly that has the sources of `core`, else the distribution's.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// A compiler with the sources of its `core`.
pub struct Toolchain {
    /// `rustc`.
    pub rustc: PathBuf,
    /// For people.
    pub name: String,
}

/// Finds one.
///
/// # Errors
/// There is none.
pub fn find() -> anyhow::Result<Toolchain> {
    let listed =
        Command::new("rustup").args(["toolchain", "list"]).output().map(|o| o.stdout).unwrap_or_default();
    for line in String::from_utf8_lossy(&listed).lines().filter(|l| l.starts_with("nightly")) {
        let Some(name) = line.split_whitespace().next() else { continue };
        let which = Command::new("rustup").args(["which", "--toolchain", name, "rustc"]).output()?;
        let rustc = PathBuf::from(String::from_utf8_lossy(&which.stdout).trim());
        if has_sources(&rustc) {
            return Ok(Toolchain { rustc, name: name.into() });
        }
    }
    let rustc = PathBuf::from("/usr/bin/rustc");
    if has_sources(&rustc) {
        return Ok(Toolchain { rustc, name: "the distribution's rustc".into() });
    }
    bail!(
        "no compiler has the sources of core: run scripts/setup, or: rustup toolchain install nightly -c rust-src"
    )
}

fn has_sources(rustc: &Path) -> bool {
    let sysroot =
        Command::new(rustc).args(["--print", "sysroot"]).output().map(|o| o.stdout).unwrap_or_default();
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

/// Cargo itself, past rustup's stand-in, which would choose the compiler again.
///
/// # Errors
/// It can't be found.
pub fn cargo() -> anyhow::Result<PathBuf> {
    let which = Command::new("rustup").args(["which", "cargo"]).output().context("rustup")?;
    Ok(PathBuf::from(String::from_utf8(which.stdout)?.trim()))
}
