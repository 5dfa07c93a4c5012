//! A cgroup of a test's own: programs on it concern the test's process and its children, and nobody else on the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use flowpin::datapath::sockets::cgroup;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup that this process is in. It goes back where it came from, and the cgroup goes, when this is dropped; make it first, so that
/// children are gone by then.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    /// Makes one and moves this process there.
    ///
    /// # Panics
    /// cgroup2 isn't mounted, or without root.
    pub fn enter() -> Self {
        let mount = cgroup(None).unwrap_or_else(|e| panic!("{e}"));
        let own = fs::read_to_string("/proc/self/cgroup").expect("cgroups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let before = mount.join(own);
        let path = before.join(format!("fp{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        join(&path).expect("this process moves");
        Self { path, before }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn join(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string())
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left of it is an empty directory.
        let _ = join(&self.before);
        let _ = fs::remove_dir(&self.path);
    }
}
