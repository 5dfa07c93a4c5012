//! Addresses for source NAT, and what the kernel's stack must let pass for their sake.

use std::{net::IpAddr, path::Path};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use lb_common::abi::{Addr as _, Addr4, Addr6, SourceKey, SourcePorts, Sources, maps};

use super::{DatapathError, pin::PinDir};
use crate::model::SnatSpec;

/// The datapath's record of them.
pub struct SourceMaps {
    v4: Array<MapData, Sources<Addr4>>,
    v6: Array<MapData, Sources<Addr6>>,
    taken: TakenPorts,
}

/// Which of their ports are taken, as far as the datapath has noted.
struct TakenPorts {
    v4: HashMap<MapData, SourceKey<Addr4>, SourcePorts>,
    v6: HashMap<MapData, SourceKey<Addr6>, SourcePorts>,
}

impl TakenPorts {
    /// Opens the maps.
    ///
    /// # Errors
    /// One is missing or of another kind.
    fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self {
            v4: pins.open_as(maps::SOURCE_PORTS4, Map::HashMap)?,
            v6: pins.open_as(maps::SOURCE_PORTS6, Map::HashMap)?,
        })
    }

    /// Removes the bitmaps in which no port is taken, or all of them (`all`). A port that is taken at this very instant is forgotten, and only found
    /// to be taken when it is tried.
    ///
    /// # Errors
    /// The kernel refuses.
    fn clear(&mut self, all: bool) -> Result<(), DatapathError> {
        clear(&mut self.v4, all).map_err(DatapathError::kernel(maps::SOURCE_PORTS4))?;
        clear(&mut self.v6, all).map_err(DatapathError::kernel(maps::SOURCE_PORTS6))
    }
}

fn clear<K: Pod>(map: &mut HashMap<MapData, K, SourcePorts>, all: bool) -> Result<(), MapError> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        match map.get(&key, 0) {
            Ok(ports) if !all && ports.taken.iter().any(|word| *word != 0) => {}
            Ok(_) => map.remove(&key)?,
            Err(MapError::KeyNotFound) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl SourceMaps {
    /// Opens them.
    ///
    /// # Errors
    /// One is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self {
            v4: pins.open_as(maps::SOURCES4, Map::Array)?,
            v6: pins.open_as(maps::SOURCES6, Map::Array)?,
            taken: TakenPorts::open(pins)?,
        })
    }

    /// The addresses that the datapath gives to flows now.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn current(&self) -> Result<Vec<IpAddr>, DatapathError> {
        let v4 = self.v4.get(&0, 0).map_err(DatapathError::kernel(maps::SOURCES4))?;
        let v6 = self.v6.get(&0, 0).map_err(DatapathError::kernel(maps::SOURCES6))?;
        let v4 = v4.addr.iter().take(v4.count as usize).map(|a| a.to_ip());
        let v6 = v6.addr.iter().take(v6.count as usize).map(|a| a.to_ip());
        Ok(v4.chain(v6).collect())
    }

    /// Removes the bitmaps in which no port is taken.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn collect(&mut self) -> Result<(), DatapathError> {
        self.taken.clear(false)
    }

    /// Tells the datapath. Flows that have an address keep it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&mut self, spec: &SnatSpec) -> Result<(), DatapathError> {
        let v4 = spec.addresses.iter().filter_map(|a| match a {
            IpAddr::V4(a) => Some(Addr4::from(*a)),
            IpAddr::V6(_) => None,
        });
        let v6 = spec.addresses.iter().filter_map(|a| match a {
            IpAddr::V6(a) => Some(Addr6::from(*a)),
            IpAddr::V4(_) => None,
        });
        let (first, last) = (*spec.ports.start(), *spec.ports.end());
        let ports = last - first + 1;
        let (v4, v6) = (Sources::new(first, ports, v4), Sources::new(first, ports, v6));
        let before = self.v4.get(&0, 0).map_err(DatapathError::kernel(maps::SOURCES4))?;
        self.v4.set(0, v4, 0).map_err(DatapathError::kernel(maps::SOURCES4))?;
        self.v6.set(0, v6, 0).map_err(DatapathError::kernel(maps::SOURCES6))?;
        // A bit stands for a port of the range that there was.
        if (before.first, before.ports) != (v4.first, v4.ports) { self.taken.clear(true) } else { Ok(()) }
    }
}

/// Lets the stack forward packets that come in by this interface and by now have an address of the node's as their source: IPv4 takes those for
/// forged otherwise (`fib_validate_source` in net/ipv4/fib_frontend.c). IPv6 doesn't look.
///
/// # Errors
/// The file can't be written.
pub fn accept_local(interface: &str) -> Result<(), DatapathError> {
    // In a container /proc/sys is read-only; the machine's is mounted somewhere else, and the environment says where.
    let net = std::env::var_os("FLOWPIN_SYSCTL_NET").unwrap_or_else(|| "/proc/sys/net".into());
    let path = Path::new(&net).join("ipv4/conf").join(interface).join("accept_local");
    if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
        return Ok(());
    }
    std::fs::write(&path, "1").map_err(DatapathError::io(path.display().to_string()))
}
