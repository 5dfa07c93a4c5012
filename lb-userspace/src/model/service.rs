//! A service as declared.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{BackendSpec, PortRange};

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
    /// What a stray TCP packet meets unless the service says otherwise.
    pub const fn default_stray(self) -> StrayPolicy {
        match self {
            Self::LeastConnections => StrayPolicy::Reset,
            Self::ConsistentHash => StrayPolicy::Forward,
        }
    }
}

/// What happens to a TCP packet that belongs to no flow and opens none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrayPolicy {
    /// RST.
    Reset,
    /// Choose and pin as for a new flow.
    Forward,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Unique; 1 to 63 of `[A-Za-z0-9._-]`, or `namespace/name` (one slash allowed).
    pub name: String,
    /// Where clients connect to.
    pub vip: IpAddr,
    /// Ports, in the order declared, not overlapping.
    pub ports: Vec<PortRange>,
    /// How to choose.
    pub algorithm: AlgorithmKind,
    /// Stray packets.
    pub stray: StrayPolicy,
    /// Idle timeout of open flows (TCP established, UDP); `None`: the default.
    pub idle_timeout: Option<Duration>,
    /// Backends by name.
    pub backends: BTreeMap<String, BackendSpec>,
    /// Declared by the config file?
    pub from_file: bool,
    /// What was declared that this version accepts and does not act on yet; for people, one sentence each.
    pub warnings: Vec<String>,
}
