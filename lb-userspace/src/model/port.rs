//! Ports and protocols: `5432/tcp`, `8001-8003/udp`, `80:8080/tcp`.

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

/// Ports `first..=last`, `1 <= first <= last`, of one protocol, and which ports of backends they lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
    protocol: Protocol,
    /// Where the first leads, the others to those that follow; `None`: each to its own.
    target: Option<u16>,
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
        Ok(Self { first, last, protocol, target: None })
    }

    /// The same, leading to `first..=last` of backends that name no port.
    ///
    /// # Errors
    /// Those aren't a range, or not of as many ports.
    pub fn to(self, first: u16, last: u16) -> Result<Self, ModelError> {
        let target = Self::new(first, last, self.protocol)?;
        if target.count() != self.count() {
            return Err(ModelError::TargetCount { ports: self, target });
        }
        Ok(Self { target: Some(first), ..self })
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
    /// Is a port one of them?
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
    /// Where one of them leads; `None`: no port but itself is named.
    pub const fn target(self, port: u16) -> Option<u16> {
        match self.target {
            Some(target) => Some(target + (port - self.first)),
            None => None,
        }
    }
    /// The ports of a backend that they lead to; `port`: the one that it names.
    pub const fn led_to(self, port: Option<u16>) -> Self {
        let Self { first, last, protocol, target } = self;
        let (first, last) = match (port, target) {
            (Some(port), _) => (port, port),
            (None, Some(target)) => (target, target + (last - first)),
            (None, None) => (first, last),
        };
        Self { first, last, protocol, target: None }
    }
    /// Do they lead to other ports than themselves?
    pub fn is_moved(self) -> bool {
        self.target.is_some_and(|target| target != self.first)
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
        let one = self.first == self.last;
        write!(f, "{}", self.first)?;
        if !one {
            write!(f, "-{}", self.last)?;
        }
        if let Some(target) = self.target {
            write!(f, ":{target}")?;
            if !one {
                write!(f, "-{}", target + (self.last - self.first))?;
            }
        }
        write!(f, "/{}", self.protocol)
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
        let range = |s: &str| match s.split_once('-') {
            Some((a, b)) => Ok((number(a)?, number(b)?)),
            None => number(s).map(|port| (port, port)),
        };
        let (ports, target) = match ports.split_once(':') {
            Some((ports, target)) => (ports, Some(range(target)?)),
            None => (ports, None),
        };
        let (first, last) = range(ports)?;
        let ports = Self::new(first, last, protocol)?;
        target.map_or(Ok(ports), |(first, last)| ports.to(first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_shown() {
        for text in ["80/tcp", "8001-8003/udp", "80:8080/tcp", "8001-8003:9001-9003/tcp", "65535:1/udp"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        let moved: PortRange = "8001-8003:9001-9003/tcp".parse().unwrap();
        assert_eq!((moved.target(8001), moved.target(8003)), (Some(9001), Some(9003)));
        assert!(moved.is_moved() && !"80:80/tcp".parse::<PortRange>().unwrap().is_moved());
        assert_eq!("80/tcp".parse::<PortRange>().unwrap().target(80), None);
        for bad in
            ["80:/tcp", ":80/tcp", "80:0/tcp", "80:81:82/tcp", "80:x/tcp", "80:65536/tcp", "1-2:4-3/tcp"]
        {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        for bad in ["8001-8003:9001/tcp", "80:8080-8081/tcp", "1-2:65535-65536/tcp"] {
            let error = bad.parse::<PortRange>().unwrap_err().to_string();
            assert!(error.contains("as many") || error.contains(bad), "{error}");
        }
    }
}
