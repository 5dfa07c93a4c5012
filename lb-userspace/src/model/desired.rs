//! The whole desired state, and everything that can be wrong with it.

use std::{collections::BTreeMap, net::IpAddr};

use super::{PortRange, ServiceSpec};

/// All services by name. Built by [`Desired::new`] only, so that whoever holds one holds a valid one.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    services: BTreeMap<String, ServiceSpec>,
}

impl Desired {
    /// All services.
    pub fn services(&self) -> &BTreeMap<String, ServiceSpec> {
        &self.services
    }
}

/// What can be wrong with a declaration. Each message names the value and the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// Port 0.
    #[error("port 0 is not a port; use 1 to 65535")]
    PortZero,
    /// `9-8`.
    #[error("port range {first}-{last} runs backwards; write {last}-{first}")]
    PortRangeReversed {
        /// As given.
        first: u16,
        /// As given.
        last: u16,
    },
    /// Not a port.
    #[error("\"{text}\" is not a port; write 5432/tcp, 53/udp or 8001-8003/tcp")]
    PortSyntax {
        /// As given.
        text: String,
    },
    /// Two services claim a port.
    #[error("services \"{a}\" and \"{b}\" overlap at {vip} port {port}; give one of them another VIP or port")]
    Overlap {
        /// A service.
        a: String,
        /// The other.
        b: String,
        /// Where.
        vip: IpAddr,
        /// The second one's range.
        port: PortRange,
    },
}
