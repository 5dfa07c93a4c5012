//! A backend of a service.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{Origin, OwnAddresses};

/// May a backend take new flows, as far as the operator is concerned?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AdminState {
    /// Yes.
    #[default]
    Active,
    /// No; open flows stay.
    Draining {
        /// When the drain began, by [`uptime`](super::uptime).
        since: Duration,
        /// How long it may take; what is open then is the service's to decide (`RemovalPolicies::deadline`).
        deadline: Option<Duration>,
    },
}

/// Which of a service's lists a backend is on, while it takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists {
    /// Of those for everybody.
    pub all: bool,
    /// Of those of this node.
    pub local: bool,
}

/// One backend as declared. Identity within a service is (`address`, `port`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Address; frontends of its family lead to it.
    pub address: IpAddr,
    /// Target port; `None`: the port that the client used.
    pub port: Option<u16>,
    /// 0: no new flows.
    pub weight: u16,
    /// Most active connections; `None`: no limit.
    pub max_connections: Option<u32>,
    /// Declared to be one of this node's. What has an address of the node's own is anyway.
    pub local: bool,
    /// It takes new flows only while nobody does who isn't one.
    pub backup: bool,
    /// The host that has this address; `None`: it is declared by the address itself.
    pub host: Option<Arc<str>>,
    /// The lists that it is on, where its source says so; `None`: that of all, and that of this node if it is one of its.
    pub lists: Option<Lists>,
    /// Operator's word.
    pub admin: AdminState,
    /// Who declares it.
    pub origin: Origin,
}

impl BackendSpec {
    /// May it take new flows, as far as the operator is concerned?
    pub fn takes_new(&self) -> bool {
        self.admin == AdminState::Active && self.weight > 0
    }

    /// Its weight beside the others', where it has a share of what is even: a backup has none.
    pub const fn share(&self) -> u16 {
        if self.backup { 0 } else { self.weight }
    }

    /// `10.0.1.11:5432`, `[fd00::11]:5432`, or without port: `10.0.1.11`, `fd00::11`. The name of the backend everywhere: CLI,
    /// JSON, metrics; and what Maglev hashes, so it never changes its form.
    pub fn name(&self) -> String {
        backend_name(self.address, self.port)
    }

    /// Which lists it is on. `own`: the node's addresses.
    pub fn lists(&self, own: &OwnAddresses) -> Lists {
        self.lists.unwrap_or_else(|| Lists { all: true, local: self.local || own.contains(&self.address) })
    }
}

/// See [`BackendSpec::name`].
pub fn backend_name(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}
