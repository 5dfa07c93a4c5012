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
    /// Is it a veth?
    pub veth: bool,
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
            veth,
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

pub(crate) fn failed(error: impl std::fmt::Display) -> DatapathError {
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

/// Does the connection still answer? A list that was asked for by one that has ended meanwhile is a short one.
///
/// # Errors
/// It doesn't.
pub async fn answers(handle: &Handle) -> Result<(), DatapathError> {
    // Loopback is the first in every network namespace.
    let mut links = handle.link().get().match_index(1).execute();
    match links.try_next().await.map_err(failed)? {
        Some(_) => Ok(()),
        None => Err(failed("the connection has ended")),
    }
}

/// A connection for [`list`] and for questions about routes, for a while: nobody looks after it.
///
/// # Errors
/// Netlink refuses.
#[expect(
    clippy::disallowed_methods,
    reason = "it ends when its handle is dropped; the agent's own is `watch`'s"
)]
pub fn connect() -> Result<Handle, DatapathError> {
    let (connection, handle, _) = new_connection().map_err(failed)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The same, and work that is to be done for as long as it is used. `changes` gets a word whenever an interface or an address may
/// have come, gone or changed; one word waits at most, and means "look again", however many changes there were.
///
/// # Errors
/// Netlink refuses.
pub fn watch(changes: mpsc::Sender<()>) -> Result<(Handle, impl Future<Output = ()> + Send), DatapathError> {
    let (questions, handle, _) = new_connection().map_err(failed)?;
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (words, _, mut messages) = new_multicast_connection(&groups).map_err(failed)?;
    let tell = async move {
        while messages.next().await.is_some() {
            if let Err(mpsc::error::TrySendError::Closed(())) = changes.try_send(()) {
                return;
            }
        }
    };
    let work = async move {
        tokio::select! {
            () = questions => {}
            () = words => {}
            () = tell => {}
        }
    };
    Ok((handle, work))
}
