//! The bits of what may be a service's: set before a service's port can be found, cleared when no port needs them any more.

use std::{collections::HashMap, net::IpAddr};

use aya::maps::{Array, MapData, MapError};
use lb_common::{
    abi::{Addr4, Addr6, PortBe, Proto},
    filter::{WORDS, bit},
};

/// The map, and how many ports need which bit. Ports that are added twice must be removed twice.
pub struct Filter {
    map: Array<MapData, u64>,
    words: Vec<u64>,
    users: HashMap<(u32, u32), u32>,
}

fn of(vip: IpAddr, port: PortBe, proto: Proto) -> (u32, u32) {
    match vip {
        IpAddr::V4(vip) => bit(Addr4::from(vip), port, proto),
        IpAddr::V6(vip) => bit(Addr6::from(vip), port, proto),
    }
}

impl Filter {
    /// Over the map; nothing is known of the ports yet, and nothing written.
    pub fn over(map: Array<MapData, u64>) -> Self {
        Self { map, words: vec![0; WORDS], users: HashMap::new() }
    }

    /// Makes the map say that there are these ports, whatever it said before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rebuild(&mut self, ports: impl Iterator<Item = (IpAddr, PortBe, Proto)>) -> Result<(), MapError> {
        self.users.clear();
        self.words.fill(0);
        for (vip, port, proto) in ports {
            let (word, bit) = of(vip, port, proto);
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
    pub fn add(&mut self, vip: IpAddr, port: PortBe, proto: Proto) -> Result<(), MapError> {
        let (word, bit) = of(vip, port, proto);
        let users = self.users.entry((word, bit)).or_default();
        *users += 1;
        if *users > 1 {
            return Ok(());
        }
        self.write(word, |value| value | 1 << bit)
    }

    /// A port is no longer there.
    ///
    /// # Errors
    /// The kernel refuses; the bit stays, which does no harm.
    pub fn remove(&mut self, vip: IpAddr, port: PortBe, proto: Proto) -> Result<(), MapError> {
        let (word, bit) = of(vip, port, proto);
        let Some(users) = self.users.get_mut(&(word, bit)) else { return Ok(()) };
        *users -= 1;
        if *users > 0 {
            return Ok(());
        }
        self.users.remove(&(word, bit));
        self.write(word, |value| value & !(1 << bit))
    }

    fn write(&mut self, word: u32, change: impl Fn(u64) -> u64) -> Result<(), MapError> {
        let Some(value) = self.words.get_mut(word as usize) else { return Ok(()) };
        *value = change(*value);
        self.map.set(word, *value, 0)
    }
}
