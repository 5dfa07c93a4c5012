//! A service as declared.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use lb_common::abi::limits;

use super::{
    AdminState, AffinitySpec, AlgorithmKind, BackendSpec, Frontend, HealthSpec, HostSpec, Member, ModelError,
    Origin, OwnAddresses, PortRange, Probe, Protocol, RebalanceSpec, RemovalPolicies, StrayKind, TimeoutSpec,
    backend_name, frontend::family,
};

/// One service: a pool of backends, and the frontends that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Unique; see [`check_name`].
    pub name: String,
    /// Where clients connect to, and how their packets go. At least one; no two share an address and a port.
    pub frontends: Vec<Frontend>,
    /// How to choose.
    pub algorithm: AlgorithmKind,
    /// What happens to stray packets; `None`: what suits the algorithm.
    pub stray: Option<StrayKind>,
    /// Whether and how clients stay with their backend.
    pub affinity: Option<AffinitySpec>,
    /// When flows are over.
    pub timeouts: TimeoutSpec,
    /// How backends are checked; `None`: they aren't.
    pub health: Option<HealthSpec>,
    /// Most open connections of all its backends together, those of removed ones among them; `None`: no limit.
    pub max_connections: Option<u32>,
    /// What healthy backends weigh together, at least, while it is up; 1: one is enough.
    pub quorum: u32,
    /// Which connections are moved to backends that have too few; `None`: none are.
    pub rebalance: Option<RebalanceSpec>,
    /// How long a backend that is new, or back, takes to get all its weight; `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// What becomes of open connections of backends that are not to be used any more.
    pub policies: RemovalPolicies,
    /// Backends by name, those of hosts among them.
    pub backends: BTreeMap<String, BackendSpec>,
    /// Hosts whose addresses are backends, in their order.
    pub hosts: Vec<HostSpec>,
    /// Who declares it.
    pub origin: Origin,
}

impl ServiceSpec {
    /// With one frontend or more, no backends, and the default in all else.
    pub fn new(name: &str, frontends: Vec<Frontend>, origin: Origin) -> Self {
        Self {
            name: name.into(),
            frontends,
            algorithm: AlgorithmKind::LeastConnections,
            stray: None,
            affinity: None,
            timeouts: TimeoutSpec::default(),
            health: None,
            max_connections: None,
            quorum: 1,
            rebalance: None,
            slow_start: None,
            policies: RemovalPolicies::default(),
            backends: BTreeMap::new(),
            hosts: Vec::new(),
            origin,
        }
    }

    /// Adds a backend.
    ///
    /// # Errors
    /// It is there already.
    pub fn add(&mut self, backend: BackendSpec) -> Result<(), ModelError> {
        let name = backend.name();
        if self.backends.contains_key(&name) {
            return Err(ModelError::DuplicateBackend { service: self.name.clone(), backend: name });
        }
        self.backends.insert(name, backend);
        Ok(())
    }

    /// The same, of what may be a host.
    ///
    /// # Errors
    /// It is there already.
    pub fn add_member(&mut self, member: Member) -> Result<(), ModelError> {
        match member {
            Member::Address(backend) => self.add(backend),
            Member::Host(host) if self.hosts.iter().any(|h| (&h.host, h.port) == (&host.host, host.port)) => {
                Err(ModelError::DuplicateBackend { service: self.name.clone(), backend: host.name() })
            }
            Member::Host(host) => {
                self.hosts.push(host);
                Ok(())
            }
        }
    }

    /// Does only the number of connections decide where a new one goes?
    pub fn goes_by_connections(&self) -> bool {
        self.algorithm == AlgorithmKind::LeastConnections && self.affinity.is_none()
    }

    /// May places run out, since it or one of its backends has a limit?
    pub fn is_limited(&self) -> bool {
        self.max_connections.is_some() || self.backends.values().any(|b| b.max_connections.is_some())
    }

    /// What happens to stray packets.
    pub fn stray(&self) -> StrayKind {
        self.stray.unwrap_or(match self.algorithm {
            AlgorithmKind::ConsistentHash => StrayKind::Forward,
            _ => StrayKind::Reset,
        })
    }

    /// Addresses that its frontends name: not all of the node's. One may be named twice.
    pub fn named(&self) -> impl Iterator<Item = IpAddr> {
        self.frontends.iter().flat_map(Frontend::named)
    }

    /// Is any frontend at all addresses of the node's?
    pub fn is_anywhere(&self) -> bool {
        self.frontends.iter().any(Frontend::is_anywhere)
    }

    /// Is any frontend at an address of the node's?
    pub fn is_on_node(&self, own: &OwnAddresses) -> bool {
        self.frontends.iter().any(|frontend| frontend.is_on_node(own))
    }

    /// Is any frontend of this family?
    pub fn has_family(&self, v6: bool) -> bool {
        self.frontends.iter().any(|frontend| frontend.has_family(v6))
    }

    /// Do backends answer past the node to what comes by any frontend?
    pub fn is_direct(&self) -> bool {
        self.frontends.iter().any(|frontend| frontend.forward.direct().is_some())
    }

    /// The frontend that a packet comes to; who names the address goes first.
    pub fn frontend_at(
        &self,
        address: IpAddr,
        own: &OwnAddresses,
        serves: impl Fn(&Frontend) -> bool,
    ) -> Option<&Frontend> {
        let named = self.frontends.iter().find(|f| f.addresses.contains(&address) && serves(f));
        named.or_else(|| self.frontends.iter().find(|f| f.is_anywhere_at(address, own) && serves(f)))
    }

    /// Where a backend is checked: the port that checks have for themselves, or its own, or the one to which the first port of its family leads that
    /// has the checks' protocol.
    pub fn check_port(&self, backend: &BackendSpec) -> Option<u16> {
        let (v6, health) = (backend.address.is_ipv6(), self.health.as_ref());
        let protocols = health.map_or(&[Protocol::Tcp][..], |health| health.probe.protocols());
        let of = |protocol| self.frontends.iter().find_map(|frontend| frontend.target(protocol, v6));
        let target = || protocols.iter().copied().find_map(of);
        health.and_then(|health| health.port).or(backend.port).or_else(target)
    }

    /// Are its backends checked by a program on this node?
    pub fn runs_programs(&self) -> bool {
        self.health.as_ref().is_some_and(|health| matches!(health.probe, Probe::Exec { .. }))
    }

    /// Has it a UDP port?
    pub fn serves_udp(&self) -> bool {
        self.frontends.iter().flat_map(|frontend| &frontend.ports).any(|p| p.protocol() == Protocol::Udp)
    }

    /// What can be wrong with a service by itself.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn validate(&self) -> Result<(), ModelError> {
        let service = || self.name.clone();
        check_name(&self.name)?;
        if self.frontends.is_empty() {
            return Err(ModelError::NoAddress { service: service() });
        }
        self.frontends.iter().try_for_each(|frontend| frontend.validate(&self.name))?;
        self.validate_overlaps()?;
        let count = self.backends.len().max(self.hosts.len());
        if count > limits::MAX_BACKENDS_PER_SERVICE as usize {
            return Err(ModelError::TooManyBackends { service: service(), count });
        }
        self.validate_direct()?;
        if self.rebalance.is_some() && !self.goes_by_connections() {
            return Err(ModelError::RebalancedOtherwise { service: service() });
        }
        self.check_quorum()?;
        self.hosts.iter().try_for_each(|host| self.check_host(host))?;
        self.backends.values().try_for_each(|backend| self.check_backend(backend))
    }

    /// What can be wrong with a host of a service that is otherwise valid, whatever its addresses.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn check_host(&self, host: &HostSpec) -> Result<(), ModelError> {
        self.check_direct(&host.name(), Some(host.port))
    }

    /// What can be wrong with a backend of a service that is otherwise valid.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn check_backend(&self, backend: &BackendSpec) -> Result<(), ModelError> {
        let service = || self.name.clone();
        if !usable(backend.address) {
            return Err(ModelError::UnusableBackend { service: service(), backend: backend.name() });
        }
        let v6 = backend.address.is_ipv6();
        if !self.has_family(v6) {
            return Err(ModelError::OtherFamily {
                service: service(),
                backend: backend.name(),
                vip: self.frontends[0].addresses[0],
                family: family(!v6),
            });
        }
        if self.health.is_some() && self.check_port(backend).is_none() {
            return Err(ModelError::NothingToCheck { service: service(), backend: backend.name() });
        }
        self.check_direct(&backend.name(), backend.port)
    }

    /// What no two of its frontends may share.
    fn validate_overlaps(&self) -> Result<(), ModelError> {
        let mut claims = self.claims();
        claims.sort_unstable_by_key(|(vip, range)| (*vip, range.protocol(), range.first()));
        match claims.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1.overlaps(pair[1].1)) {
            Some(pair) => Err(ModelError::OwnOverlap {
                service: self.name.clone(),
                vip: pair[0].0,
                a: pair[0].1,
                b: pair[1].1,
            }),
            None => Ok(()),
        }
    }

    /// Addresses with ports, as declared.
    pub fn claims(&self) -> Vec<(IpAddr, PortRange)> {
        let of = |frontend: &Frontend| {
            let ports = frontend.ports.clone();
            frontend
                .addresses
                .clone()
                .into_iter()
                .flat_map(move |vip| ports.clone().into_iter().map(move |range| (vip, range)))
        };
        self.frontends.iter().flat_map(of).collect()
    }

    /// Is no backend at a port that another service, or this one itself, is at? A backend may well be at a VIP's address, as on a node of which
    /// one service has a port and a backend another.
    ///
    /// # Errors
    /// One is.
    pub fn check_backends_beside(&self, other: &Self) -> Result<(), ModelError> {
        self.backends.values().try_for_each(|backend| self.check_backend_beside(backend, other))
    }

    /// The same of one backend, which this service has or is to have.
    ///
    /// # Errors
    /// It is at such a port.
    pub fn check_backend_beside(&self, backend: &BackendSpec, other: &Self) -> Result<(), ModelError> {
        let there = other.frontends.iter().filter(|f| f.addresses.contains(&backend.address));
        let mut taken = there.flat_map(|frontend| &frontend.ports);
        let led = || self.frontends.iter().flat_map(|f| &f.ports).map(|ports| ports.led_to(backend.port));
        if taken.any(|ports| led().any(|led| led.overlaps(*ports))) {
            return Err(ModelError::BackendIsVip {
                service: self.name.clone(),
                backend: backend.name(),
                owner: other.name.clone(),
            });
        }
        Ok(())
    }
}

/// Can packets be sent there from elsewhere?
pub fn usable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(a) => a.is_broadcast() || a.octets()[0] == 0,
        IpAddr::V6(a) => a.to_ipv4_mapped().is_some() || a.is_unicast_link_local(),
    };
    !(special || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// A name that fits in maps, URLs and labels: at most [`limits::MAX_NAME`] bytes; parts of `[A-Za-z0-9._-]`, but not
/// `.` and `..`, with `/` or `:` between them.
///
/// # Errors
/// It doesn't.
pub fn check_name(name: &str) -> Result<(), ModelError> {
    let part = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let good = name.split(['/', ':']).all(|p| part(p) && p != "." && p != "..");
    if good && name.len() <= limits::MAX_NAME {
        Ok(())
    } else {
        Err(ModelError::BadName { name: name.into() })
    }
}

/// `10.0.1.11:5432`, `[fd00::11]:5432`, or without port.
///
/// # Errors
/// It is neither, or the port is 0.
pub fn parse_backend(service: &str, text: &str) -> Result<(IpAddr, Option<u16>), ModelError> {
    let bad = || ModelError::BadBackend { service: service.into(), text: text.into() };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    let socket = text.parse::<std::net::SocketAddr>().map_err(|_| bad())?;
    if socket.port() == 0 {
        return Err(ModelError::PortZero);
    }
    Ok((socket.ip(), Some(socket.port())))
}

/// A backend as typed, with weight and limit checked.
///
/// # Errors
/// What is wrong with it.
pub fn make_backend(
    service: &str,
    address: &str,
    weight: Option<i64>,
    max_connections: Option<i64>,
    local: bool,
    origin: Origin,
) -> Result<BackendSpec, ModelError> {
    let (address, port) = parse_backend(service, address)?;
    let (weight, max_connections) = shares(service, backend_name(address, port), weight, max_connections)?;
    let (host, lists, admin) = (None, None, AdminState::Active);
    Ok(BackendSpec {
        address,
        port,
        weight,
        max_connections,
        local,
        backup: false,
        host,
        lists,
        admin,
        origin,
    })
}

/// Weight and limit of a backend.
pub(super) fn shares(
    service: &str,
    backend: String,
    weight: Option<i64>,
    max_connections: Option<i64>,
) -> Result<(u16, Option<u32>), ModelError> {
    let (service, weight) = (service.into(), weight.unwrap_or(1));
    let Ok(given) = u16::try_from(weight) else {
        return Err(ModelError::Weight { service, backend, weight });
    };
    let Some(limit) = max_connections else { return Ok((given, None)) };
    match u32::try_from(limit).ok().filter(|l| *l > 0 && *l < u32::MAX) {
        Some(most) => Ok((given, Some(most))),
        None => Err(ModelError::MaxConnections { service, backend, limit }),
    }
}
