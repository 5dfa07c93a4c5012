//! The own Node: where it is, and at which of its addresses node ports are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{
    address::{parse_cidr, parse_ip},
    objects,
    record::PerFamily,
};
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

    /// What is known of it after it is told of again. A node that is deleted still has its zone and addresses while it
    /// runs, and so has one whose addresses aren't said for a moment.
    pub fn followed_by(&self, next: Option<&Self>) -> Self {
        match next {
            None => Self { stays: false, ..self.clone() },
            Some(next) if next.primary == [None; 2] => Self { primary: self.primary, ..next.clone() },
            Some(next) => next.clone(),
        }
    }
}

/// At which addresses of the node node ports are (`nodePortAddresses`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// Its primary address of each family?
    pub primary: bool,
    /// 127.0.0.1 and ::1, for its own processes?
    pub localhost: bool,
    /// Those in any of these prefixes; of loopback's, 127.0.0.1 or ::1. A family of which nothing is named, here or
    /// above, has them at all of its addresses but loopback's.
    pub within: Vec<IpNet>,
}

impl Default for NodePorts {
    fn default() -> Self {
        Self { primary: true, localhost: false, within: Vec::new() }
    }
}

impl NodePorts {
    /// From its words: `primary`, `localhost`, `all`, and prefixes. None: `primary`.
    ///
    /// # Errors
    /// One is none of them, or a prefix where no node port can be.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut ports = Self { primary: words.is_empty(), localhost: false, within: Vec::new() };
        for word in words {
            match word.as_str() {
                "primary" => ports.primary = true,
                "localhost" => ports.localhost = true,
                "all" => ports.within.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]),
                text => ports.within.push(prefix(text)?),
            }
        }
        Ok(ports)
    }

    /// Does it name loopback addresses? Prefixes of everything don't.
    pub fn names_loopback(&self) -> bool {
        self.localhost || self.within.iter().any(of_loopback)
    }

    /// The addresses. Unspecified: all of the node's of that family. `own`: those it has.
    pub fn addresses(&self, node: &Node, own: &OwnAddresses) -> Vec<IpAddr> {
        let of_family = |v6: bool| {
            let is = move |net: &&IpNet| matches!(net, IpNet::V6(_)) == v6;
            let (loopback, within): (Vec<&IpNet>, Vec<&IpNet>) =
                self.within.iter().filter(is).partition(|net| of_loopback(net));
            let localhost = self.localhost || !loopback.is_empty();
            let named = self.primary || localhost || !within.is_empty();
            let mut addresses: Vec<IpAddr> = Vec::new();
            if !named || within.iter().any(|net| net.prefix_len() == 0) {
                addresses.push(if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() });
            } else {
                let primary = node.primary[usize::from(v6)];
                addresses.extend(primary.filter(|address| self.primary && usable(*address)));
                let more = own.iter().filter(|address| within.iter().any(|net| net.contains(*address)));
                addresses.extend(more.filter(|address| !(self.primary && primary == Some(**address))));
            }
            addresses.extend(localhost.then_some(LOCALHOST[usize::from(v6)]));
            addresses
        };
        [false, true].into_iter().flat_map(of_family).collect()
    }
}

/// Of each family.
const LOCALHOST: PerFamily<IpAddr> = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn of_loopback(net: &IpNet) -> bool {
    net.network().is_loopback()
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let Some(net) = parse_cidr(text) else {
        return Err(format!(
            "\"{text}\" is not a prefix; write 192.0.2.0/24, primary, localhost, or all for all addresses"
        ));
    };
    if of_loopback(&net) && !LOCALHOST.iter().any(|address| net.contains(address)) {
        return Err(format!(
            "\"{text}\": of loopback's addresses node ports are at 127.0.0.1 and ::1 only; write localhost"
        ));
    }
    Ok(net)
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
        let parse =
            |words: &[&str]| NodePorts::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        let table: [(&[&str], &[&str], bool); 14] = [
            (&[], &["192.0.2.1", "2001:db8::1"], false),
            (&["primary"], &["192.0.2.1", "2001:db8::1"], false),
            (&["198.51.0.0/16", "fd00::/8"], &["198.51.100.1", "fd00::1"], false),
            (&["192.0.2.1/32", "198.51.100.1/32", "::/0"], &["192.0.2.1", "198.51.100.1", "::"], false),
            (&["198.51.0.0/16"], &["198.51.100.1", "::"], false),
            (&["10.0.0.0/8", "fe00::/16"], &[], false),
            (&["0.0.0.0/0", "::/0"], &["0.0.0.0", "::"], false),
            (&["10.0.0.0/8", "0.0.0.0/0", "fe00::/16"], &["0.0.0.0"], false),
            (&["192.0.0.0/8", "primary"], &["192.0.2.1", "2001:db8::1"], false),
            // Loopback is in no prefix of everything.
            (&["all"], &["0.0.0.0", "::"], false),
            (&["localhost"], &["127.0.0.1", "::1"], true),
            (
                &["primary", "localhost", "198.51.0.0/16"],
                &["192.0.2.1", "198.51.100.1", "127.0.0.1", "2001:db8::1", "::1"],
                true,
            ),
            (&["all", "127.0.0.0/8"], &["0.0.0.0", "127.0.0.1", "::"], true),
            (&["127.0.0.1/32"], &["127.0.0.1", "::"], true),
        ];
        for (words, wanted, loopback) in table {
            let ports = parse(words).unwrap();
            let found: Vec<String> = ports.addresses(&node, &own()).iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted, "{words:?}");
            assert_eq!(ports.names_loopback(), loopback, "{words:?}");
        }
        for (words, says) in [
            (["secondary"], "\"secondary\" is not a prefix; write 192.0.2.0/24, primary, localhost, or all"),
            (["127.0.0.1"], "\"127.0.0.1\" is not a prefix"),
            (
                ["127.0.0.2/32"],
                "\"127.0.0.2/32\": of loopback's addresses node ports are at 127.0.0.1 and ::1",
            ),
        ] {
            let error = parse(&words).unwrap_err();
            assert!(error.contains(says), "{error}");
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
