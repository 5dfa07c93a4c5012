//! How packets reach backends.

use std::{net::IpAddr, ops::RangeInclusive};

use lb_common::abi::{Forward, MAX_SOURCE_PORTS, MAX_SOURCES};

use super::ModelError;

/// What is done to a packet so that it gets to its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForwardKind {
    /// `nat`: the destination is replaced. The backend sees the client, and must answer by way of the node.
    #[default]
    Nat,
    /// `snat`: the source as well, by an address of the node's. The backend sees that, and answers to it wherever it is.
    Snat,
    /// `dsr-l2`: only the MAC address is. The backend is on a segment of the node's, has the VIP itself, and answers the client.
    DsrL2,
    /// `dsr-ipip`: the packet is put in another. The backend takes it out, has the VIP itself, and answers the client.
    DsrIpip,
}

impl ForwardKind {
    /// From its name.
    ///
    /// # Errors
    /// There are only these.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        match text {
            "nat" => Ok(Self::Nat),
            "snat" => Ok(Self::Snat),
            "dsr-l2" => Ok(Self::DsrL2),
            "dsr-ipip" => Ok(Self::DsrIpip),
            _ => Err(ModelError::NotKnown {
                what: "forward",
                text: text.into(),
                known: "nat, snat, dsr-l2 or dsr-ipip",
            }),
        }
    }

    /// As in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Snat => "snat",
            Self::DsrL2 => "dsr-l2",
            Self::DsrIpip => "dsr-ipip",
        }
    }

    /// Do backends answer past the node?
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::DsrL2 | Self::DsrIpip)
    }

    /// As the datapath knows it.
    pub const fn code(self) -> Forward {
        match self {
            Self::Nat => Forward::NAT,
            Self::Snat => Forward::SNAT,
            Self::DsrL2 => Forward::DSR_L2,
            Self::DsrIpip => Forward::DSR_IPIP,
        }
    }
}

/// How packets of a frontend's flows go, by where those come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// From a pod of this node.
    pub pod: ForwardKind,
    /// From anywhere else.
    pub elsewhere: ForwardKind,
}

impl Forwarding {
    /// The same for all.
    pub const fn all(kind: ForwardKind) -> Self {
        Self { pod: kind, elsewhere: kind }
    }

    /// Both ways.
    pub const fn kinds(self) -> [ForwardKind; 2] {
        [self.elsewhere, self.pod]
    }

    /// The way on which backends answer past the node, if there is one.
    pub fn direct(self) -> Option<ForwardKind> {
        self.kinds().into_iter().find(|kind| kind.is_direct())
    }

    /// The ways on which they do, each once: in a tunnel (true), or on a segment.
    pub fn direct_ways(self) -> impl Iterator<Item = bool> + Clone {
        let [elsewhere, pod] = self.kinds();
        let kinds = [Some(elsewhere), (pod != elsewhere).then_some(pod)];
        let direct = kinds.into_iter().flatten().filter(|kind| kind.is_direct());
        direct.map(|kind| kind == ForwardKind::DsrIpip)
    }

    /// As the datapath knows it, by [`Source`](lb_common::abi::Source).
    pub const fn code(self) -> [Forward; 2] {
        [self.elsewhere.code(), self.pod.code()]
    }
}

/// The node's addresses that stand in for clients'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatSpec {
    /// Addresses, of either family; at most [`MAX_SOURCES`] of each. None of a family: one of the node's own of that
    /// family.
    pub addresses: Vec<IpAddr>,
    /// Their ports.
    pub ports: RangeInclusive<u16>,
}

impl Default for SnatSpec {
    /// No addresses, and ports below those of Kubernetes' NodePorts (30000 to 32767) and those that Linux gives to
    /// sockets of its own (`net.ipv4.ip_local_port_range`, 32768 and up): an answer to one of those must not be taken
    /// for a flow's.
    fn default() -> Self {
        Self { addresses: Vec::new(), ports: 1024..=29_999 }
    }
}

impl SnatSpec {
    /// As written.
    ///
    /// # Errors
    /// Something of it is not usable.
    pub fn parse(addresses: &[String], ports: Option<&str>) -> Result<Self, ModelError> {
        let mut spec = Self::default();
        for text in addresses {
            let address: IpAddr =
                text.parse().map_err(|_| ModelError::NotAnAddress { text: text.clone() })?;
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(ModelError::NotKnown {
                    what: "snat address",
                    text: text.clone(),
                    known: "an address of the node's that backends can answer to",
                });
            }
            if !spec.addresses.contains(&address) {
                spec.addresses.push(address);
            }
        }
        for v6 in [false, true] {
            let count = spec.addresses.iter().filter(|a| a.is_ipv6() == v6).count();
            if count > MAX_SOURCES {
                return Err(ModelError::NotKnown {
                    what: "snat.addresses: the number",
                    text: count.to_string(),
                    known: "at most 16 of each IP version",
                });
            }
        }
        if let Some(text) = ports {
            let range = text.split_once('-').and_then(|(first, last)| {
                Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
            });
            spec.ports = match range {
                Some((first, last))
                    if first > 0 && first <= last && usize::from(last - first) < MAX_SOURCE_PORTS =>
                {
                    first..=last
                }
                _ => {
                    return Err(ModelError::NotKnown {
                        what: "snat.ports",
                        text: text.into(),
                        known: "a range of at most 32768 ports, like 1024-29999",
                    });
                }
            };
        }
        Ok(spec)
    }

    /// Its addresses of one family.
    pub fn of_family(&self, v6: bool) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(move |a| a.is_ipv6() == v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usable() {
        let good =
            SnatSpec::parse(&["10.0.0.1".into(), "fd00::1".into(), "10.0.0.1".into()], Some("2000-2999"));
        let good = good.unwrap();
        assert_eq!((good.addresses.len(), good.ports), (2, 2000..=2999));
        let one = ["10.0.0.1".to_string()];
        for bad in ["", "5", "0-100", "200-100", "1-32769", "1024-70000", "a-b"] {
            let error = SnatSpec::parse(&one, Some(bad)).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{bad}\"")), "{error}");
        }
        for bad in ["here", "127.0.0.1", "::", "224.0.0.1"] {
            let error = SnatSpec::parse(&[bad.into()], None).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        let many: Vec<String> = (1..=17).map(|i| format!("10.0.0.{i}")).collect();
        assert!(SnatSpec::parse(&many, None).unwrap_err().to_string().contains("17"));
    }
}
