//! The C programs, compiled by clang when they are needed: they are yardsticks, and nothing that is shipped depends on them.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Object files of the programs in `benches/c`, in a directory that goes when it is dropped.
///
/// # Errors
/// There is no clang, or it refuses.
pub fn all() -> Result<TempDir> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("c");
    let directory = TempDir::new()?;
    for name in ["driver", "yardstick"] {
        let out = Command::new("clang")
            .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
            // Where Debian keeps <asm/types.h>, which clang looks for as for the BPF architecture.
            .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
            .arg("-c")
            .arg(sources.join(format!("{name}.bpf.c")))
            .arg("-o")
            .arg(directory.path().join(format!("{name}.o")))
            .output()
            .context("clang: scripts/bench installs it")?;
        if !out.status.success() {
            bail!("clang on {name}.bpf.c: {}", String::from_utf8_lossy(&out.stderr));
        }
    }
    Ok(directory)
}
