//! Holding the datapath still: while maps are copied that packets write, no flow is opened, closed or moved.
//!
//! What changes a flow's state is done by programs of further steps, which those of the hooks call by way of an array (`datapath::steps`). Holding
//! puts a program in their places that drops the packet; its sender says it again. Packets of flows that are settled meet none of these steps, and go
//! on. An agent that dies meanwhile leaves it so, until the next one swaps its own programs in.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::maps::MapData;
use lb_common::abi::{
    maps,
    programs::{STEPS, TC_STEPS, XDP_STEPS},
};

use super::{DatapathError, raw};

/// Steps that leave flows as they are, by their names' ends.
const HARMLESS: [&str; 6] = ["carry4", "carry6", "answer4", "answer6", "aside4", "aside6"];

/// What was put aside.
#[derive(Default)]
pub struct Hold {
    slots: Vec<(MapData, u32, OwnedFd)>,
}

impl Hold {
    /// Holds all programs whose arrays are in a directory, and waits until those that run have ended.
    ///
    /// # Errors
    /// The kernel refuses; then they go on.
    pub fn on(arrays: &Path) -> Result<Self, DatapathError> {
        let mut hold = Self::default();
        match hold.all(arrays).and_then(|()| raw::quiesce().map_err(DatapathError::io("membarrier"))) {
            Ok(()) => Ok(hold),
            Err(e) => {
                hold.undo();
                Err(e)
            }
        }
    }

    fn all(&mut self, arrays: &Path) -> Result<(), DatapathError> {
        let dropping = |xdp| raw::dropping(xdp).map_err(DatapathError::io("a program that drops packets"));
        let (xdp, tc) = (dropping(true)?, dropping(false)?);
        let entries = fs::read_dir(arrays).map_err(DatapathError::io("programs"))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let shown = path.display().to_string();
            if shown.ends_with(maps::XDP_TAILS) {
                self.array(&path, &XDP_STEPS, &xdp)?;
            } else if shown.ends_with(maps::TC_TAILS) {
                self.array(&path, &TC_STEPS, &tc)?;
            }
        }
        Ok(())
    }

    /// `names`: this build's. Another build's array may be another one; of such a one every step is held.
    fn array(&mut self, path: &Path, names: &[&str], dropping: &OwnedFd) -> Result<(), DatapathError> {
        let shown = path.display().to_string();
        let map = || MapData::from_pin(path).map_err(DatapathError::kernel(shown.clone()));
        let array = map()?;
        let length = array.info().map_err(DatapathError::kernel(shown.clone()))?.max_entries();
        let known = length as usize == names.len() && length.is_multiple_of(STEPS * 2);
        for index in 0..length {
            let harmless = |name: &&str| HARMLESS.iter().any(|end| name.ends_with(end));
            if known && names.get(index as usize).is_some_and(harmless) {
                continue;
            }
            let failed = || DatapathError::io(shown.clone());
            let mut id = [0; 4];
            if !raw::lookup(array.fd().as_fd(), &index.to_ne_bytes(), &mut id).map_err(failed())? {
                continue;
            }
            // Only to go back, which takes more privileges than holding.
            match raw::program(u32::from_ne_bytes(id)) {
                Ok(program) => self.slots.push((map()?, index, program)),
                Err(e) => tracing::debug!("what was at {index} in {shown}: {e}"),
            }
            put(&array, index, dropping).map_err(failed())?;
        }
        Ok(())
    }

    /// Goes back: everything is as it was.
    pub fn undo(self) {
        for (array, index, program) in &self.slots {
            if let Err(e) = put(array, *index, program) {
                tracing::error!("putting a step back: {e}");
            }
        }
    }
}

fn put(array: &MapData, index: u32, program: &OwnedFd) -> std::io::Result<()> {
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(program);
    raw::update(array.fd().as_fd(), &index.to_ne_bytes(), &descriptor.to_ne_bytes())
}
