//! Whose frames are this node's: the MAC addresses of all its interfaces, since a port of a bridge is shown what is for the bridge, and a device
//! what is for those above it.

use std::collections::BTreeSet;

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::{Mac, maps};

use super::{DatapathError, pin::PinDir};

/// The datapath's record of them.
pub struct Macs {
    map: HashMap<MapData, Mac, u32>,
    /// What it holds, once that is known.
    there: Option<BTreeSet<Mac>>,
}

impl Macs {
    /// Opens it.
    ///
    /// # Errors
    /// It is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self { map: pins.open_as(maps::MACS, Map::HashMap)?, there: None })
    }

    /// These and no others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&mut self, mut wanted: BTreeSet<Mac>) -> Result<(), DatapathError> {
        if wanted.is_empty() {
            // Nothing has such an address: then nothing can be told by it.
            return Ok(());
        }
        let failed = || DatapathError::kernel(maps::MACS);
        let there = match self.there.take() {
            Some(there) => there,
            None => self.map.keys().collect::<Result<_, _>>().map_err(failed())?,
        };
        // What says that they are complete comes last, and goes if they aren't: then nobody is foreign.
        for mac in wanted.difference(&there) {
            if let Err(e) = self.map.insert(mac, 1, 0) {
                let _ = self.map.remove(&Mac::COMPLETE);
                return Err(failed()(e));
            }
        }
        if !there.contains(&Mac::COMPLETE) {
            self.map.insert(Mac::COMPLETE, 1, 0).map_err(failed())?;
        }
        wanted.insert(Mac::COMPLETE);
        for mac in there.difference(&wanted) {
            self.map.remove(mac).map_err(failed())?;
        }
        self.there = Some(wanted);
        Ok(())
    }
}
