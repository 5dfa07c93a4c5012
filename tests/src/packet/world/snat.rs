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
        let (mut four, mut six) = (Sources::default(), Sources::default());
        (four.first, four.ports) = (first, ports);
        (six.first, six.ports) = (first, ports);
        for address in addresses {
            match address {
                IpAddr::V4(a) => {
                    four.addr[four.count as usize] = (*a).into();
                    four.count += 1;
                }
                IpAddr::V6(a) => {
                    six.addr[six.count as usize] = (*a).into();
                    six.count += 1;
                }
            }
        }
        self.sources4.set(0, four, 0)?;
        Ok(self.sources6.set(0, six, 0)?)
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
        let mut count = 0;
        for ports in self.ports4.iter() {
            count += ports?.1.taken.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        for ports in self.ports6.iter() {
            count += ports?.1.taken.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        Ok(count)
    }
}
