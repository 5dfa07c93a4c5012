//! The affinity table, read entry by entry: it is a hash map of the kernel's.

use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData};
use lb_common::{
    abi::{Addr, Addr4, Addr6, AffinityEntry, AffinityKey, maps},
    affinity::{Binding, key},
};

use super::{DatapathError, pin::PinDir};

/// The table.
pub struct Clients {
    map: HashMap<MapData, AffinityKey, AffinityEntry>,
    capacity: u32,
}

impl Clients {
    /// Opens it by its pin.
    ///
    /// # Errors
    /// It is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        let failed = || DatapathError::kernel(maps::AFFINITY);
        let data = pins.data(maps::AFFINITY)?;
        let capacity = data.info().map_err(failed())?.max_entries();
        Ok(Self { map: Map::HashMap(data).try_into().map_err(failed())?, capacity })
    }

    /// Clients that it has room for.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Every entry. Those that come or go meanwhile may or may not be among them, or twice.
    pub fn entries(&self) -> impl Iterator<Item = (AffinityKey, AffinityEntry)> {
        self.map.iter().filter_map(Result::ok)
    }

    /// What is known of a client in a group, of whose address the first `bits` count; and when it was last stamped.
    pub fn get(&self, group: u64, client: IpAddr, bits: u32) -> Option<(Binding, u32)> {
        let entry = self.map.get(&key(group, wide(client), bits), 0).ok()?;
        Some((Binding(entry.binding), entry.last)).filter(|(binding, _)| binding.home().0 != 0)
    }
}

/// An address as two numbers.
pub fn wide(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(a) => Addr4::from(a).wide(),
        IpAddr::V6(a) => Addr6::from(a).wide(),
    }
}
