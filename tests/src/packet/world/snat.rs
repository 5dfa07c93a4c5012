//! Source NAT.

use std::net::IpAddr;

use anyhow::Result;
use lb_common::abi::Sources;

use super::{World, empty};

impl World {
    /// Gives the node addresses to put in place of clients', of one family, with so many ports each from `first` on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_sources(&mut self, addresses: &[IpAddr], first: u16, ports: u16) -> Result<()> {
        let four =
            addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some((*a).into()) } else { None });
        let six =
            addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some((*a).into()) } else { None });
        self.sources4.set(0, Sources::new(first, ports, four), 0)?;
        Ok(self.sources6.set(0, Sources::new(first, ports, six), 0)?)
    }

    /// Forgets which ports are taken.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_ports(&mut self) -> Result<()> {
        empty(&mut self.ports4)?;
        empty(&mut self.ports6)
    }

    /// Ports of the node's addresses that are noted as taken.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn ports_taken(&self) -> Result<u32> {
        let v4 = self.ports4.iter().map(|ports| ports.map(|(_, ports)| ports));
        let v6 = self.ports6.iter().map(|ports| ports.map(|(_, ports)| ports));
        v4.chain(v6).map(|ports| Ok(ports?.taken.iter().map(|word| word.count_ones()).sum::<u32>())).sum()
    }
}
