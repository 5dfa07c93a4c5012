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
    source::{Config, InterfaceRule, Role},
};

/// The node, at one time.
pub struct Seen {
    /// Its addresses, by interface, in the kernel's order.
    pub addresses: Result<Vec<(u32, IpAddr)>, DatapathError>,
    /// Its interfaces.
    pub interfaces: Result<Vec<Interface>, DatapathError>,
    /// The source addresses of its default routes: IPv4's, IPv6's.
    defaults: [Option<IpAddr>; 2],
    /// Indexes of the interfaces that they lead out by.
    uplinks: BTreeSet<u32>,
}

impl Seen {
    /// Asks.
    pub async fn look(netlink: &Netlink) -> Self {
        let mut uplinks = routes::default_interfaces(netlink, false).await;
        uplinks.extend(routes::default_interfaces(netlink, true).await);
        let mut seen = Self {
            uplinks,
            addresses: addresses::list(netlink).await,
            interfaces: interfaces::list(netlink).await,
            defaults: [
                routes::default_source(netlink, false).await,
                routes::default_source(netlink, true).await,
            ],
        };
        // What isn't the whole of it must not be taken for all there is.
        if let Err(e) = interfaces::answers(netlink).await {
            seen.addresses = seen.addresses.and_then(|_| Err(interfaces::failed(&e)));
            seen.interfaces = Err(e);
        }
        seen
    }

    /// The node's own addresses.
    pub fn own(&self) -> OwnAddresses {
        self.addresses.iter().flatten().map(|(_, address)| *address).collect()
    }

    /// Interfaces and the rules for them: those first by which the node is reached, which most clients wait for.
    pub fn ruled<'a>(
        &'a self,
        config: &'a Config,
    ) -> impl Iterator<Item = (&'a Interface, &'a InterfaceRule)> {
        let rule = |i: &'a Interface| Some((i, config.rule(&i.name, found(i, &self.uplinks))?));
        let of = move |uplink: bool| {
            let all = self.interfaces.iter().flatten();
            all.filter(move |i| self.uplinks.contains(&i.index) == uplink)
        };
        of(true).chain(of(false)).filter_map(rule)
    }

    /// Interfaces that clients are likely to come by: those of default routes, or all if there is no such route.
    pub fn likely(&self) -> Vec<&str> {
        let fit = self.interfaces.iter().flatten().filter(|i| i.unfit.is_none());
        let (by_route, others): (Vec<&Interface>, Vec<_>) =
            fit.partition(|i| self.uplinks.contains(&i.index));
        let likely = if by_route.is_empty() { others } else { by_route };
        likely.into_iter().map(|i| i.name.as_str()).collect()
    }

    /// Addresses for source NAT: those that are given, and for an IP version of which none is, one of the node's own: the source address of
    /// the default route, or the first of an interface that is attached to.
    pub fn sources(&self, config: &Config) -> SnatSpec {
        let mut due = config.snat.clone();
        let own = self.own();
        let attached: BTreeSet<u32> = self.ruled(config).map(|(interface, _)| interface.index).collect();
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

/// What an interface is found to be: those of default routes lead to the rest of the network, as do tunnels to other nodes; the ends of veths
/// whose other end is in a network namespace are pods'. A bridge isn't attached to besides its ports, nor a port besides its bridge: answers
/// from one port to another go past the bridge's own stack.
fn found(interface: &Interface, uplinks: &BTreeSet<u32>) -> Option<Role> {
    if interface.unfit.is_some() {
        return None;
    }
    if uplinks.contains(&interface.index) {
        return Some(Role::Uplink);
    }
    if interface.above.is_some_and(|above| uplinks.contains(&above)) {
        return None;
    }
    match (interface.tunnel, interface.leads_out) {
        (true, _) => Some(Role::Uplink),
        (_, true) => Some(Role::Pod),
        _ => None,
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
        if kinds.contains(&ForwardKind::DsrIpip) && !crate::datapath::features::knows_source_of_routes() {
            return Err(ModelError::OldKernel { service });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32) -> Interface {
        Interface {
            mac: None,
            index,
            name: format!("i{index}"),
            unfit: None,
            partial_checksums: false,
            veth: false,
            leads_out: false,
            tunnel: false,
            above: None,
            xdp: None,
        }
    }

    fn veth(index: u32) -> Interface {
        Interface { leads_out: true, ..interface(index) }
    }

    #[test]
    fn the_uplink_comes_first() {
        let seen = Seen {
            addresses: Ok(Vec::new()),
            interfaces: Ok([4, 7, 2, 5].map(interface).into()),
            defaults: [None; 2],
            uplinks: BTreeSet::from([2]),
        };
        let config = crate::source::config::parse("[[interface]]\nmatch = \"i*\"\nattach = \"tc\"\n", "test")
            .expect("a config");
        let order: Vec<u32> = seen.ruled(&config).map(|(interface, _)| interface.index).collect();
        assert_eq!(order, [2, 4, 7, 5]);
    }

    #[test]
    fn interfaces_are_found_by_what_they_are() {
        let uplinks = BTreeSet::from([2, 9]);
        let is = |interface: &Interface| found(interface, &uplinks);
        // A node's own network may begin at a veth, or at a bridge.
        assert_eq!(is(&interface(2)), Some(Role::Uplink));
        assert_eq!(is(&veth(2)), Some(Role::Uplink));
        assert_eq!(is(&veth(3)), Some(Role::Pod));
        assert_eq!(
            is(&Interface { above: Some(4), ..veth(3) }),
            Some(Role::Pod),
            "a port of the plugin's bridge"
        );
        assert_eq!(is(&Interface { above: Some(9), ..veth(3) }), None, "a port of the uplink's bridge");
        assert_eq!(is(&Interface { above: Some(9), ..interface(5) }), None, "a link of the uplink's bond");
        assert_eq!(is(&Interface { tunnel: true, ..interface(6) }), Some(Role::Uplink));
        // Loopback, a plugin's bridge, a second device, a dummy.
        assert_eq!(is(&interface(1)), None);
        assert_eq!(is(&Interface { unfit: Some("no frames"), ..interface(2) }), None);
    }
}
