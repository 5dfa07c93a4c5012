//! What the maps hold, in model terms. Read back once when an agent adopts pinned maps; from then on kept current by applying
//! each step to it as well.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use lb_common::abi::{
    BLOCK_SLOTS, Backend, BackendId, BlockId, PoolBlock, Proto, Service, ServiceId, ServiceLimit, Vip,
    pool::STARTS,
};

use super::{Step, TableSpec};
use crate::model::{SnatSpec, backend_name};

/// A service entry's key: VIP, protocol, port in host order.
pub type PortKey = (IpAddr, Proto, u16);

/// Mirror of the maps that the agent writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    services: BTreeMap<ServiceId, ActualService>,
    names: HashMap<String, ServiceId>,
    owners: HashMap<PortKey, ServiceId>,
    blocks: BTreeMap<BlockId, PoolBlock>,
    backends: HashMap<BackendId, Backend>,
    starts: BTreeMap<BlockId, [BlockId; STARTS]>,
    limits: BTreeMap<ServiceId, Box<ServiceLimit>>,
    ranges: BTreeMap<u32, BTreeSet<IpNet>>,
    vips: BTreeMap<IpAddr, Vip>,
    sources: Option<SnatSpec>,
}

/// A service id in use.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ActualService {
    /// Name.
    pub name: String,
    /// Its entries in the service map. Empty: no longer declared, kept for its pinned flows.
    pub ports: BTreeMap<PortKey, Service>,
    /// Its blocks; the chain runs through them in this order.
    pub blocks: BTreeSet<BlockId>,
    /// Its backends by name, retired ones included.
    pub backends: BTreeMap<String, BackendId>,
    /// Where hosts are in its pool, if it has affinity.
    pub hosts: BTreeMap<IpAddr, BackendId>,
    /// Its tables as published, by [`List`](lb_common::abi::List). None: no table, or not known
    /// (adopted), in which case it is rebuilt.
    pub tables: BTreeMap<u32, TableSpec>,
}

impl Actual {
    /// Services by id.
    pub fn services(&self) -> &BTreeMap<ServiceId, ActualService> {
        &self.services
    }
    /// Id of a name.
    pub fn id(&self, name: &str) -> Option<ServiceId> {
        self.names.get(name).copied()
    }
    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&ActualService> {
        self.services.get(&self.id(name)?)
    }
    /// A backend's record.
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(&id)
    }
    /// All backends in use, retired ones included.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, &Backend)> {
        self.backends.iter().map(|(id, b)| (*id, b))
    }
    /// A block's record.
    pub fn block(&self, id: BlockId) -> Option<&PoolBlock> {
        self.blocks.get(&id)
    }
    /// Is the block in use? It may be before it is written: backends in it are written first.
    pub fn has_block(&self, id: BlockId) -> bool {
        let holds = |slot| self.backends.contains_key(&BackendId::new(id, slot as u32));
        self.blocks.contains_key(&id) || (0..BLOCK_SLOTS).any(holds)
    }
    /// Where the long pool with this first block is entered.
    pub fn starts(&self, first: BlockId) -> Option<&[BlockId; STARTS]> {
        self.starts.get(&first)
    }
    /// The limit of a service as a whole.
    pub fn limit(&self, service: ServiceId) -> Option<&ServiceLimit> {
        self.limits.get(&service).map(Box::as_ref)
    }
    /// Clients' prefixes, by the number of source ranges under which they are.
    pub fn ranges(&self) -> &BTreeMap<u32, BTreeSet<IpNet>> {
        &self.ranges
    }
    /// VIPs.
    pub fn vips(&self) -> &BTreeMap<IpAddr, Vip> {
        &self.vips
    }

    /// Which service has an entry.
    pub fn owner(&self, key: &PortKey) -> Option<ServiceId> {
        self.owners.get(key).copied()
    }
    /// Addresses for source NAT; `None`: not known (adopted).
    pub fn sources(&self) -> Option<&SnatSpec> {
        self.sources.as_ref()
    }

    /// What the next agent can't read back.
    #[cfg(test)]
    pub(super) fn forget_unread(&mut self) {
        self.services.values_mut().for_each(|service| service.tables.clear());
        self.sources = None;
    }

    /// Notes that the kernel took a step.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Name { service, name: Some(name) } => {
                self.names.insert(name.clone(), *service);
                self.services.entry(*service).or_default().name = name.clone();
            }
            Step::Name { service, name: None } => {
                if let Some(gone) = self.services.remove(service) {
                    self.names.remove(&gone.name);
                }
            }
            Step::Backend { id, value } => self.set_backend(*id, *value),
            Step::Block { block, value } => {
                if let Some(before) = self.blocks.remove(block)
                    && let Some(service) = self.services.get_mut(&before.service)
                {
                    service.blocks.remove(block);
                }
                if value.service != u32::MAX {
                    self.blocks.insert(*block, *value);
                    self.services.entry(value.service).or_default().blocks.insert(*block);
                }
            }
            Step::Starts { block, value } => {
                match value {
                    Some(value) => self.starts.insert(*block, *value),
                    None => self.starts.remove(block),
                };
            }
            Step::Limit { service, value } => {
                match value {
                    Some(value) => self.limits.insert(*service, value.clone()),
                    None => self.limits.remove(service),
                };
            }
            Step::Table { service, list, table } => {
                let tables = &mut self.services.entry(*service).or_default().tables;
                if table.members.is_empty() {
                    tables.remove(&list.0);
                } else {
                    tables.insert(list.0, table.clone());
                }
            }
            Step::Host { service, address, backend } => {
                let hosts = &mut self.services.entry(*service).or_default().hosts;
                match backend {
                    Some(backend) => hosts.insert(*address, *backend),
                    None => hosts.remove(address),
                };
            }
            Step::Sources { value } => self.sources = Some(value.clone()),
            Step::Admit { ranges, prefix, admitted: true } => {
                self.ranges.entry(*ranges).or_default().insert(*prefix);
            }
            Step::Admit { ranges, prefix, admitted: false } => {
                if let Some(prefixes) = self.ranges.get_mut(ranges) {
                    prefixes.remove(prefix);
                    if prefixes.is_empty() {
                        self.ranges.remove(ranges);
                    }
                }
            }
            Step::AddVip { vip, value } => {
                self.vips.insert(*vip, *value);
            }
            Step::RemoveVip { vip } => {
                self.vips.remove(vip);
            }
            Step::AddPort { vip, port, proto, value } => {
                let key = (*vip, *proto, port.get());
                self.remove_port(key);
                self.owners.insert(key, value.id);
                self.services.entry(value.id).or_default().ports.insert(key, *value);
            }
            Step::RemovePort { vip, port, proto } => self.remove_port((*vip, *proto, port.get())),
            Step::ZeroCounters { .. } | Step::ZeroDurations { .. } => {}
        }
    }

    fn set_backend(&mut self, id: BackendId, value: Backend) {
        if let Some(before) = self.backends.remove(&id)
            && let Some(address) = before.address()
            && let Some(service) = self.services.get_mut(&before.service)
        {
            service.backends.remove(&backend_name(address, before.port()));
        }
        if let Some(address) = value.address() {
            self.backends.insert(id, value);
            let service = self.services.entry(value.service).or_default();
            service.backends.insert(backend_name(address, value.port()), id);
        }
    }

    fn remove_port(&mut self, key: PortKey) {
        if let Some(owner) = self.owners.remove(&key)
            && let Some(service) = self.services.get_mut(&owner)
        {
            service.ports.remove(&key);
        }
    }
}
