//! Addresses for source NAT: those that are given, and for an IP version of which none is, one of the node's own.

use std::{collections::BTreeSet, net::IpAddr};

use super::Owner;
use crate::{
    datapath::{DatapathError, interfaces, routes},
    model::{OwnAddresses, SnatSpec},
};

impl Owner {
    /// Brings into force what is due now; flows keep what they have. `found`: the node's addresses, by interface, in
    /// the kernel's order.
    pub(super) async fn follow_sources(&mut self, found: &[(u32, IpAddr)]) -> Result<(), DatapathError> {
        let mut due = self.config.snat.clone();
        for v6 in [false, true] {
            if due.of_family(v6).next().is_none() {
                due.addresses.extend(self.default_source(found, v6).await);
            }
        }
        if self.shared.read().sources.as_ref() == Some(&due) {
            return Ok(());
        }
        for address in &due.addresses {
            self.maps.add_destination(*address)?;
        }
        self.sources.set(&due)?;
        let SnatSpec { addresses, ports } = &due;
        tracing::info!(?addresses, ?ports, "addresses for source NAT");
        self.shared.write().sources = Some(due);
        Ok(())
    }

    /// The source address of the default route; without one, the first of an interface that is attached to.
    async fn default_source(&self, found: &[(u32, IpAddr)], v6: bool) -> Option<IpAddr> {
        let own: OwnAddresses = found.iter().map(|(_, address)| *address).collect();
        let by_route = routes::default_source(&self.netlink, v6).await;
        if let Some(address) = by_route.filter(|address| own.contains(address)) {
            return Some(address);
        }
        let here = interfaces::list(&self.netlink).await.ok()?;
        let attached: BTreeSet<u32> =
            here.iter().filter(|i| self.rule(&i.name).is_some()).map(|i| i.index).collect();
        let usable = |(index, address): &&(u32, IpAddr)| address.is_ipv6() == v6 && attached.contains(index);
        found.iter().find(usable).map(|(_, address)| *address)
    }
}
