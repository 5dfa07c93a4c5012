//! How the node would reach an address, by its routes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia},
    },
};

/// The next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The address is the node's own.
    Own,
    /// It is on a segment of the node's.
    Segment,
    /// It is behind this router.
    Router(IpAddr),
    /// There is no way, as far as the kernel says.
    Unknown,
}

/// How packets get to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface by which they leave.
    pub interface: u32,
    /// The router that they are given to; `None`: the address is on a segment of the node's.
    pub router: Option<IpAddr>,
    /// The node's address that they are from.
    pub source: Option<IpAddr>,
}

/// The way to an address; `None`: it is the node's own, or there is no way.
pub async fn way(handle: &Handle, address: IpAddr) -> Option<Way> {
    let route = get(handle, address).await.filter(|route| route.header.kind == RouteType::Unicast)?;
    let (mut interface, mut router) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(a)) => router = Some(IpAddr::V4(*a)),
            RouteAttribute::Gateway(RouteAddress::Inet6(a)) => router = Some(IpAddr::V6(*a)),
            RouteAttribute::Via(RouteVia::Inet(a)) => router = Some(IpAddr::V4(*a)),
            RouteAttribute::Via(RouteVia::Inet6(a)) => router = Some(IpAddr::V6(*a)),
            _ => {}
        }
    }
    Some(Way { interface: interface?, router, source: source(&route) })
}

/// Index of the interface by which packets to an address leave; `None`: it is the node's own, or there is no way.
pub async fn interface(handle: &Handle, address: IpAddr) -> Option<u32> {
    way(handle, address).await.map(|way| way.interface)
}

/// The route that the kernel takes towards an address. A refusal is its word for "no route".
async fn get(handle: &Handle, address: IpAddr) -> Option<RouteMessage> {
    ask(handle, address, RouteFlags::empty()).await
}

async fn ask(handle: &Handle, address: IpAddr, flags: RouteFlags) -> Option<RouteMessage> {
    let mut message = RouteMessage::default();
    message.header.flags = flags;
    let (family, length, destination) = match address {
        IpAddr::V4(a) => (AddressFamily::Inet, 32, RouteAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(a)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(destination));
    handle.route().get(message).execute().try_next().await.ok().flatten()
}

/// The next hop towards an address.
pub async fn towards(handle: &Handle, address: IpAddr) -> Hop {
    let Some(route) = get(handle, address).await else { return Hop::Unknown };
    match route.header.kind {
        RouteType::Local => return Hop::Own,
        RouteType::Unicast => {}
        _ => return Hop::Unknown,
    }
    let router = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        RouteAttribute::Gateway(RouteAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    });
    router.map_or(Hop::Segment, Hop::Router)
}

/// An address to which nothing more specific than the default route leads: of RFC 3068's anycast prefix, withdrawn by RFC 7526, and of no
/// assigned block.
const fn far(v6: bool) -> IpAddr {
    match v6 {
        false => IpAddr::V4(Ipv4Addr::new(192, 88, 99, 1)),
        true => IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// Indexes of the interfaces that the default route of an IP version leads out by, all of them if it has several next hops.
pub async fn default_interfaces(handle: &Handle, v6: bool) -> BTreeSet<u32> {
    // The route as it was added, not the one next hop that was taken for this address (Linux 4.13).
    let route = ask(handle, far(v6), RouteFlags::FibMatch).await;
    let route = route.filter(|route| route.header.kind == RouteType::Unicast);
    let mut found = BTreeSet::new();
    for attribute in route.iter().flat_map(|route| &route.attributes) {
        match attribute {
            RouteAttribute::Oif(index) => drop(found.insert(*index)),
            RouteAttribute::MultiPath(hops) => found.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    found
}

/// The node's address that packets have which go out by the default route. `None`: there is no such route.
pub async fn default_source(handle: &Handle, v6: bool) -> Option<IpAddr> {
    let route = get(handle, far(v6)).await.filter(|route| route.header.kind == RouteType::Unicast)?;
    source(&route)
}

/// The node's address that a route gives to packets.
fn source(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    })
}
