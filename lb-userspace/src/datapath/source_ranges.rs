//! Who may open flows of services that aren't everybody's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::{LpmTrie, Map, MapData, lpm_trie::Key};
use ipnet::IpNet;
use lb_common::abi::{Addr4, Addr6, Client, maps};

use super::{DatapathError, maps::gone, pin::PinDir};

/// The tries of both families.
pub struct SourceTries {
    v4: LpmTrie<MapData, Client<Addr4>, u32>,
    v6: LpmTrie<MapData, Client<Addr6>, u32>,
}

impl SourceTries {
    /// Opens them.
    ///
    /// # Errors
    /// One is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self {
            v4: pins.open_as(maps::SOURCE_RANGES4, Map::LpmTrie)?,
            v6: pins.open_as(maps::SOURCE_RANGES6, Map::LpmTrie)?,
        })
    }

    /// Says whether entries with this number of source ranges take flows of clients with this prefix.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set(&mut self, ranges: u32, prefix: IpNet, admitted: bool) -> Result<(), DatapathError> {
        let bits = u32::from(prefix.prefix_len());
        match prefix.network() {
            IpAddr::V4(addr) => {
                let key = Key::new(
                    Client::<Addr4>::bits(bits),
                    Client { service: ranges, addr: Addr4::from(addr) },
                );
                change(&mut self.v4, &key, admitted, maps::SOURCE_RANGES4)
            }
            IpAddr::V6(addr) => {
                let key = Key::new(
                    Client::<Addr6>::bits(bits),
                    Client { service: ranges, addr: Addr6::from(addr) },
                );
                change(&mut self.v6, &key, admitted, maps::SOURCE_RANGES6)
            }
        }
    }

    /// All that is there, by number.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&self) -> Result<Vec<(u32, IpNet)>, DatapathError> {
        let mut found = Vec::new();
        for key in self.v4.keys() {
            let key = key.map_err(DatapathError::kernel(maps::SOURCE_RANGES4))?;
            let Client { service: ranges, addr } = key.data();
            found.extend(net(ranges, Ipv4Addr::from(addr).into(), key.prefix_len()));
        }
        for key in self.v6.keys() {
            let key = key.map_err(DatapathError::kernel(maps::SOURCE_RANGES6))?;
            let Client { service: ranges, addr } = key.data();
            found.extend(net(ranges, Ipv6Addr::from(addr).into(), key.prefix_len()));
        }
        Ok(found)
    }
}

fn net(ranges: u32, address: IpAddr, bits: u32) -> Option<(u32, IpNet)> {
    let length = u8::try_from(bits.checked_sub(Client::<Addr4>::bits(0))?).ok()?;
    Some((ranges, IpNet::new(address, length).ok()?))
}

fn change<A>(
    trie: &mut LpmTrie<MapData, Client<A>, u32>,
    key: &Key<Client<A>>,
    admitted: bool,
    name: &'static str,
) -> Result<(), DatapathError>
where
    Client<A>: aya::Pod,
{
    if admitted {
        trie.insert(key, 1, 0).map_err(DatapathError::kernel(name))
    } else {
        gone(trie.remove(key), name).map(drop)
    }
}
