//! A service as declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use lb_common::abi::limits;

use super::{
    AffinitySpec, BackendSpec, ForwardKind, HealthSpec, ModelError, PortRange, Protocol, TimeoutSpec,
    backend_name,
};

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlgorithmKind {
    /// `least-connections`
    LeastConnections,
    /// `consistent-hash`
    ConsistentHash,
}

impl AlgorithmKind {
    /// As in config, CLI and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastConnections => "least-connections",
            Self::ConsistentHash => "consistent-hash",
        }
    }
    /// From its name.
    ///
    /// # Errors
    /// There are only two.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        [Self::LeastConnections, Self::ConsistentHash]
            .into_iter()
            .find(|a| a.name() == text)
            .ok_or_else(|| ModelError::Algorithm { text: text.into() })
    }
}

/// What becomes of a backend's open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fate {
    /// They stay until they end by themselves.
    #[default]
    Keep,
    /// They stay, and the operator sees how many are left.
    Drain,
    /// Both ends are reset.
    Reset,
}

impl Fate {
    /// From its name; `what` is for the error. `drain` is for a removal only: elsewhere the backend is shown anyway.
    ///
    /// # Errors
    /// There are only three.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, ModelError> {
        match text {
            "keep" => Ok(Self::Keep),
            "drain" if what == "on_removal" => Ok(Self::Drain),
            "reset" => Ok(Self::Reset),
            _ => Err(ModelError::NotKnown {
                what,
                text: text.into(),
                known: if what == "on_removal" { "keep, drain or reset" } else { "keep or reset" },
            }),
        }
    }
}

/// The same, by occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fates {
    /// The backend is no longer declared.
    pub removal: Fate,
    /// It fails its health checks.
    pub unhealthy: Fate,
    /// Its drain's deadline has passed.
    pub deadline: Fate,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Unique; 1 to 63 of `[A-Za-z0-9._-]`, or `namespace/name` (one slash inside).
    pub name: String,
    /// Where clients connect to. Unspecified (`0.0.0.0`, `::`): all of the node's addresses.
    pub vip: IpAddr,
    /// Addresses of the node's that are left out of all.
    pub except: BTreeSet<IpAddr>,
    /// Whose flows are taken. None: everybody's.
    pub sources: BTreeSet<IpNet>,
    /// Ports, in the order declared, not overlapping.
    pub ports: Vec<PortRange>,
    /// How to choose.
    pub algorithm: AlgorithmKind,
    /// How packets reach backends.
    pub forward: ForwardKind,
    /// Whether and how clients stay with their backend.
    pub affinity: Option<AffinitySpec>,
    /// When flows are over.
    pub timeouts: TimeoutSpec,
    /// How backends are checked; `None`: they aren't.
    pub health: Option<HealthSpec>,
    /// How long a backend that is new, or back, takes to get all its weight; `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// What becomes of open connections of backends that are not to be used any more.
    pub fates: Fates,
    /// Backends by name.
    pub backends: BTreeMap<String, BackendSpec>,
    /// Declared by the config file?
    pub from_file: bool,
    /// What was declared and will have no effect; for people, one sentence each.
    pub warnings: Vec<String>,
}

impl ServiceSpec {
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

    /// The first TCP port: where backends are checked that name no port of their own.
    pub fn tcp_port(&self) -> Option<u16> {
        self.ports.iter().find(|p| p.protocol() == Protocol::Tcp).map(|p| p.first())
    }

    /// How many ports it has at each address.
    pub fn port_count(&self) -> usize {
        self.ports.iter().map(|range| range.count() as usize).sum()
    }

    /// What can be wrong with a service by itself.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn validate(&self) -> Result<(), ModelError> {
        let service = || self.name.clone();
        check_name(&self.name)?;
        if !self.is_anywhere() && !usable(self.vip) {
            return Err(ModelError::BadVip { service: service(), vip: self.vip });
        }
        self.validate_reach()?;
        if self.ports.is_empty() {
            return Err(ModelError::NoPorts { service: service() });
        }
        for (i, a) in self.ports.iter().enumerate() {
            if let Some(b) = self.ports[i + 1..].iter().find(|b| a.overlaps(**b)) {
                return Err(ModelError::OwnOverlap { service: service(), a: *a, b: *b });
            }
        }
        if self.backends.len() > limits::MAX_BACKENDS_PER_SERVICE as usize {
            return Err(ModelError::TooManyBackends { service: service(), count: self.backends.len() });
        }
        if self.forward.is_direct() {
            let forward = self.forward.name();
            // A port that is the service's own is only said twice.
            let only = match self.ports.as_slice() {
                [one] if one.first() == one.last() => Some(one.first()),
                _ => None,
            };
            if let Some(b) = self.backends.values().find(|b| b.port.is_some() && b.port != only) {
                return Err(ModelError::DirectPort { service: service(), backend: b.name(), forward });
            }
            if self.timeouts.backend_response.is_some() {
                let timeout = "backend_response";
                return Err(ModelError::DirectTimeout { service: service(), timeout, forward });
            }
        }
        if self.health.is_some()
            && let Some(unchecked) = self.backends.values().find(|b| b.port.or(self.tcp_port()).is_none())
        {
            return Err(ModelError::NothingToCheck { service: service(), backend: unchecked.name() });
        }
        for backend in self.backends.values() {
            if backend.address.is_ipv6() != self.vip.is_ipv6() {
                return Err(ModelError::OtherFamily {
                    service: service(),
                    backend: backend.name(),
                    vip: self.vip,
                    family: self.family(),
                });
            }
            if !usable(backend.address) {
                return Err(ModelError::UnusableBackend { service: service(), backend: backend.name() });
            }
        }
        Ok(())
    }
}

/// Can packets be sent there from elsewhere?
fn usable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(a) => a.is_broadcast() || a.octets()[0] == 0,
        IpAddr::V6(a) => a.to_ipv4_mapped().is_some() || a.is_unicast_link_local(),
    };
    !(special || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// A name that fits in maps, URLs and labels.
///
/// # Errors
/// It doesn't.
pub fn check_name(name: &str) -> Result<(), ModelError> {
    let part = |p: &str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let parts: Vec<&str> = name.split('/').collect();
    if name.len() <= limits::MAX_NAME
        && parts.len() <= 2
        && parts.iter().all(|p| part(p) && *p != "." && *p != "..")
    {
        return Ok(());
    }
    Err(ModelError::BadName { name: name.into() })
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
    from_file: bool,
) -> Result<BackendSpec, ModelError> {
    let (address, port) = parse_backend(service, address)?;
    let backend = || backend_name(address, port);
    let weight = weight.unwrap_or(1);
    let weight = u16::try_from(weight).ok().filter(|w| *w > 0).ok_or_else(|| ModelError::Weight {
        service: service.into(),
        backend: backend(),
        weight,
    })?;
    let max_connections = match max_connections {
        None => None,
        Some(limit) => {
            Some(u32::try_from(limit).ok().filter(|l| *l > 0 && *l < u32::MAX).ok_or_else(|| {
                ModelError::MaxConnections { service: service.into(), backend: backend(), limit }
            })?)
        }
    };
    Ok(BackendSpec { address, port, weight, max_connections, admin: Default::default(), from_file })
}
