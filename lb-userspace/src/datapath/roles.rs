//! What packets have to know of interfaces.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::{Interface, maps};

use super::{DatapathError, pin::PinDir};

/// The datapath's record of it, by index.
pub struct Roles {
    map: HashMap<MapData, u32, Interface>,
}

impl Roles {
    /// Opens it.
    ///
    /// # Errors
    /// It is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self { map: pins.open_as(maps::INTERFACES, Map::HashMap)? })
    }

    /// These and no others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&mut self, wanted: &BTreeMap<u32, Interface>) -> Result<(), DatapathError> {
        let failed = || DatapathError::kernel(maps::INTERFACES);
        let there: BTreeSet<u32> = self.map.keys().collect::<Result<_, _>>().map_err(failed())?;
        for index in there.iter().filter(|index| !wanted.contains_key(index)) {
            self.map.remove(index).map_err(failed())?;
        }
        for (index, interface) in wanted {
            if self.map.get(index, 0).ok().as_ref() != Some(interface) {
                self.map.insert(index, interface, 0).map_err(failed())?;
            }
        }
        Ok(())
    }
}
