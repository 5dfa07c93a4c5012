//! What is kept of Services, EndpointSlices and the own Node: parsed, and as small as it gets. An endpoint is 24 bytes.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    address::{parse_cidr, parse_ip},
    note::{Note, Reason},
    objects::{self, Annotations, Meta, PREFIX},
    zones::Zones,
};
use crate::model::service::usable;

/// A protocol of layer 4 as Services name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// TCP where nothing is said.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "TCP" | "" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// Something of each IP version: IPv4's, IPv6's.
pub type PerFamily<T> = [T; 2];

/// A Service that has a cluster address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// For Events.
    pub uid: Box<str>,
    /// In seconds since the Unix epoch.
    pub created: u64,
    /// Cluster addresses.
    pub cluster: PerFamily<Option<IpAddr>>,
    /// `externalIPs`.
    pub external: Box<[IpAddr]>,
    /// Addresses of its load balancer with which packets come.
    pub balancer: Box<[IpAddr]>,
    /// Whose packets may come to those; none: everybody's.
    pub sources: Box<[IpNet]>,
    /// Its ports.
    pub ports: Box<[Port]>,
    /// Clients of the cluster are given to endpoints of their own node only.
    pub internal_local: bool,
    /// Clients from outside likewise.
    pub external_local: bool,
    /// Clients stay with their endpoint for so many seconds.
    pub affinity: Option<u32>,
    /// Where its load balancer asks for endpoints of this node.
    pub health_port: Option<u16>,
    /// Annotations of ours, without their prefix.
    pub annotations: Box<[(Box<str>, Box<str>)]>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Empty if it has none.
    pub name: Box<str>,
    /// Its protocol.
    pub transport: Transport,
    /// At addresses of the Service.
    pub port: u16,
    /// At addresses of the node.
    pub node_port: Option<u16>,
}

impl Service {
    /// `None`: it has no cluster address, and so none at all.
    pub fn parse(key: &Arc<str>, object: &objects::Service, notes: &mut Vec<Note>) -> Option<Self> {
        let spec = &object.spec;
        if matches!(spec.cluster_ip.as_str(), "" | "None") || spec.kind == "ExternalName" {
            return None;
        }
        let mut note = |reason, text: String| notes.push(Note::service(key, reason, text));
        let cluster = cluster_addresses(spec, &mut note);
        let mut addresses = |what: &str, texts: &mut dyn Iterator<Item = &str>| -> Box<[IpAddr]> {
            let mut found = Vec::new();
            for text in texts.filter(|text| !text.is_empty()) {
                match parse_ip(text).filter(|address| usable(*address)) {
                    Some(address) if found.contains(&address) => {}
                    Some(address) => found.push(address),
                    None => note(
                        Reason::InvalidAddress,
                        format!("{what} \"{text}\" is not an address to be reached at; left out"),
                    ),
                }
            }
            found.into()
        };
        let external = addresses("externalIPs", &mut spec.external_ips.iter().map(String::as_str));
        let mut ingress = object.status.load_balancer.ingress.iter();
        let mut ingress = ingress.by_ref().filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
        let balancer = addresses("load balancer ingress", &mut ingress.by_ref().map(|i| i.ip.as_str()));
        let mut sources = Vec::new();
        for text in spec.load_balancer_source_ranges.iter().map(|text| text.trim()).filter(|t| !t.is_empty())
        {
            match parse_cidr(text) {
                Some(net) => sources.push(net),
                None => note(
                    Reason::InvalidAddress,
                    format!("loadBalancerSourceRanges \"{text}\" is not a prefix; left out"),
                ),
            }
        }
        let ports = spec.ports.iter().filter_map(|port| Port::parse(port, &mut note)).collect();
        let balanced = matches!(spec.kind.as_str(), "NodePort" | "LoadBalancer");
        let external_local =
            spec.external_traffic_policy == "Local" && (balanced || !spec.external_ips.is_empty());
        let affinity = (spec.session_affinity == "ClientIP").then(|| {
            let timeout = spec.session_affinity_config.client_ip.timeout_seconds;
            timeout.and_then(|seconds| u32::try_from(seconds).ok()).filter(|s| *s > 0).unwrap_or(10_800)
        });
        let asked = spec.kind == "LoadBalancer" && external_local;
        Some(Self {
            uid: object.metadata.uid.as_str().into(),
            created: object.metadata.created(),
            cluster,
            external,
            balancer,
            sources: sources.into(),
            ports,
            internal_local: spec.internal_traffic_policy == "Local",
            external_local,
            affinity,
            health_port: port(spec.health_check_node_port).filter(|_| asked),
            annotations: ours(&object.metadata.annotations),
        })
    }
}

/// The cluster address of each family: of `ipFamilies[i]` it is `clusterIPs[i]`.
fn cluster_addresses(
    spec: &objects::ServiceSpec,
    note: &mut impl FnMut(Reason, String),
) -> PerFamily<Option<IpAddr>> {
    let mut cluster = [None; 2];
    let first = std::slice::from_ref(&spec.cluster_ip);
    let texts = if spec.cluster_ips.is_empty() { first } else { &spec.cluster_ips };
    for (i, text) in texts.iter().enumerate() {
        let Some(address) = parse_ip(text).filter(|address| usable(*address)) else {
            note(
                Reason::InvalidAddress,
                format!("clusterIPs \"{text}\" is not an address to be reached at; left out"),
            );
            continue;
        };
        let family = match spec.ip_families.get(i).map(String::as_str) {
            Some("IPv4") => Some(false),
            Some("IPv6") => Some(true),
            // Objects of before dual stack have no list of families, and one address.
            _ => spec.ip_families.is_empty().then(|| address.is_ipv6()),
        };
        if family == Some(address.is_ipv6()) {
            cluster[usize::from(address.is_ipv6())].get_or_insert(address);
        }
    }
    cluster
}

impl Port {
    fn parse(object: &objects::ServicePort, note: &mut impl FnMut(Reason, String)) -> Option<Self> {
        let Some(transport) = Transport::parse(&object.protocol) else {
            note(
                Reason::UnsupportedProtocol,
                format!("protocol \"{}\" of port {} is not known; left out", object.protocol, object.port),
            );
            return None;
        };
        let Some(number) = port(object.port) else {
            note(Reason::InvalidAddress, format!("port {} is not a port; left out", object.port));
            return None;
        };
        Some(Self {
            name: object.name.as_str().into(),
            transport,
            port: number,
            node_port: port(object.node_port),
        })
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Annotations of ours, without their prefix.
pub fn ours(annotations: &Annotations) -> Box<[(Box<str>, Box<str>)]> {
    let ours = annotations.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    ours.map(|(key, value)| (key.into(), value.as_str().into())).collect()
}

/// An EndpointSlice of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// `namespace/name` of its Service.
    pub service: Arc<str>,
    /// Of which IP version.
    pub v6: bool,
    /// Ports that all its endpoints have.
    pub ports: Box<[SlicePort]>,
    /// Its endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// Of each of them; 0: nothing new is to go to them.
    pub weight: u16,
    /// When what it tells of happened, in milliseconds since the Unix epoch; 0: nobody knows.
    pub trigger: u64,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// The Service's port.
    pub name: Box<str>,
    /// Its protocol.
    pub transport: Transport,
    /// The port of the endpoints.
    pub port: u16,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// What is said of it.
    pub flags: Flags,
    /// Zones whose clients are to use it, as [`Zones`] has them; 0: none are named.
    pub zones: u32,
}

/// What is said of an endpoint, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags(u8);

impl Flags {
    const READY: u8 = 1;
    const SERVING: u8 = 2;
    const TERMINATING: u8 = 4;
    const LOCAL: u8 = 8;
    const FOR_NODES: u8 = 16;
    const FOR_ME: u8 = 32;

    fn of(endpoint: &objects::Endpoint, node: &str) -> Self {
        let objects::Conditions { ready, serving, terminating } = endpoint.conditions;
        let mut flags = 0;
        let for_me = endpoint.hints.for_nodes.iter().any(|hint| hint.name == node);
        for (is, flag) in [
            (ready.unwrap_or(true), Self::READY),
            (serving.unwrap_or(true), Self::SERVING),
            (terminating.unwrap_or(false), Self::TERMINATING),
            (endpoint.node_name.as_deref() == Some(node), Self::LOCAL),
            (!endpoint.hints.for_nodes.is_empty(), Self::FOR_NODES),
            (for_me, Self::FOR_ME),
        ] {
            flags |= if is { flag } else { 0 };
        }
        Self(flags)
    }
    /// May it be given clients?
    pub const fn is_ready(self) -> bool {
        self.0 & Self::READY != 0
    }
    /// Does it answer, whether or not it is going away?
    pub const fn is_serving(self) -> bool {
        self.0 & Self::SERVING != 0
    }
    /// Is it going away?
    pub const fn is_terminating(self) -> bool {
        self.0 & Self::TERMINATING != 0
    }
    /// Is it one of this node's?
    pub const fn is_local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }
    /// Are nodes named whose clients are to use it?
    pub const fn has_nodes(self) -> bool {
        self.0 & Self::FOR_NODES != 0
    }
    /// Is this node one of them?
    pub const fn is_for_me(self) -> bool {
        self.0 & Self::FOR_ME != 0
    }
}

impl Slice {
    /// `None`: there is nothing in it that could be used, or nobody knows whose it is.
    pub fn parse(
        key: &Arc<str>,
        object: &objects::EndpointSlice,
        node: &str,
        zones: &mut Zones,
        notes: &mut Vec<Note>,
    ) -> Option<Self> {
        let Meta { namespace, labels, annotations, .. } = &object.metadata;
        let mut note = |reason, text: String| notes.push(Note::new("EndpointSlice", key, reason, &text));
        let v6 = match object.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        if labels.service.is_empty() {
            note(
                Reason::Refused,
                "it has no label kubernetes.io/service-name, so nobody knows whose it is; ignored".into(),
            );
            return None;
        }
        let mut bad = None;
        let mut endpoints = Vec::with_capacity(object.endpoints.len());
        for endpoint in &object.endpoints {
            let Some(text) = endpoint.addresses.first() else { continue };
            match parse_ip(text).filter(|address| address.is_ipv6() == v6 && usable(*address)) {
                Some(address) => {
                    let zones = zones.id(&endpoint.hints.for_zones);
                    endpoints.push(Endpoint { address, flags: Flags::of(endpoint, node), zones });
                }
                None => bad = bad.or(Some(text)),
            }
        }
        if let Some(text) = bad {
            let text = format!(
                "endpoint \"{text}\" is not an {} address to be sent to; left out",
                object.address_type
            );
            note(Reason::InvalidAddress, text);
        }
        let ports = object.ports.iter().filter_map(|p| {
            let transport = Transport::parse(p.protocol.as_deref().unwrap_or_default())?;
            Some(SlicePort { name: p.name.as_deref()?.into(), transport, port: port(p.port?)? })
        });
        let mut weight = 1;
        for (name, text) in ours(annotations) {
            match (&*name, text.parse()) {
                ("weight", Ok(number)) => weight = number,
                ("weight", Err(_)) => {
                    note(
                        Reason::InvalidAnnotation,
                        format!("{PREFIX}weight \"{text}\" is not a weight; use 0 to 65535"),
                    );
                }
                _ => note(
                    Reason::InvalidAnnotation,
                    format!("{PREFIX}{name} is not known of an EndpointSlice; use weight"),
                ),
            }
        }
        Some(Self {
            service: format!("{namespace}/{}", labels.service).into(),
            v6,
            ports: ports.collect(),
            endpoints: endpoints.into(),
            weight,
            trigger: annotations.get(objects::TRIGGER_TIME).map_or(0, millis),
        })
    }
}

fn millis(text: &str) -> u64 {
    let at = humantime::parse_rfc3339(text).ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    at.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
