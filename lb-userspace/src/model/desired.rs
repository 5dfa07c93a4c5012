//! The whole desired state, and everything that can be wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::abi::{BLOCK_SLOTS, limits};

use super::{AffinitySpec, PortRange, ServiceSpec};

/// All services by name. Built by [`Desired::new`] only, so that whoever holds one holds a valid one.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    services: BTreeMap<String, ServiceSpec>,
}

impl Desired {
    /// Checks services against each other and against the limits.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(services: Vec<ServiceSpec>) -> Result<Self, ModelError> {
        let count = services.len();
        if count > limits::MAX_SERVICES as usize {
            return Err(ModelError::TooManyServices { count });
        }
        let mut by_name = BTreeMap::new();
        for service in services {
            service.validate()?;
            if let Some(other) = by_name.insert(service.name.clone(), service) {
                return Err(ModelError::DuplicateService { name: other.name });
            }
        }
        overlaps(&by_name)?;
        totals(&by_name)?;
        groups(&by_name)?;
        Ok(Self { services: by_name })
    }

    /// The same state with one service added, replaced or (`None`) removed. Checks only what can have become wrong by it.
    ///
    /// # Errors
    /// The first thing that has; nothing is changed then.
    pub fn replace(&mut self, name: &str, service: Option<ServiceSpec>) -> Result<(), ModelError> {
        let Some(service) = service else {
            self.services.remove(name);
            return Ok(());
        };
        service.validate()?;
        // What is looked for is what others have; most changes are of backends and weights, and need the first half only.
        let same_place = self.services.get(name).is_some_and(|b| {
            b.vip == service.vip && b.ports == service.ports && b.sources == service.sources
        });
        for other in self.services.values().filter(|o| o.name != name) {
            if let Some(b) = service.backends.values().find(|b| b.address == other.vip) {
                let (backend, owner) = (b.name(), other.name.clone());
                return Err(ModelError::BackendIsVip { service: service.name, backend, owner });
            }
            if same_place {
                continue;
            }
            if other.vip == service.vip {
                for a in &other.ports {
                    if let Some(b) = service.ports.iter().find(|b| a.overlaps(**b)) {
                        let (a, vip, port) = (other.name.clone(), service.vip, *b);
                        return Err(ModelError::Overlap { a, b: service.name, vip, port });
                    }
                }
            }
            if let Some(b) = other.backends.values().find(|b| b.address == service.vip) {
                let (backend, owner) = (b.name(), service.name);
                return Err(ModelError::BackendIsVip { service: other.name.clone(), backend, owner });
            }
        }
        if let Some(b) = service.backends.values().find(|b| b.address == service.vip) {
            let (backend, owner) = (b.name(), service.name.clone());
            return Err(ModelError::BackendIsVip { service: service.name, backend, owner });
        }
        let before = self.services.insert(name.into(), service);
        let count = self.services.len();
        let result = if count > limits::MAX_SERVICES as usize {
            Err(ModelError::TooManyServices { count })
        } else if same_place {
            blocks(&self.services)
        } else {
            totals(&self.services).and_then(|()| groups(&self.services))
        };
        if result.is_err() {
            match before {
                Some(before) => self.services.insert(name.into(), before),
                None => self.services.remove(name),
            };
        }
        result
    }

    /// All services.
    pub fn services(&self) -> &BTreeMap<String, ServiceSpec> {
        &self.services
    }
}

/// No two services share a VIP, protocol and port, and no backend is a VIP.
fn overlaps(services: &BTreeMap<String, ServiceSpec>) -> Result<(), ModelError> {
    let mut claims: Vec<(IpAddr, PortRange, &str)> =
        services.values().flat_map(|s| s.ports.iter().map(move |p| (s.vip, *p, s.name.as_str()))).collect();
    claims.sort_by_key(|(vip, port, _)| (*vip, port.protocol(), port.first()));
    for pair in claims.windows(2) {
        let ((vip, a, first), (other, b, second)) = (pair[0], pair[1]);
        if vip == other && a.overlaps(b) {
            return Err(ModelError::Overlap { a: first.into(), b: second.into(), vip, port: b });
        }
    }
    let vips: BTreeMap<IpAddr, &str> = services.values().map(|s| (s.vip, s.name.as_str())).collect();
    for service in services.values() {
        for backend in service.backends.values() {
            if let Some(owner) = vips.get(&backend.address) {
                return Err(ModelError::BackendIsVip {
                    service: service.name.clone(),
                    backend: backend.name(),
                    owner: (*owner).into(),
                });
            }
        }
    }
    Ok(())
}

/// What the maps can hold.
fn totals(services: &BTreeMap<String, ServiceSpec>) -> Result<(), ModelError> {
    for v6 in [false, true] {
        let of_family = || services.values().filter(|s| s.vip.is_ipv6() == v6);
        let ports = of_family().map(|s| s.port_count() as u64).sum();
        if ports > limits::MAX_PORTS as u64 {
            return Err(ModelError::TooManyPorts { ports });
        }
        let vips = of_family().map(|s| s.vip).collect::<BTreeSet<_>>().len();
        if vips > limits::MAX_VIPS as usize {
            return Err(ModelError::TooManyVips { vips });
        }
        let prefixes: usize = of_family().map(|s| s.sources.len()).sum();
        if prefixes > limits::MAX_ADMITTED as usize {
            return Err(ModelError::TooManyPrefixes { prefixes });
        }
    }
    blocks(services)
}

fn blocks(services: &BTreeMap<String, ServiceSpec>) -> Result<(), ModelError> {
    let blocks: usize = services.values().map(|s| s.backends.len().div_ceil(BLOCK_SLOTS)).sum();
    if blocks >= limits::MAX_BLOCKS as usize {
        return Err(ModelError::TooManyBlocks { blocks });
    }
    Ok(())
}

/// Services of one group mean the same by it.
fn groups(services: &BTreeMap<String, ServiceSpec>) -> Result<(), ModelError> {
    let mut first: BTreeMap<&str, (&str, &AffinitySpec)> = BTreeMap::new();
    for service in services.values() {
        let Some(affinity) = &service.affinity else { continue };
        let Some(group) = affinity.group.as_deref() else { continue };
        let (a, other) = first.entry(group).or_insert((&service.name, affinity));
        if *other != affinity {
            let (a, b) = ((*a).to_string(), service.name.clone());
            return Err(ModelError::Group { group: group.into(), a, b });
        }
    }
    Ok(())
}

/// What can be wrong with a declaration. Each message names the value and the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the message is the documentation of each variant and names its fields")]
pub enum ModelError {
    #[error("port 0 is not a port; use 1 to 65535")]
    PortZero,
    #[error("port range {first}-{last} runs backwards; write {last}-{first}")]
    PortRangeReversed { first: u16, last: u16 },
    #[error("\"{text}\" is not a port; write 5432/tcp, 53/udp or 8001-8003/tcp, ports from 1 to 65535")]
    PortSyntax { text: String },
    #[error("\"{text}\" is not an address; write IPv4 like 10.96.0.10 or IPv6 like fd00::10")]
    NotAnAddress { text: String },
    #[error(
        "service name \"{name}\" is not usable; use 1 to 63 of a-z A-Z 0-9 . _ - with at most one / inside"
    )]
    BadName { name: String },
    #[error("service \"{name}\" is declared twice; give each a name of its own")]
    DuplicateService { name: String },
    #[error(
        "service \"{service}\": {vip} can't be a VIP; use a unicast address that is not loopback, or 0.0.0.0 or :: for all of the node's own"
    )]
    BadVip { service: String, vip: IpAddr },
    #[error("\"{text}\" is not a prefix; write 10.0.0.0/8, fd00::/64, or an address")]
    NotAPrefix { text: String },
    #[error("prefix \"{text}\" has bits beyond its length; write {meant}, or the address without a length")]
    HostBits { text: String, meant: ipnet::IpNet },
    #[error("service \"{service}\": {text} is not of the VIP's family ({vip}); use {family}")]
    OtherFamilyThanVip { service: String, text: String, vip: IpAddr, family: &'static str },
    #[error(
        "service \"{service}\": vip_except leaves addresses out of all of the node's, and the VIP is {vip}; leave it out, or use 0.0.0.0 or ::"
    )]
    ExceptOfOne { service: String, vip: IpAddr },
    #[error(
        "service \"{service}\": with forward = \"{forward}\" backends have the VIP themselves, which the node's own addresses can't be; use nat or snat"
    )]
    DirectAnywhere { service: String, forward: &'static str },
    #[error("{prefixes} source ranges in all are too many; the limit is 65536 for each IP version")]
    TooManyPrefixes { prefixes: usize },
    #[error("service \"{service}\" has no ports; give at least one, like 5432/tcp")]
    NoPorts { service: String },
    #[error("service \"{service}\": ports {a} and {b} overlap; merge them")]
    OwnOverlap { service: String, a: PortRange, b: PortRange },
    #[error(
        "services \"{a}\" and \"{b}\" overlap at {vip} port {port}; give one of them another VIP or port"
    )]
    Overlap { a: String, b: String, vip: IpAddr, port: PortRange },
    #[error(
        "service \"{service}\": backend \"{text}\" is not an address; write 10.0.1.11, 10.0.1.11:5432 or [fd00::11]:5432"
    )]
    BadBackend { service: String, text: String },
    #[error(
        "service \"{service}\": backend {backend} is not of the VIP's family ({vip}); use an {family} backend"
    )]
    OtherFamily { service: String, backend: String, vip: IpAddr, family: &'static str },
    #[error("service \"{service}\": backend {backend} is declared twice; raise its weight instead")]
    DuplicateBackend { service: String, backend: String },
    #[error(
        "service \"{service}\": backend {backend} is the VIP of service \"{owner}\"; name the real server"
    )]
    BackendIsVip { service: String, backend: String, owner: String },
    #[error(
        "service \"{service}\": backend {backend} can't be reached; use a unicast address that is not loopback or unspecified"
    )]
    UnusableBackend { service: String, backend: String },
    #[error(
        "service \"{service}\": weight {weight} of backend {backend} is out of range; use 1 to 65535, or drain it"
    )]
    Weight { service: String, backend: String, weight: i64 },
    #[error(
        "service \"{service}\": max_connections {limit} of backend {backend} is out of range; use 1 to 4294967294, or leave it out"
    )]
    MaxConnections { service: String, backend: String, limit: i64 },
    #[error(
        "service \"{service}\": backend {backend} has no TCP port to be checked at; give it one, or set health to none"
    )]
    NothingToCheck { service: String, backend: String },
    #[error(
        "service \"{service}\": forward = \"snat\" needs an {family} address of the node's; give it in [snat], addresses = [...]"
    )]
    NoSource { service: String, family: &'static str },
    #[error(
        "service \"{service}\": backend {backend} names a port, and with forward = \"{forward}\" none can be replaced; leave it out"
    )]
    DirectPort { service: String, backend: String, forward: &'static str },
    #[error(
        "service \"{service}\": timeouts.{timeout} needs to see what backends answer, and with forward = \"{forward}\" that goes past the node; \
         leave it out"
    )]
    DirectTimeout { service: String, timeout: &'static str, forward: &'static str },
    #[error(
        "service \"{service}\": backend {backend} is reached by way of {router}, not on a segment of this node; dsr-l2 can't get there, use dsr-ipip"
    )]
    NotOnSegment { service: String, backend: String, router: IpAddr },
    #[error(
        "service \"{service}\": backend {backend} is the node itself, which can't be sent what it has; use nat, or leave it out"
    )]
    DirectToSelf { service: String, backend: String },
    #[error("algorithm \"{text}\" is not known; use least-connections or consistent-hash")]
    Algorithm { text: String },
    #[error("{what} \"{text}\" is not usable; write a duration like 30s, 15m or 3h, {range}")]
    Duration { what: &'static str, text: String, range: &'static str },
    #[error("{what} \"{text}\" is not known; use {known}")]
    NotKnown { what: &'static str, text: String, known: &'static str },
    #[error(
        "services \"{a}\" and \"{b}\" share affinity group \"{group}\" with different settings; give both the same timeout, ipv6_prefix and bound"
    )]
    Group { group: String, a: String, b: String },
    #[error("{count} services are too many; the limit is 10000 on one node")]
    TooManyServices { count: usize },
    #[error("service \"{service}\" has {count} backends; the limit is 1024 a service")]
    TooManyBackends { service: String, count: usize },
    #[error(
        "{ports} ports in all (ranges counted port by port) are too many; the limit is 262144 for each IP version"
    )]
    TooManyPorts { ports: u64 },
    #[error("{vips} VIPs are too many; the limit is 16384 for each IP version")]
    TooManyVips { vips: usize },
    #[error("the backends need {blocks} blocks of 16; the limit is 16383 in all")]
    TooManyBlocks { blocks: usize },
}

#[cfg(test)]
mod tests;
