//! The node's own addresses, by netlink.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::address::{AddressAttribute, AddressMessage, AddressScope},
};

use super::{DatapathError, interfaces::failed};

/// All of this network namespace that others can send packets to: neither loopback's nor of a link's scope. With the
/// index of the interface that each is on, in the kernel's order.
///
/// # Errors
/// Netlink refuses.
pub async fn list(handle: &Handle) -> Result<Vec<(u32, IpAddr)>, DatapathError> {
    let mut found = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await.map_err(failed)? {
        found.extend(address(&message).map(|address| (message.header.index, address)));
    }
    Ok(found)
}

fn address(message: &AddressMessage) -> Option<IpAddr> {
    if !matches!(message.header.scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    // Of a link between two, `Address` is the other end.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    own.or_else(any).filter(|address| !address.is_loopback())
}
