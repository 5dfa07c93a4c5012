//! A plan: the writes that lead from what the maps hold to what is desired, in an order in which every moment between is
//! correct. Data only; `datapath` executes it step by step and may be interrupted after any of them.

use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::abi::{
    Backend, BackendId, BlockId, List, PoolBlock, PortBe, Proto, Service, ServiceId, ServiceLimit, Vip,
    pool::STARTS,
};

use crate::model::SnatSpec;

/// A table of backends: for consistent hashing and for choices by lot, or for turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSpec {
    /// Is it for turns?
    pub in_turn: bool,
    /// Who takes part: id and weight, by name.
    pub members: Vec<(String, BackendId, u32)>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Name a service id (`None`: free it).
    Name {
        /// Id.
        service: ServiceId,
        /// Name.
        name: Option<String>,
    },
    /// Say where a backend is (or that the slot is free: [`Backend::default`]).
    Backend {
        /// Id.
        id: BackendId,
        /// Record.
        value: Backend,
    },
    /// Zero a backend's per-CPU counters; before its id is given to another.
    ZeroCounters {
        /// Id.
        id: BackendId,
    },
    /// Zero a service's duration histogram; before its id is given to another.
    ZeroDurations {
        /// Id.
        service: ServiceId,
    },
    /// Write weights, limits and the chain of a block.
    Block {
        /// Id.
        block: BlockId,
        /// Record.
        value: PoolBlock,
    },
    /// Say where a long pool can be entered (`None`: it isn't, or isn't one any more).
    Starts {
        /// Its first block.
        block: BlockId,
        /// Blocks at even distances along its chain.
        value: Option<[BlockId; STARTS]>,
    },
    /// Say how many connections a service may have as a whole, and where they are counted (`None`: it has no limit).
    Limit {
        /// Service.
        service: ServiceId,
        /// The limit.
        value: Option<Box<ServiceLimit>>,
    },
    /// Say where a host is in the pool of a service with affinity (`None`: nowhere).
    Host {
        /// Service.
        service: ServiceId,
        /// Host.
        address: IpAddr,
        /// The backend there.
        backend: Option<BackendId>,
    },
    /// Publish a table, whole; without members: remove it.
    Table {
        /// Id.
        service: ServiceId,
        /// Of which backends.
        list: List,
        /// What is in it.
        table: TableSpec,
    },
    /// Say which addresses stand in for clients'. Flows that have one keep it.
    Sources {
        /// They, and their ports.
        value: SnatSpec,
    },
    /// Say whether entries with this number of source ranges take flows of clients with this prefix.
    Admit {
        /// The number, [`Service::ranges`].
        ranges: u32,
        /// Clients.
        prefix: IpNet,
        /// Does it?
        admitted: bool,
    },
    /// Add an address to the VIPs, or say what it is now.
    AddVip {
        /// The VIP.
        vip: IpAddr,
        /// What it is.
        value: Vip,
    },
    /// Take it out.
    RemoveVip {
        /// The VIP.
        vip: IpAddr,
    },
    /// Add or replace a service entry.
    AddPort {
        /// The VIP.
        vip: IpAddr,
        /// Port.
        port: PortBe,
        /// Protocol.
        proto: Proto,
        /// What it leads to.
        value: Service,
    },
    /// Remove a service entry.
    RemovePort {
        /// The VIP.
        vip: IpAddr,
        /// Port.
        port: PortBe,
        /// Protocol.
        proto: Proto,
    },
}

/// Steps, in order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Plan {
    /// Apply from first to last.
    pub steps: Vec<Step>,
}
