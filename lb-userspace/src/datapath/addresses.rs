//! The node's own addresses, by netlink.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::address::{AddressAttribute, AddressMessage, AddressScope},
};

use super::{DatapathError, interfaces::failed};
use crate::model::OwnAddresses;

/// All of this network namespace that others can send packets to: neither loopback's nor of a link's scope.
///
/// # Errors
/// Netlink refuses.
pub async fn list(handle: &Handle) -> Result<OwnAddresses, DatapathError> {
    let mut found = OwnAddresses::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await.map_err(failed)? {
        found.extend(address(&message));
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
