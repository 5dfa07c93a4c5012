//! Which interfaces there are, and word of each change of them and of their addresses, by netlink.

use futures::{StreamExt, TryStreamExt};
use lb_common::abi::Mac;
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
};
use tokio::sync::mpsc;

use super::DatapathError;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Kernel's index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Its MAC address, if it has one.
    pub mac: Option<Mac>,
    /// Why no program can balance what comes by it, and what to do; `None`: one can.
    pub unfit: Option<&'static str>,
    /// May its packets come with partial checksums (veth, tun, tap: the sender is a stack on this machine)?
    pub partial_checksums: bool,
    /// Is it a veth whose other end is in another network namespace?
    pub leads_out: bool,
    /// Is it a tunnel that carries frames to other nodes (VXLAN, Geneve)?
    pub tunnel: bool,
    /// Index of the device that it is a port or link of (a bridge, a bond).
    pub above: Option<u32>,
    /// Id of the XDP program on it, whoever attached it.
    pub xdp: Option<u32>,
}

impl Interface {
    /// Is it there still? Pods' come and go between a question and what is done about the answer.
    pub fn is_there(&self) -> bool {
        nix::net::if_::if_nametoindex(self.name.as_str()) == Ok(self.index)
    }

    fn from_message(message: &LinkMessage) -> Option<Self> {
        let name = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let elsewhere = message.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)));
        let kinds = message.attributes.iter().filter_map(|a| match a {
            LinkAttribute::LinkInfo(info) => Some(info),
            _ => None,
        });
        let kinds: Vec<&LinkInfo> = kinds.flatten().collect();
        let above = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        let mac = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Address(bytes) => {
                bytes.as_slice().try_into().ok().map(Mac::new).filter(|mac| *mac != Mac::default())
            }
            _ => None,
        });
        let tunnel = kinds.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Vxlan | InfoKind::Geneve)));
        let veth = kinds.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Veth)));
        let software = veth
            || kinds
                .iter()
                .any(|i| matches!(i, LinkInfo::Kind(InfoKind::Tun | InfoKind::Bridge | InfoKind::MacVtap)));
        let xdp = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Xdp(parts) => parts.iter().find_map(|part| match part {
                LinkXdp::ProgId(id) => Some(*id).filter(|id| *id != 0),
                _ => None,
            }),
            _ => None,
        });
        Some(Self {
            index: message.header.index,
            name,
            mac,
            unfit: unfit(message.header.link_layer_type, &kinds),
            partial_checksums: software || message.header.link_layer_type == LinkLayerType::Loopback,
            leads_out: veth && elsewhere,
            tunnel,
            above,
            xdp,
        })
    }
}

fn unfit(layer: LinkLayerType, kinds: &[&LinkInfo]) -> Option<&'static str> {
    if layer != LinkLayerType::Ether {
        return Some("it carries no Ethernet frames, which this version can't balance; leave it out");
    }
    // By address (`ipvlan_addr_lookup`, drivers/net/ipvlan): what is for a VIP stays with the device below.
    let ipvlan = |info: &&LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::IpVlan | InfoKind::IpVtap));
    kinds.iter().any(ipvlan).then_some(
        "an ipvlan gets packets to its own addresses only, none to VIPs; attach to the device below it instead",
    )
}

pub(super) fn failed(error: impl std::fmt::Display) -> DatapathError {
    DatapathError::Kernel { what: "netlink".into(), error: error.to_string() }
}

/// All interfaces of this network namespace.
///
/// # Errors
/// Netlink refuses.
pub async fn list(handle: &Handle) -> Result<Vec<Interface>, DatapathError> {
    let mut found = Vec::new();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await.map_err(failed)? {
        found.extend(Interface::from_message(&message));
    }
    Ok(found)
}

/// A connection for [`list`] and for questions about routes.
///
/// # Errors
/// Netlink refuses.
pub fn connect() -> Result<Handle, DatapathError> {
    let (connection, handle, _) = new_connection().map_err(failed)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The same, and a channel that gets a word whenever an interface or an address may have come, gone or changed.
///
/// # Errors
/// Netlink refuses.
pub fn watch() -> Result<(Handle, mpsc::Receiver<()>), DatapathError> {
    let handle = connect()?;
    let (connection, _, mut messages) = new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ])
    .map_err(failed)?;
    tokio::spawn(connection);
    // One word waits at most: it means "look again", however many changes there were.
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            if let Err(mpsc::error::TrySendError::Closed(())) = send.try_send(()) {
                return;
            }
        }
    });
    Ok((handle, receive))
}
