//! Ports and protocols: `5432/tcp`, `8001-8003/udp`.

use std::{fmt, str::FromStr};

use lb_common::abi::Proto;

use super::ModelError;

/// A layer-4 protocol that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As packets name it.
    pub const fn proto(self) -> Proto {
        match self {
            Self::Tcp => Proto::TCP,
            Self::Udp => Proto::UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports `first..=last`, `1 <= first <= last`, of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl PortRange {
    /// A range.
    ///
    /// # Errors
    /// Port 0, or `last` before `first`.
    pub fn new(first: u16, last: u16, protocol: Protocol) -> Result<Self, ModelError> {
        if first == 0 || last == 0 {
            return Err(ModelError::PortZero);
        }
        if last < first {
            return Err(ModelError::PortRangeReversed { first, last });
        }
        Ok(Self { first, last, protocol })
    }
    /// First port.
    pub const fn first(self) -> u16 {
        self.first
    }
    /// Last port, included.
    pub const fn last(self) -> u16 {
        self.last
    }
    /// Protocol.
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }
    /// Do the two share a port?
    pub const fn overlaps(self, other: Self) -> bool {
        self.protocol as u8 == other.protocol as u8 && self.first <= other.last && other.first <= self.last
    }
    /// How many ports.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
    /// The ports, one by one.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}/{}", self.first, self.protocol)
        } else {
            write!(f, "{}-{}/{}", self.first, self.last, self.protocol)
        }
    }
}

impl FromStr for PortRange {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let bad = || ModelError::PortSyntax { text: text.into() };
        let (ports, protocol) = text.split_once('/').ok_or_else(bad)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(bad()),
        };
        let number = |s: &str| s.parse::<u16>().map_err(|_| bad());
        let (first, last) = match ports.split_once('-') {
            Some((a, b)) => (number(a)?, number(b)?),
            None => (number(ports)?, number(ports)?),
        };
        Self::new(first, last, protocol)
    }
}
