//! What a demo needs of the machine, looked at before anything is made.

use std::process::{Command, Stdio};

use anyhow::{bail, ensure};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    statfs::{BPF_FS_MAGIC, statfs},
};

use super::world::BPF;
use crate::datapath::features::kernel_at_least;

/// Open files: both ends of about 600 connections are in this process.
const FILES: u64 = 2_048;

/// Looks, and takes as many open files as it needs.
///
/// # Errors
/// What is missing, and the remedy.
pub fn check() -> anyhow::Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demo makes network namespaces and loads BPF programs, which takes root: sudo flowpin demo"
    );
    ensure!(
        kernel_at_least(6, 1),
        "this kernel is too old for the demo: it needs Linux 6.1 or newer; \"flowpin doctor\" says more"
    );
    if Command::new("ip").arg("-V").stdin(Stdio::null()).output().is_err() {
        bail!("the demo makes its namespaces with \"ip\", which isn't here: apt install iproute2");
    }
    ensure!(
        statfs(BPF).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC),
        "no BPF file system at {BPF}: mount -t bpf bpf {BPF} (inside \"ip netns exec\" it is hidden: use nsenter --net)"
    );
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most >= FILES, "the demo opens up to {FILES} files, and the limit is {most}: ulimit -Hn {FILES}");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
