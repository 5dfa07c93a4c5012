//! MAC addresses of hosts on segments of the node's, as the kernel has learnt them.

use std::{io, net::IpAddr};

use futures::StreamExt as _;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    },
};

/// The MAC address of a neighbour; `None`: the kernel doesn't know it now, or there is none.
///
/// # Errors
/// The kernel can't be asked.
pub async fn mac(handle: &Handle, interface: u32, address: IpAddr) -> io::Result<Option<[u8; 6]>> {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(a) => (AddressFamily::Inet, NeighbourAddress::Inet(a)),
        IpAddr::V6(a) => (AddressFamily::Inet6, NeighbourAddress::Inet6(a)),
    };
    message.header.family = family;
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    // Of one, not all of them (Linux 5.0).
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
    question.header.flags = NLM_F_REQUEST;
    let answer = handle.clone().request(question).map_err(io::Error::other)?.next().await;
    let found = match answer.map(|answer| answer.payload) {
        Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(found))) => found,
        // There is no such neighbour.
        Some(NetlinkPayload::Error(e)) if -e.raw_code() == libc::ENOENT => return Ok(None),
        Some(NetlinkPayload::Error(e)) => return Err(e.to_io()),
        _ => return Err(io::Error::other("no answer from netlink")),
    };
    Ok(found.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    }))
}
