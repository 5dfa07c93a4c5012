//! `pin_dir`: where maps and links outlive the agent.
//!
//! ```text
//! pin_dir/maps/NAME            every map of lb_common::abi::maps
//! pin_dir/links/IFINDEX-HOOK   every link; hook is xdp or tcx
//! ```

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{self, BPF_FS_MAGIC},
};

use super::DatapathError;

/// The directory, locked: one agent at a time.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PinDir {
    /// Makes what is missing and takes the lock.
    ///
    /// # Errors
    /// Not on bpffs, no permission, or another agent has it.
    pub fn open(path: &Path) -> Result<Self, DatapathError> {
        let shown = || path.display().to_string();
        let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let kind = statfs::statfs(existing).map_err(|e| DatapathError::io(shown())(e.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(DatapathError::NotBpffs { path: shown() });
        }
        for dir in [path.to_path_buf(), path.join("maps"), path.join("links")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| match e.kind() {
                std::io::ErrorKind::PermissionDenied => DatapathError::NoPermission,
                _ => DatapathError::io(dir.display().to_string())(e),
            })?;
        }
        let dir = File::open(path).map_err(DatapathError::io(shown()))?;
        let lock = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
            Errno::EWOULDBLOCK => DatapathError::Locked { path: shown() },
            e => DatapathError::io(shown())(e.into()),
        })?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// A map's pin.
    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join("maps").join(name)
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
        for name in lb_common::abi::maps::ALL {
            match std::fs::remove_file(self.map(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(DatapathError::io(name)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes everything, the directory included. Links must be gone.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(self) -> Result<(), DatapathError> {
        std::fs::remove_dir_all(&self.path).map_err(DatapathError::io(self.path.display().to_string()))
    }
}
