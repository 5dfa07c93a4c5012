//! What may be asked to be changed.

use std::{fmt, net::IpAddr, time::Duration};

use flowpin_import::ipvs::Forward;

use crate::{Refusal, Settings};

/// A protocol of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `-t`
    Tcp,
    /// `-u`
    Udp,
}

impl Protocol {
    /// As in Flowpin's lists of ports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// As in ipvsadm's tables.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// As ipvsadm's option.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Tcp => "-t",
            Self::Udp => "-u",
        }
    }
}

/// An address with a port, as ipvsadm writes it: IPv6 addresses in brackets.
pub fn socket(address: IpAddr, port: impl fmt::Display) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// The option for a way of forwarding. Source NAT is masquerading, too.
pub const fn option(forward: Forward) -> &'static str {
    match forward {
        Forward::Nat | Forward::Snat => "-m",
        Forward::DsrL2 => "-g",
        Forward::DsrIpip => "-i",
    }
}

/// Where a virtual service is: what makes it one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of which protocol.
    pub protocol: Protocol,
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0: every port.
    pub port: u16,
}

impl Place {
    /// The name of a service that is added here: `tcp/10.0.0.1:80`. Names have no brackets and no empty parts, and so
    /// IPv6 addresses have dashes: `tcp/2001-db8--80:80`.
    pub fn name(&self) -> String {
        let Self { protocol, address, port } = self;
        format!("{}/{}:{port}", protocol.name(), address.to_string().replace(':', "-"))
    }

    /// The first and the last port.
    pub const fn ports(&self) -> (u16, u16) {
        match self.port {
            0 => (1, u16::MAX),
            port => (port, port),
        }
    }
}

/// As on ipvsadm's command line.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol.option(), socket(self.address, self.port))
    }
}

/// A real server as a command names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// Its port; `None`: the service's.
    pub port: Option<u16>,
}

impl Target {
    /// Its port at a service; `None`: the one that the client used.
    ///
    /// # Errors
    /// Packets that stay as they are can't go to another port.
    pub fn port_at(&self, place: &Place, forward: Option<Forward>) -> Result<Option<u16>, Refusal> {
        let port = self.port.unwrap_or(place.port);
        if forward.is_some_and(Forward::is_direct) && port != place.port {
            return Err(Refusal::failed(format!(
                "server {} is at another port than service {place}, and with -g and -i packets stay as they are: leave \
                 the server's port out, or use -m",
                socket(self.address, port)
            )));
        }
        Ok(Some(port).filter(|port| *port != 0))
    }
}

/// What `--set` says; `None`: it stays as it is. In whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Open TCP connections that are silent.
    pub tcp: Option<Duration>,
    /// Those that one side has closed.
    pub tcp_fin: Option<Duration>,
    /// UDP.
    pub udp: Option<Duration>,
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `-A`
    AddService {
        /// Which.
        at: Place,
        /// All of them: what isn't said is ipvsadm's default.
        settings: Settings,
    },
    /// `-E`
    EditService {
        /// Which.
        at: Place,
        /// All of them: what isn't said is ipvsadm's default.
        settings: Settings,
    },
    /// `-D`
    RemoveService {
        /// Which.
        at: Place,
    },
    /// `-a`
    AddServer {
        /// Of which service.
        at: Place,
        /// Which.
        server: Target,
        /// How packets get to it.
        forward: Forward,
        /// Its share; 0: it gets nothing new.
        weight: u16,
        /// Most connections; `None`: no limit.
        limit: Option<u32>,
    },
    /// `-e`
    EditServer {
        /// Of which service.
        at: Place,
        /// Which.
        server: Target,
        /// How packets get to it; `None`: as they do.
        forward: Option<Forward>,
        /// Its share; 0: it gets nothing new.
        weight: u16,
        /// Most connections; `None`: no limit.
        limit: Option<u32>,
    },
    /// `-d`
    RemoveServer {
        /// Of which service.
        at: Place,
        /// Which.
        server: Target,
    },
    /// `-C`
    Clear,
    /// `--set`
    Timeouts(Timeouts),
}
