//! What the kernel knows of other nodes' connections, and which services have got some: written and read where they lie.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::atomic::Ordering,
};

use aya::maps::{Map, MapData, RingBuf};
use lb_common::{
    abi::{BackendId, ServiceId, maps},
    ranked,
};

use super::{DatapathError, mapping::Bytes, object::Object};

/// See the module.
pub struct Others {
    words: Bytes,
    valid: Bytes,
    dirty: Bytes,
    wake: OwnedFd,
}

/// Becomes readable when a service has got a connection.
pub struct Wakes(RingBuf<MapData>);

impl AsRawFd for Wakes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Wakes {
    /// It is known: not readable any more, until the next.
    pub fn clear(&mut self) {
        while self.0.next().is_some() {}
    }
}

impl Others {
    /// Those of an agent's programs.
    ///
    /// # Errors
    /// They can't be mapped.
    pub fn of(object: &Object) -> Result<Self, DatapathError> {
        let mapped = |name| {
            let data: &MapData = match object.map(name) {
                Some(Map::Array(data)) => data,
                _ => return Err(DatapathError::NoObject),
            };
            Bytes::new(data, name, true)
        };
        Ok(Self {
            words: mapped(maps::OTHERS)?,
            valid: mapped(maps::OTHERS_VALID)?,
            dirty: mapped(maps::DIRTY)?,
            wake: match object.map(maps::WAKE) {
                Some(Map::RingBuf(data)) => {
                    data.fd().as_fd().try_clone_to_owned().map_err(DatapathError::io(maps::WAKE))?
                }
                _ => return Err(DatapathError::NoObject),
            },
        })
    }

    /// Wakes who asks [`Others::take_opened`]. There is only one who does.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn wakes(&self) -> Result<Wakes, DatapathError> {
        let fd = self.wake.try_clone().map_err(DatapathError::io(maps::WAKE))?;
        let ring = MapData::from_fd(fd).and_then(|data| RingBuf::try_from(Map::RingBuf(data)));
        ring.map(Wakes).map_err(DatapathError::kernel(maps::WAKE))
    }

    /// What others have with a backend, and its place among equals: see [`lb_common::ranked`].
    pub fn write(&self, backend: BackendId, word: u32) {
        if backend.block() < self.words.len() {
            self.words.word(backend.block(), backend.slot()).store(word, Ordering::Relaxed);
        }
    }

    /// The word that the kernel compares for a backend, at this time (jiffies): without others' connections once they
    /// aren't known any more.
    pub fn word(&self, backend: BackendId, now: u64) -> u32 {
        if backend.block() >= self.words.len() {
            return 0;
        }
        let word = self.words.word(backend.block(), backend.slot()).load(Ordering::Relaxed);
        let mut until = [0; 8];
        self.valid.read(0, &mut until);
        if now < u64::from_ne_bytes(until) { word } else { word & ranked::ORDER }
    }

    /// All that was written is good until then, jiffies.
    pub fn extend(&self, until: u64) {
        self.valid.write(0, &until.to_ne_bytes());
    }

    /// Has a service got a connection since this was asked?
    pub fn take_opened(&self, service: ServiceId) -> bool {
        if service >= self.dirty.len() {
            return false;
        }
        let word = self.dirty.word(service, 0);
        // Most have none: then nothing is written, and no CPU loses the line. Acquire: the counts are read after it.
        word.load(Ordering::Relaxed) != 0 && word.swap(0, Ordering::AcqRel) != 0
    }
}
