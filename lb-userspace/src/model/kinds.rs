//! How backends are chosen, and what becomes of packets that belong to nobody: words of a service.

use lb_common::abi::{Algorithm, Stray};

use super::ModelError;

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlgorithmKind {
    /// `least-connections`
    LeastConnections,
    /// `consistent-hash`
    ConsistentHash,
    /// `round-robin`
    RoundRobin,
    /// `weighted-random`
    WeightedRandom,
}

impl AlgorithmKind {
    /// All.
    pub const ALL: [Self; 4] =
        [Self::LeastConnections, Self::ConsistentHash, Self::RoundRobin, Self::WeightedRandom];

    /// As in config, CLI and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastConnections => "least-connections",
            Self::ConsistentHash => "consistent-hash",
            Self::RoundRobin => "round-robin",
            Self::WeightedRandom => "weighted-random",
        }
    }
    /// Does the kernel need a table for it?
    pub const fn has_table(self) -> bool {
        !matches!(self, Self::LeastConnections)
    }
    /// As the datapath knows it.
    pub const fn code(self) -> Algorithm {
        match self {
            Self::LeastConnections => Algorithm::LEAST_CONNECTIONS,
            Self::ConsistentHash => Algorithm::CONSISTENT_HASH,
            Self::RoundRobin => Algorithm::ROUND_ROBIN,
            Self::WeightedRandom => Algorithm::WEIGHTED_RANDOM,
        }
    }
    /// The one that the datapath knows so.
    pub fn of(code: Algorithm) -> Self {
        Self::ALL.into_iter().find(|kind| kind.code() == code).unwrap_or(Self::LeastConnections)
    }
    /// From its name.
    ///
    /// # Errors
    /// It is none of [`ALL`](Self::ALL).
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == text)
            .ok_or_else(|| ModelError::Algorithm { text: text.into() })
    }
}

/// What happens to a TCP packet that belongs to no flow and opens none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrayKind {
    /// `reset`: it is answered with RST, so that the client connects anew.
    Reset,
    /// `forward`: a backend is chosen for it as for a new flow.
    Forward,
    /// `pass`: the stack gets it, while another balancer's connections are still open.
    Pass,
}

impl StrayKind {
    /// As in config, CLI and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Forward => "forward",
            Self::Pass => "pass",
        }
    }
    /// From its name.
    ///
    /// # Errors
    /// There are only three.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        [Self::Reset, Self::Forward, Self::Pass].into_iter().find(|stray| stray.name() == text).ok_or_else(
            || ModelError::NotKnown { what: "stray", text: text.into(), known: "reset, forward or pass" },
        )
    }
    /// As the datapath knows it.
    pub const fn code(self) -> Stray {
        match self {
            Self::Reset => Stray::RESET,
            Self::Forward => Stray::FORWARD,
            Self::Pass => Stray::PASS,
        }
    }
}
