//! Interfaces whose other ends take packets directly.

use std::collections::BTreeSet;

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::maps;

use super::{DatapathError, pin::PinDir};

/// The datapath's record of them, by index.
pub struct Peers {
    map: HashMap<MapData, u32, u32>,
}

impl Peers {
    /// Opens it.
    ///
    /// # Errors
    /// It is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self { map: pins.open_as(maps::PEERS, Map::HashMap)? })
    }

    /// These and no others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&mut self, wanted: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let failed = || DatapathError::kernel(maps::PEERS);
        let there: BTreeSet<u32> = self.map.keys().collect::<Result<_, _>>().map_err(failed())?;
        for index in there.difference(wanted) {
            self.map.remove(index).map_err(failed())?;
        }
        for index in wanted.difference(&there) {
            self.map.insert(index, 1, 0).map_err(failed())?;
        }
        Ok(())
    }
}
