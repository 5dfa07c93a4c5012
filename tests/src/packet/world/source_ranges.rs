//! Who may open flows.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::abi::{Client, ServiceId};

use super::{Key, World};

impl World {
    /// Says whether a service takes flows of clients whose address begins with so many bits of this one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn admit(&mut self, service: ServiceId, address: IpAddr, bits: u32, admitted: bool) -> Result<()> {
        match address {
            IpAddr::V4(addr) => {
                let key = Key::new(Client::<()>::bits(bits), Client { service, addr: addr.into() });
                if admitted { self.admitted4.insert(&key, 1, 0)? } else { self.admitted4.remove(&key)? }
            }
            IpAddr::V6(addr) => {
                let key = Key::new(Client::<()>::bits(bits), Client { service, addr: addr.into() });
                if admitted { self.admitted6.insert(&key, 1, 0)? } else { self.admitted6.remove(&key)? }
            }
        }
        Ok(())
    }

    /// Empties the tries.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn admit_nobody(&mut self) -> Result<()> {
        let keys: Vec<_> = self.admitted4.keys().collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| self.admitted4.remove(key))?;
        let keys: Vec<_> = self.admitted6.keys().collect::<Result<_, _>>()?;
        Ok(keys.iter().try_for_each(|key| self.admitted6.remove(key))?)
    }
}
