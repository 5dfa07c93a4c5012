//! `pin_dir`: where maps and links outlive the agent.
//!
//! ```text
//! pin_dir/maps/NAME            every map of lb_common::abi::maps
//! pin_dir/maps-next/NAME       the same, while they are made of those of another build (see generation)
//! pin_dir/links/IFINDEX-HOOK   every link; hook is xdp or tcx
//! pin_dir/programs/AGENT-NAME   arrays of programs that those of links call
//! ```

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use aya::maps::{Map, MapData, MapError};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2},
    sys::statfs::{self, BPF_FS_MAGIC},
};

use super::{DatapathError, privileges};

/// The directory, locked: one agent at a time.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    /// Are maps made in `maps-next`?
    staged: AtomicBool,
    _lock: Flock<File>,
}

impl PinDir {
    /// Makes what is missing and takes the lock.
    ///
    /// # Errors
    /// Not on bpffs, no permission, somebody else's, or another agent has it.
    pub fn open(path: &Path) -> Result<Self, DatapathError> {
        let shown = || path.display().to_string();
        // Before anything is made: /sys/fs/bpf is often open to everybody (mode 1777), BPF is not.
        if !privileges::missing().is_empty() {
            return Err(DatapathError::NoPermission);
        }
        let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let kind = statfs::statfs(existing).map_err(|e| DatapathError::io(shown())(e.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(DatapathError::NotBpffs { path: shown() });
        }
        for dir in [path.to_path_buf(), path.join("maps"), path.join("links"), path.join("programs")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| match e.kind() {
                std::io::ErrorKind::PermissionDenied => DatapathError::NoPermission,
                _ => DatapathError::io(dir.display().to_string())(e),
            })?;
        }
        let dir = File::open(path).map_err(DatapathError::io(shown()))?;
        let owner = dir.metadata().map_err(DatapathError::io(shown()))?.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(DatapathError::Foreign { path: shown(), owner });
        }
        let lock = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(dir, e)| match e {
            Errno::EWOULDBLOCK => DatapathError::Locked { path: shown(), holder: holder(&dir) },
            e => DatapathError::io(shown())(e.into()),
        })?;
        Ok(Self { path: path.into(), staged: AtomicBool::new(false), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// A map's pin: of the maps that are being made, if there are such.
    pub fn map(&self, name: &str) -> PathBuf {
        if self.staged.load(Ordering::Relaxed) { self.next().join(name) } else { self.in_force().join(name) }
    }
    fn in_force(&self) -> PathBuf {
        self.path.join("maps")
    }
    fn next(&self) -> PathBuf {
        self.path.join("maps-next")
    }
    /// From now on maps are made beside those in force.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn stage(&self) -> Result<(), DatapathError> {
        let next = self.next();
        DirBuilder::new().mode(0o700).create(&next).map_err(DatapathError::io(next.display().to_string()))?;
        self.staged.store(true, Ordering::Relaxed);
        Ok(())
    }
    /// Those that were made are in force from now on, and the others beside them.
    ///
    /// # Errors
    /// The file system refuses (Linux 5.16).
    pub fn exchange(&self) -> Result<(), DatapathError> {
        let (next, maps) = (self.next(), self.in_force());
        renameat2(AT_FDCWD, &next, AT_FDCWD, &maps, RenameFlags::RENAME_EXCHANGE)
            .map_err(|e| DatapathError::io(format!("putting {} in force", next.display()))(e.into()))?;
        self.staged.store(false, Ordering::Relaxed);
        Ok(())
    }
    /// Removes the maps beside those in force, if there are such.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove_next(&self) -> Result<(), DatapathError> {
        self.staged.store(false, Ordering::Relaxed);
        match std::fs::remove_dir_all(self.next()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(DatapathError::io(self.next().display().to_string())(e))
            }
            _ => Ok(()),
        }
    }
    /// A map in force, also while others are made.
    ///
    /// # Errors
    /// It is missing.
    pub fn old_data(&self, name: &str) -> Result<MapData, DatapathError> {
        MapData::from_pin(self.in_force().join(name)).map_err(DatapathError::kernel(name.to_string()))
    }
    /// A map, by its pin.
    ///
    /// # Errors
    /// It is missing.
    pub fn data(&self, name: &'static str) -> Result<MapData, DatapathError> {
        MapData::from_pin(self.map(name)).map_err(DatapathError::kernel(name))
    }
    /// The same as what it is. `kind`: of which kind that is.
    ///
    /// # Errors
    /// It is missing or something else.
    pub fn open_as<M: TryFrom<Map, Error = MapError>>(
        &self,
        name: &'static str,
        kind: fn(MapData) -> Map,
    ) -> Result<M, DatapathError> {
        kind(self.data(name)?).try_into().map_err(DatapathError::kernel(name))
    }
    /// Where arrays of programs are.
    pub fn programs(&self) -> PathBuf {
        self.path.join("programs")
    }

    /// Where links of programs on cgroups are.
    pub fn sockets(&self) -> PathBuf {
        self.path.join("sockets")
    }

    /// Where links are.
    pub fn links(&self) -> PathBuf {
        self.path.join("links")
    }

    /// Removes the maps' pins.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove_maps(&self) -> Result<(), DatapathError> {
        let failed = || DatapathError::io(self.in_force().display().to_string());
        let entries = std::fs::read_dir(self.in_force()).map_err(failed())?;
        entries.flatten().try_for_each(|entry| std::fs::remove_file(entry.path()).map_err(failed()))
    }

    /// Removes the directories if nothing is in them, as after a start that failed.
    pub fn remove_empty(&self) {
        for dir in [self.programs(), self.links(), self.in_force(), self.path.clone()] {
            // What isn't empty stays.
            let _ = std::fs::remove_dir(dir);
        }
    }

    /// Removes everything, the directory included. Links must be gone.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self) -> Result<(), DatapathError> {
        std::fs::remove_dir_all(&self.path).map_err(DatapathError::io(self.path.display().to_string()))
    }
}

impl Drop for PinDir {
    /// What a start that failed was making.
    fn drop(&mut self) {
        if self.staged.load(Ordering::Relaxed)
            && let Err(e) = self.remove_next()
        {
            tracing::warn!("clearing up: {e}");
        }
    }
}

/// ` (pid 1234)`: who holds the lock, as far as this process may know.
fn holder(dir: &File) -> String {
    let (Ok(meta), Ok(locks)) = (dir.metadata(), std::fs::read_to_string("/proc/locks")) else {
        return String::new();
    };
    find_holder(&locks, meta.ino()).map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// In `/proc/locks`, of an inode. `1: FLOCK  ADVISORY  WRITE 1234 00:1d:5678 0 EOF`
fn find_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = words.get(5)?.rsplit(':').next()?;
        // Another PID namespace's process shows as 0; a line of one who waits has an arrow for a second word.
        let pid = words.get(4)?.parse().ok().filter(|pid| *pid != 0)?;
        (words[1] == "FLOCK" && place == inode.to_string()).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: FLOCK  ADVISORY  WRITE 812 00:1d:56 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 9 00:1d:567 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 1234 00:1d:567 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 77 00:1d:567 0 EOF\n";
        assert_eq!(find_holder(locks, 567), Some(1234));
        assert_eq!(find_holder(locks, 56), Some(812));
        assert_eq!(find_holder(locks, 5), None);
    }
}
