//! What the maps hold, in model terms. Read back once when an agent adopts pinned maps; from then on kept current by applying
//! the steps of each plan to it as well ([`Actual::apply`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::abi::{Backend, BackendId, BlockId, PoolBlock, PortBe, Proto, Service, ServiceId};

/// Mirror of the maps that the agent writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    /// Services by id: named ones only.
    pub services: BTreeMap<ServiceId, ActualService>,
    /// Blocks in use.
    pub blocks: BTreeMap<BlockId, PoolBlock>,
    /// Backends in use, retired ones included.
    pub backends: BTreeMap<BackendId, ActualBackend>,
    /// VIPs.
    pub vips: BTreeSet<IpAddr>,
}

/// A service id in use.
#[derive(Clone, Debug, PartialEq)]
pub struct ActualService {
    /// Name.
    pub name: String,
    /// Its entries in the service map. Empty: no longer declared, kept for its pinned flows.
    pub ports: BTreeMap<(IpAddr, Proto, u16), Service>,
    /// The slots of its Maglev table as published; `None`: no table, or not known (adopted), in which case it is rebuilt.
    pub table: Option<Vec<u32>>,
}

/// A backend slot in use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActualBackend {
    /// Record.
    pub value: Backend,
}

/// Key of a port in [`ActualService::ports`].
pub fn port_key(vip: IpAddr, port: PortBe, proto: Proto) -> (IpAddr, Proto, u16) {
    (vip, proto, port.get())
}
