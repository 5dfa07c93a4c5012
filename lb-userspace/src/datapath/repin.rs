//! Pins that vanish under a running agent: noticed, and put back while the maps can still be reached. Without them the next
//! agent would find nothing to adopt.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::PathBuf,
    sync::Arc,
};

use lb_common::abi::maps;
use nix::fcntl::{Flock, FlockArg};

use super::{DatapathError, generation, object::Object, pin::PinDir};

/// Looks after one agent's pins.
pub struct Repin {
    pins: Arc<PinDir>,
    /// The lock of a directory that took the place of the one that was there: which one, and the lock.
    moved: Option<(u64, Flock<File>)>,
    /// The directory that this agent locked.
    inode: u64,
    /// Names of links that were there the last time.
    links: BTreeSet<OsString>,
}

/// What was found.
#[derive(Default)]
pub struct Kept {
    /// Maps whose pins had vanished and are back.
    pub back: Vec<&'static str>,
    /// Links have vanished, and what was attached by them with them: somebody has to look.
    pub links: bool,
}

impl Repin {
    /// Of an agent that has just opened them.
    ///
    /// # Errors
    /// They are gone already.
    pub fn new(pins: Arc<PinDir>) -> Result<Self, DatapathError> {
        let path = pins.path();
        let inode = path.metadata().map_err(DatapathError::io(path.display().to_string()))?.ino();
        Ok(Self { pins, moved: None, inode, links: BTreeSet::new() })
    }

    /// Puts back what is missing.
    ///
    /// # Errors
    /// The kernel or the file system refuses, or another agent has the place.
    pub fn keep(&mut self, object: &Object) -> Result<Kept, DatapathError> {
        let names =
            |dir| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let links = names(self.pins.links()).chain(names(self.pins.sockets())).collect();
        let before = std::mem::replace(&mut self.links, links);
        let gone = before.difference(&self.links).next().is_some();
        Ok(Kept { back: self.keep_maps(object)?, links: gone })
    }

    /// Maps, and directories; which maps.
    fn keep_maps(&mut self, object: &Object) -> Result<Vec<&'static str>, DatapathError> {
        let shared = maps::ALL.into_iter().map(|name| (name, self.pins.map(name)));
        let missing: Vec<(&'static str, PathBuf)> =
            shared.chain(object.arrays()).filter(|(_, pin)| !pin.exists()).collect();
        let described = self.pins.map(maps::LAYOUTS).exists();
        // Without the directory of links nothing could be attached that was detached with them.
        if missing.is_empty() && described && self.pins.links().exists() {
            return Ok(Vec::new());
        }
        self.hold()?;
        for (name, pin) in &missing {
            let map = object.map(name).ok_or(DatapathError::NoObject)?;
            map.pin(pin).map_err(DatapathError::kernel(format!("putting back {}", pin.display())))?;
        }
        if !described {
            generation::describe(&self.pins)?;
        }
        let layouts = (!described).then_some(maps::LAYOUTS);
        Ok(missing.into_iter().map(|(name, _)| name).chain(layouts).collect())
    }

    /// The directory is there, and this agent's: it may have been removed, lock and all.
    fn hold(&mut self) -> Result<(), DatapathError> {
        let path = self.pins.path();
        let shown = || path.display().to_string();
        for dir in [path.to_path_buf(), path.join("maps"), self.pins.links(), self.pins.programs()] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(DatapathError::io(dir.display().to_string()))?;
        }
        let dir = File::open(path).map_err(DatapathError::io(shown()))?;
        let inode = dir.metadata().map_err(DatapathError::io(shown()))?.ino();
        if inode == self.moved.as_ref().map_or(self.inode, |(inode, _)| *inode) {
            return Ok(());
        }
        let lock = Flock::lock(dir, FlockArg::LockExclusiveNonblock)
            .map_err(|_| DatapathError::Locked { path: shown(), holder: String::new() })?;
        self.moved = Some((inode, lock));
        Ok(())
    }
}
