//! How the node would reach an address, by its routes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt;
use rtnetlink::{
    Error, Handle,
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

/// Why no way to an address is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// There is none.
    #[error("no route to {0} leads to another host")]
    None(IpAddr),
    /// The route is of a kind by which nothing reaches another host; such as that to the node's own address.
    #[error("the route to {address} is of the kind {kind:?}, and leads to no other host")]
    Kind {
        /// The address.
        address: IpAddr,
        /// The route's kind.
        kind: RouteType,
    },
    /// The kernel doesn't say.
    #[error("the kernel doesn't say which way {address} is: {why}")]
    Unknown {
        /// The address.
        address: IpAddr,
        /// What it says instead.
        why: String,
    },
}

impl NoWay {
    fn of(address: IpAddr, error: &Error) -> Self {
        match error {
            Error::NetlinkError(e) if matches!(-e.raw_code(), libc::ENETUNREACH | libc::EHOSTUNREACH) => {
                Self::None(address)
            }
            _ => Self::Unknown { address, why: error.to_string() },
        }
    }
}

/// The way to an address.
///
/// # Errors
/// There is none, it is the node's own, or the kernel doesn't say.
pub async fn way(handle: &Handle, address: IpAddr) -> Result<Way, NoWay> {
    let route = get(handle, address).await.map_err(|error| NoWay::of(address, &error))?;
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Unreachable | RouteType::BlackHole | RouteType::Prohibit => {
            return Err(NoWay::None(address));
        }
        kind => return Err(NoWay::Kind { address, kind }),
    }
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
    let Some(interface) = interface else {
        return Err(NoWay::Unknown { address, why: "its route has no interface".into() });
    };
    Ok(Way { interface, router, source: source(&route) })
}

/// Index of the interface by which packets to an address leave; `None`: as far as is known they don't.
pub async fn interface(handle: &Handle, address: IpAddr) -> Option<u32> {
    way(handle, address).await.ok().map(|way| way.interface)
}

/// The route that the kernel takes towards an address. Some refusals are its word for "no route".
async fn get(handle: &Handle, address: IpAddr) -> Result<RouteMessage, Error> {
    ask(handle, address, RouteFlags::empty()).await
}

async fn ask(handle: &Handle, address: IpAddr, flags: RouteFlags) -> Result<RouteMessage, Error> {
    let mut message = RouteMessage::default();
    message.header.flags = flags;
    let (family, length, destination) = match address {
        IpAddr::V4(a) => (AddressFamily::Inet, 32, RouteAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(a)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(destination));
    handle.route().get(message).execute().try_next().await?.ok_or(Error::RequestFailed)
}

/// The next hop towards an address.
pub async fn towards(handle: &Handle, address: IpAddr) -> Hop {
    let Ok(route) = get(handle, address).await else { return Hop::Unknown };
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
    let route = route.ok().filter(|route| route.header.kind == RouteType::Unicast);
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
    let route = get(handle, far(v6)).await.ok().filter(|route| route.header.kind == RouteType::Unicast)?;
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use netlink_packet_core::ErrorMessage;

    use super::*;

    #[test]
    fn only_the_kernels_word_for_it_means_that_there_is_no_route() {
        let address = "192.0.2.1".parse().unwrap();
        let refusal = |code: i32| {
            let mut message = ErrorMessage::default();
            message.code = NonZeroI32::new(-code);
            NoWay::of(address, &Error::NetlinkError(message))
        };
        for code in [libc::ENETUNREACH, libc::EHOSTUNREACH] {
            assert_eq!(refusal(code), NoWay::None(address));
        }
        for code in [libc::EPERM, libc::ENOBUFS, libc::EINVAL] {
            assert!(matches!(refusal(code), NoWay::Unknown { .. }), "{code}");
        }
        assert!(matches!(NoWay::of(address, &Error::RequestFailed), NoWay::Unknown { .. }));
    }
}
