//! What netlink says of the node, asked before anybody is kept waiting.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use rtnetlink::Handle as Netlink;

use crate::{
    datapath::{
        DatapathError, addresses,
        interfaces::{self, Interface},
        routes::{self, Hop},
    },
    model::{ForwardKind, ModelError, OwnAddresses, ServiceSpec, SnatSpec},
};

/// The node, at one time.
pub struct Seen {
    /// Its addresses, by interface, in the kernel's order.
    pub addresses: Result<Vec<(u32, IpAddr)>, DatapathError>,
    /// Its interfaces.
    pub interfaces: Result<Vec<Interface>, DatapathError>,
    /// The source addresses of its default routes: IPv4's, IPv6's.
    defaults: [Option<IpAddr>; 2],
}

impl Seen {
    /// Asks.
    pub async fn look(netlink: &Netlink) -> Self {
        Self {
            addresses: addresses::list(netlink).await,
            interfaces: interfaces::list(netlink).await,
            defaults: [
                routes::default_source(netlink, false).await,
                routes::default_source(netlink, true).await,
            ],
        }
    }

    /// The node's own addresses.
    pub fn own(&self) -> OwnAddresses {
        self.addresses.iter().flatten().map(|(_, address)| *address).collect()
    }

    /// Addresses for source NAT: those that are given, and for an IP version of which none is, one of the node's own: the source address of
    /// the default route, or the first of an interface that is attached to.
    pub fn sources(&self, given: &SnatSpec, attached: impl Fn(&str) -> bool) -> SnatSpec {
        let mut due = given.clone();
        let own = self.own();
        let attached: BTreeSet<u32> =
            self.interfaces.iter().flatten().filter(|i| attached(&i.name)).map(|i| i.index).collect();
        for v6 in [false, true] {
            if due.of_family(v6).next().is_some() {
                continue;
            }
            let by_route = self.defaults[usize::from(v6)].filter(|address| own.contains(address));
            let usable =
                |(index, address): &&(u32, IpAddr)| address.is_ipv6() == v6 && attached.contains(index);
            let first = || self.addresses.iter().flatten().find(usable).map(|(_, address)| *address);
            due.addresses.extend(by_route.or_else(first));
        }
        due
    }
}

/// How backends that answer past the node are reached.
#[derive(Debug, Default)]
pub struct Hops(HashMap<IpAddr, Hop>);

impl Hops {
    /// Asks for these.
    pub async fn of(netlink: &Netlink, backends: HashSet<IpAddr>) -> Self {
        let mut hops = HashMap::new();
        for address in backends {
            hops.insert(address, routes::towards(netlink, address).await);
        }
        Self(hops)
    }

    /// Backends that have to be reached without a router on the way.
    pub fn wanted<'a>(services: impl IntoIterator<Item = &'a ServiceSpec>) -> HashSet<IpAddr> {
        let direct = services.into_iter().filter(|service| service.is_direct());
        direct.flat_map(|service| service.backends.values()).map(|backend| backend.address).collect()
    }

    /// Can the backends of a service be reached as it wants them? Of one that wasn't asked for nobody knows.
    ///
    /// # Errors
    /// One can't.
    pub fn check(&self, service: &ServiceSpec) -> Result<(), ModelError> {
        service
            .backends
            .values()
            .try_for_each(|backend| self.check_one(service, backend.address, backend.name()))
    }

    fn check_one(&self, service: &ServiceSpec, address: IpAddr, backend: String) -> Result<(), ModelError> {
        let of_family = service.frontends.iter().filter(|f| f.has_family(address.is_ipv6()));
        let kinds: Vec<ForwardKind> = of_family.flat_map(|f| f.forward.kinds()).collect();
        if !kinds.iter().any(|kind| kind.is_direct()) {
            return Ok(());
        }
        let l2 = kinds.contains(&ForwardKind::DsrL2);
        let service = service.name.clone();
        match self.0.get(&address) {
            Some(Hop::Own) => Err(ModelError::DirectToSelf { service, backend }),
            Some(Hop::Router(router)) if l2 => {
                Err(ModelError::NotOnSegment { service, backend, router: *router })
            }
            // A route may come yet.
            _ => Ok(()),
        }
    }
}
