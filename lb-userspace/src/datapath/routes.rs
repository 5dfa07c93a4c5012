//! How the node would reach an address, by its routes.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
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

/// Index of the interface by which packets to an address leave; `None`: it is the node's own, or there is no way.
pub async fn interface(handle: &Handle, address: IpAddr) -> Option<u32> {
    let route = get(handle, address).await.filter(|route| route.header.kind == RouteType::Unicast)?;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// The route that the kernel takes towards an address. A refusal is its word for "no route".
async fn get(handle: &Handle, address: IpAddr) -> Option<RouteMessage> {
    let mut message = RouteMessage::default();
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
