//! The whole desired state, and everything that can be wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::abi::{BLOCK_SLOTS, limits};

use super::{AffinitySpec, BackendSpec, PortRange, ServiceSpec};

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
        let same_place = self.services.get(name).is_some_and(|b| b.frontends == service.frontends);
        let backends: HashSet<IpAddr> = service.backends.values().map(|b| b.address).collect();
        let claims = if same_place { Vec::new() } else { service.claims() };
        let vips: HashSet<IpAddr> = claims.iter().map(|(vip, _)| *vip).collect();
        for other in self.services.values().filter(|o| o.name != name) {
            if let Some(vip) = other.named().find(|vip| backends.contains(vip)) {
                return Err(backend_is_vip(&service, vip, &other.name));
            }
            if same_place {
                continue;
            }
            if other.frontends.iter().flat_map(|f| &f.addresses).any(|vip| vips.contains(vip)) {
                for (vip, a) in other.claims() {
                    if let Some((_, b)) = claims.iter().find(|(own, b)| *own == vip && a.overlaps(*b)) {
                        let (a, port) = (other.name.clone(), *b);
                        return Err(ModelError::Overlap { a, b: service.name, vip, port });
                    }
                }
            }
            if let Some(b) = other.backends.values().find(|b| vips.contains(&b.address)) {
                return Err(backend_is_vip(other, b.address, &service.name));
            }
        }
        if let Some(vip) = service.named().find(|vip| backends.contains(vip)) {
            return Err(backend_is_vip(&service, vip, &service.name));
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

/// A service has the VIP of `owner` for a backend.
fn backend_is_vip(service: &ServiceSpec, vip: IpAddr, owner: &str) -> ModelError {
    let backend = service.backends.values().find(|b| b.address == vip);
    let backend = backend.map_or_else(|| vip.to_string(), BackendSpec::name);
    ModelError::BackendIsVip { service: service.name.clone(), backend, owner: owner.into() }
}

/// No two services share a VIP, protocol and port, and no backend is a VIP.
fn overlaps(services: &BTreeMap<String, ServiceSpec>) -> Result<(), ModelError> {
    let mut claims: Vec<(IpAddr, PortRange, &str)> = services
        .values()
        .flat_map(|s| s.claims().into_iter().map(move |(vip, range)| (vip, range, s.name.as_str())))
        .collect();
    claims.sort_by_key(|(vip, port, _)| (*vip, port.protocol(), port.first()));
    for pair in claims.windows(2) {
        let ((vip, a, first), (other, b, second)) = (pair[0], pair[1]);
        if vip == other && a.overlaps(b) {
            return Err(ModelError::Overlap { a: first.into(), b: second.into(), vip, port: b });
        }
    }
    let vips: HashMap<IpAddr, &str> =
        services.values().flat_map(|s| s.named().map(move |vip| (vip, s.name.as_str()))).collect();
    for service in services.values() {
        if let Some(backend) = service.backends.values().find(|b| vips.contains_key(&b.address)) {
            return Err(backend_is_vip(service, backend.address, vips[&backend.address]));
        }
    }
    Ok(())
}

/// What the maps can hold.
fn totals(services: &BTreeMap<String, ServiceSpec>) -> Result<(), ModelError> {
    let (mut ports, mut prefixes) = ([0u64; 2], [0usize; 2]);
    let mut vips = [HashSet::new(), HashSet::new()];
    for service in services.values() {
        for frontend in &service.frontends {
            for vip in &frontend.addresses {
                let v6 = usize::from(vip.is_ipv6());
                ports[v6] += frontend.port_count() as u64;
                vips[v6].insert(*vip);
            }
        }
        // Frontends of a service that are for the same clients have these once.
        let sets: BTreeSet<&BTreeSet<IpNet>> = service.frontends.iter().map(|f| &f.sources).collect();
        for prefix in sets.into_iter().flatten() {
            prefixes[usize::from(matches!(prefix, IpNet::V6(_)))] += 1;
        }
    }
    for v6 in [0, 1] {
        if ports[v6] > limits::MAX_PORTS.into() {
            return Err(ModelError::TooManyPorts { ports: ports[v6] });
        }
        let vips = vips[v6].len();
        if vips > limits::MAX_VIPS as usize {
            return Err(ModelError::TooManyVips { vips });
        }
        if prefixes[v6] > limits::MAX_ADMITTED as usize {
            return Err(ModelError::TooManyPrefixes { prefixes: prefixes[v6] });
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
    #[error(
        "\"{text}\" is not a port; write 5432/tcp, 53/udp, 8001-8003/tcp or, with the backends' port, 80:8080/tcp; \
         ports from 1 to 65535"
    )]
    PortSyntax { text: String },
    #[error("{ports} are to lead to {target}; give as many ports as there are, like 8001-8003:9001-9003/tcp")]
    TargetCount { ports: PortRange, target: PortRange },
    #[error("\"{text}\" is not an address; write IPv4 like 10.96.0.10 or IPv6 like fd00::10")]
    NotAnAddress { text: String },
    #[error(
        "service name \"{name}\" is not usable; use 1 to 253 of a-z A-Z 0-9 . _ - with / or : between parts"
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
    HostBits { text: String, meant: IpNet },
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
    #[error("service \"{service}\" has no address; give it a vip, like 10.96.0.10")]
    NoAddress { service: String },
    #[error(
        "service \"{service}\": source_ranges has no {family} prefix, and {address} is {family}: nobody could \
         connect to it; add one, or {all} for everybody"
    )]
    NobodyAdmitted { service: String, address: IpAddr, family: &'static str, all: &'static str },
    #[error(
        "frontend {addresses}: source_ranges of the service are all of the other IP version; give the frontend its \
         own, or [] for everybody"
    )]
    NoneInherited { addresses: String },
    #[error("service \"{service}\" has no ports; give at least one, like 5432/tcp")]
    NoPorts { service: String },
    #[error("service \"{service}\": ports {a} and {b} overlap at {vip}; merge them, or leave one out")]
    OwnOverlap { service: String, vip: IpAddr, a: PortRange, b: PortRange },
    #[error(
        "services \"{a}\" and \"{b}\" overlap at {vip} port {port}; give one of them another VIP or port"
    )]
    Overlap { a: String, b: String, vip: IpAddr, port: PortRange },
    #[error(
        "service \"{service}\": backend \"{text}\" is not an address; write 10.0.1.11, 10.0.1.11:5432 or [fd00::11]:5432"
    )]
    BadBackend { service: String, text: String },
    #[error(
        "service \"{service}\": backend {backend} is not of the VIP's family ({vip}); use an {family} backend, or \
         add a VIP of its family"
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
        "service \"{service}\": port {port} leads to another port, and with forward = \"{forward}\" none can be \
         replaced; leave the second out"
    )]
    DirectTarget { service: String, port: PortRange, forward: &'static str },
    #[error(
        "service \"{service}\": forward = \"snat\" needs an {family} address of the node's, and it has none; give \
         it one, or name it in [snat]"
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
    #[error("affinity can be by \"{by}\" or have a group, {group}, not both; leave one out")]
    ByAndGroup { by: String, group: String },
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
    #[error("service \"{service}\" has {count} backends; the limit is 8192 a service")]
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
