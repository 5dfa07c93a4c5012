//! The own Node: where it is, and at which of its addresses node ports are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{address::parse_ip, objects, record::PerFamily};
use crate::model::{OwnAddresses, service::usable};

/// The taint of a node that its cluster's autoscaler is about to remove.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

/// What is kept of the own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its zone; empty: it has none.
    pub zone: String,
    /// Its address of each family.
    pub primary: PerFamily<Option<IpAddr>>,
    /// Is it to stay? If not, load balancers are told to give it nothing new.
    pub stays: bool,
}

impl Node {
    /// Of its object: internal addresses go before external ones.
    pub fn parse(object: &objects::Node) -> Self {
        let mut primary = [None; 2];
        for kind in ["InternalIP", "ExternalIP"] {
            let of_kind = object.status.addresses.iter().filter(|a| a.kind == kind);
            for address in of_kind.filter_map(|a| parse_ip(&a.address)) {
                primary[usize::from(address.is_ipv6())].get_or_insert(address);
            }
        }
        let going = object.spec.taints.iter().any(|taint| taint.key == GOING);
        let stays = object.metadata.deletion_timestamp.is_empty() && !going;
        Self { zone: object.metadata.labels.zone.clone(), primary, stays }
    }
}

/// At which addresses of the node node ports are (`nodePortAddresses`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePorts {
    /// Its primary address of each family.
    #[default]
    Primary,
    /// Those in any of these prefixes. A family of which none is named: all of them.
    Within(Vec<IpNet>),
}

impl NodePorts {
    /// The addresses. Unspecified: all of the node's of that family. `own`: those it has.
    pub fn addresses(&self, node: &Node, own: &OwnAddresses) -> Vec<IpAddr> {
        match self {
            Self::Primary => node.primary.into_iter().flatten().filter(|address| usable(*address)).collect(),
            Self::Within(prefixes) => {
                [false, true].iter().flat_map(|v6| within(prefixes, *v6, own)).collect()
            }
        }
    }
}

fn within(prefixes: &[IpNet], v6: bool, own: &OwnAddresses) -> Vec<IpAddr> {
    let of_family: Vec<&IpNet> = prefixes.iter().filter(|net| matches!(net, IpNet::V6(_)) == v6).collect();
    if of_family.iter().all(|net| net.prefix_len() != 0) && !of_family.is_empty() {
        return own.iter().copied().filter(|a| of_family.iter().any(|net| net.contains(a))).collect();
    }
    vec![if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnAddresses {
        ["192.0.2.1", "198.51.100.1", "2001:db8::1", "fd00::1"].map(|a| a.parse().unwrap()).into()
    }

    #[test]
    fn n1_n2_where_node_ports_are() {
        let node: objects::Node = serde_yaml_ng::from_str(
            "
            status:
              addresses:
              - {type: Hostname, address: n1}
              - {type: ExternalIP, address: 203.0.113.9}
              - {type: InternalIP, address: 192.0.2.1}
              - {type: InternalIP, address: 198.51.100.1}
              - {type: ExternalIP, address: '2001:db8::1'}
            ",
        )
        .unwrap();
        let node = Node::parse(&node);
        for (ports, wanted) in [
            (None, vec!["192.0.2.1", "2001:db8::1"]),
            (Some(vec!["198.51.0.0/16", "fd00::/8"]), vec!["198.51.100.1", "fd00::1"]),
            (Some(vec!["192.0.2.1/32", "198.51.100.1/32", "::/0"]), vec!["192.0.2.1", "198.51.100.1", "::"]),
            (Some(vec!["198.51.0.0/16"]), vec!["198.51.100.1", "::"]),
            (Some(vec!["10.0.0.0/8", "fe00::/16"]), vec![]),
            (Some(vec!["0.0.0.0/0", "::/0"]), vec!["0.0.0.0", "::"]),
            (Some(vec!["10.0.0.0/8", "0.0.0.0/0", "fe00::/16"]), vec!["0.0.0.0"]),
        ] {
            let ports = match &ports {
                None => NodePorts::Primary,
                Some(nets) => NodePorts::Within(nets.iter().map(|net| net.parse().unwrap()).collect()),
            };
            let found: Vec<String> = ports.addresses(&node, &own()).iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{ports:?}");
        }
    }

    #[test]
    fn z1_a_node_that_goes() {
        for (yaml, stays) in [
            ("{}", true),
            ("{spec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute}]}}", true),
            ("{spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}}", false),
            ("{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}", false),
        ] {
            assert_eq!(Node::parse(&serde_yaml_ng::from_str(yaml).unwrap()).stays, stays, "{yaml}");
        }
    }
}
