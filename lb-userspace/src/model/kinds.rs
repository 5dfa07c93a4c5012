//! How backends are chosen, and what becomes of packets that belong to nobody: words of a service.

use lb_common::abi::Stray;

use super::ModelError;

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
