//! MAC addresses of hosts on segments of the node's, as the kernel has learnt them.

use std::net::IpAddr;

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
pub async fn mac(handle: &Handle, interface: u32, address: IpAddr) -> Option<[u8; 6]> {
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
    let answer = handle.clone().request(question).ok()?.next().await?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(found)) = answer.payload else {
        return None;
    };
    found.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}
