//! The bits of what may be a service's or a flow's: set before anything can be found that needs them, cleared when nothing needs them any more. What they
//! are: `lb_common::filter`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use aya::maps::{Array, MapData, MapError};
use lb_common::{
    abi::{Addr4, Addr6, BackendId, PortBe, Proto},
    filter::{self, WORDS},
};

/// A word, and a bit of it.
type Bit = (u32, u32);

/// The map, and how many need which bit. Ports that are added twice must be removed twice.
pub struct Filter {
    map: Array<MapData, u64>,
    words: Vec<u64>,
    users: HashMap<Bit, u32>,
    backends: BTreeMap<BackendId, Bit>,
}

fn of_port((vip, port, proto): (IpAddr, PortBe, Proto)) -> Bit {
    match vip {
        IpAddr::V4(vip) => filter::bit(Addr4::from(vip), port, proto),
        IpAddr::V6(vip) => filter::bit(Addr6::from(vip), port, proto),
    }
}

fn of_destination(address: IpAddr) -> Bit {
    match address {
        IpAddr::V4(address) => filter::destination(Addr4::from(address)),
        IpAddr::V6(address) => filter::destination(Addr6::from(address)),
    }
}

fn of_backend(address: IpAddr) -> Bit {
    match address {
        IpAddr::V4(address) => filter::backend(Addr4::from(address)),
        IpAddr::V6(address) => filter::backend(Addr6::from(address)),
    }
}

/// All that the map is to know of.
#[derive(Default)]
pub struct Known {
    /// Ports of frontends.
    pub ports: Vec<(IpAddr, PortBe, Proto)>,
    /// Addresses that packets of flows are sent to: VIPs, and addresses for source NAT.
    pub destinations: Vec<IpAddr>,
    /// Backends that flows may be pinned to.
    pub backends: Vec<(BackendId, IpAddr)>,
}

impl Filter {
    /// Over the map; nothing is known yet, and nothing written.
    pub fn over(map: Array<MapData, u64>) -> Self {
        Self { map, words: vec![0; WORDS], users: HashMap::new(), backends: BTreeMap::new() }
    }

    /// Makes the map say this, whatever it said before. No bit is ever missing meanwhile that is needed before and after.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rebuild(&mut self, known: Known) -> Result<(), MapError> {
        self.users.clear();
        self.words.fill(0);
        self.backends = known.backends.into_iter().map(|(id, address)| (id, of_backend(address))).collect();
        let destinations = known.destinations.into_iter().map(of_destination);
        let bits = known.ports.into_iter().map(of_port).chain(destinations);
        for (word, bit) in bits.chain(self.backends.values().copied()) {
            *self.users.entry((word, bit)).or_default() += 1;
            if let Some(value) = self.words.get_mut(word as usize) {
                *value |= 1 << bit;
            }
        }
        for (index, value) in (0..).zip(&self.words) {
            if self.map.get(&index, 0)? != *value {
                self.map.set(index, value, 0)?;
            }
        }
        Ok(())
    }

    /// A port is about to be there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_port(&mut self, vip: IpAddr, port: PortBe, proto: Proto) -> Result<(), MapError> {
        self.add(of_port((vip, port, proto)))
    }

    /// A port is no longer there.
    ///
    /// # Errors
    /// The kernel refuses; the bit stays, which does no harm.
    pub fn remove_port(&mut self, vip: IpAddr, port: PortBe, proto: Proto) -> Result<(), MapError> {
        self.remove(of_port((vip, port, proto)))
    }

    /// Packets of flows are about to be sent to this address. It stays: flows outlive what is declared.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_destination(&mut self, address: IpAddr) -> Result<(), MapError> {
        let bit = of_destination(address);
        if self.users.contains_key(&bit) { Ok(()) } else { self.add(bit) }
    }

    /// An id is about to be a backend's there; `None`: it is nobody's any more, and no flow is pinned to it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_backend(&mut self, id: BackendId, address: Option<IpAddr>) -> Result<(), MapError> {
        let new = address.map(of_backend);
        let old = self.backends.get(&id).copied();
        if old == new {
            return Ok(());
        }
        match new {
            Some(bit) => {
                self.add(bit)?;
                self.backends.insert(id, bit);
            }
            None => drop(self.backends.remove(&id)),
        }
        old.map_or(Ok(()), |bit| self.remove(bit))
    }

    fn add(&mut self, (word, bit): Bit) -> Result<(), MapError> {
        let users = self.users.get(&(word, bit)).copied().unwrap_or(0);
        if users == 0 {
            self.write(word, |value| value | 1 << bit)?;
        }
        self.users.insert((word, bit), users + 1);
        Ok(())
    }

    fn remove(&mut self, (word, bit): Bit) -> Result<(), MapError> {
        let Some(users) = self.users.get_mut(&(word, bit)) else { return Ok(()) };
        *users -= 1;
        if *users > 0 {
            return Ok(());
        }
        self.users.remove(&(word, bit));
        self.write(word, |value| value & !(1 << bit))
    }

    /// What the kernel doesn't take isn't noted.
    fn write(&mut self, word: u32, change: impl Fn(u64) -> u64) -> Result<(), MapError> {
        let Some(value) = self.words.get_mut(word as usize) else { return Ok(()) };
        let changed = change(*value);
        self.map.set(word, changed, 0)?;
        *value = changed;
        Ok(())
    }
}
