//! Typed handles on the maps, by their pins. Each task opens its own; only the owner's are written to.

mod many;

use std::{collections::BTreeSet, net::IpAddr};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use lb_common::abi::{
    Addr4, Addr6, Backend, BackendCounters, BackendId, BlockId, DurationHistogram, HostKey, List, PoolBlock,
    PortBe, Proto, Reason, Service, ServiceId, ServiceKey, ServiceLimit, ServiceName, Vip, limits, maps,
    pool::STARTS,
};

use super::{
    DatapathError,
    counts::Counts,
    filter::{Filter, Known},
    pin::PinDir,
    snat::SourceMaps,
    source_ranges::SourceTries,
    tables::{self, Tables, Wanted},
};
use crate::reconcile::{Actual, Step};

/// The maps, but for the flow tables.
pub struct Maps {
    services4: HashMap<MapData, ServiceKey<Addr4>, Service>,
    services6: HashMap<MapData, ServiceKey<Addr6>, Service>,
    vips4: HashMap<MapData, Addr4, Vip>,
    vips6: HashMap<MapData, Addr6, Vip>,
    filter: Filter,
    pools: Array<MapData, PoolBlock>,
    starts: HashMap<MapData, BlockId, [BlockId; STARTS]>,
    limits: HashMap<MapData, ServiceId, ServiceLimit>,
    active: Counts,
    clients: Counts,
    hosts: HashMap<MapData, HostKey, BackendId>,
    source_ranges: SourceTries,
    backends: Array<MapData, Backend>,
    counters: PerCpuArray<MapData, BackendCounters>,
    /// The same and [`Self::durations`], to be read many at a time.
    counters_data: MapData,
    durations_data: MapData,
    tables: Tables,
    reasons: PerCpuArray<MapData, u64>,
    durations: Array<MapData, DurationHistogram>,
    names: Array<MapData, ServiceName>,
    sources: SourceMaps,
    cpus: usize,
}

/// What became of a plan.
pub struct Applied {
    /// How many of its steps were taken.
    pub done: usize,
    /// Those among them that are tables which the kernel refused, by position: a matter of their services alone.
    pub tables: Vec<(usize, DatapathError)>,
    /// Why no more.
    pub result: Result<(), DatapathError>,
}

fn failed(what: &str) -> impl FnOnce(MapError) -> DatapathError {
    DatapathError::kernel(what.to_string())
}

/// Removing what is not there is no failure. Was it there?
pub(super) fn gone(result: Result<(), MapError>, what: &str) -> Result<bool, DatapathError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|()| true).map_err(failed(what)),
    }
}

impl Maps {
    /// Opens all of them.
    ///
    /// # Errors
    /// One is missing or of another kind.
    pub fn open(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self {
            services4: pins.open_as(maps::SERVICES4, Map::HashMap)?,
            services6: pins.open_as(maps::SERVICES6, Map::HashMap)?,
            vips4: pins.open_as(maps::VIPS4, Map::HashMap)?,
            vips6: pins.open_as(maps::VIPS6, Map::HashMap)?,
            filter: Filter::over(pins.open_as(maps::FILTER, Map::Array)?),
            pools: pins.open_as(maps::POOLS, Map::Array)?,
            starts: pins.open_as(maps::STARTS, Map::HashMap)?,
            limits: pins.open_as(maps::LIMITS, Map::HashMap)?,
            active: Counts::open(pins, maps::ACTIVE)?,
            clients: Counts::open(pins, maps::CLIENTS)?,
            hosts: pins.open_as(maps::HOSTS, Map::HashMap)?,
            source_ranges: SourceTries::open(pins)?,
            backends: pins.open_as(maps::BACKENDS, Map::Array)?,
            counters: pins.open_as(maps::BACKEND_COUNTERS, Map::PerCpuArray)?,
            tables: Tables::over(pins.open_as(maps::TABLES, Map::ArrayOfMaps)?, pins.data(maps::TABLES)?),
            reasons: pins.open_as(maps::REASONS, Map::PerCpuArray)?,
            durations: pins.open_as(maps::DURATIONS, Map::Array)?,
            counters_data: pins.data(maps::BACKEND_COUNTERS)?,
            durations_data: pins.data(maps::DURATIONS)?,
            names: pins.open_as(maps::SERVICE_NAMES, Map::Array)?,
            sources: SourceMaps::open(pins)?,
            cpus: aya::util::nr_cpus().map_err(|(path, e)| DatapathError::io(path)(e))?,
        })
    }

    /// Takes the steps, in order.
    pub fn apply(&mut self, steps: &[Step]) -> Applied {
        let mut applied = Applied { done: 0, tables: Vec::new(), result: Ok(()) };
        while applied.done < steps.len() && applied.result.is_ok() {
            applied.result = self.take(steps, &mut applied);
        }
        applied
    }

    /// Takes the next step, and with a table the tables that follow it.
    fn take(&mut self, steps: &[Step], applied: &mut Applied) -> Result<(), DatapathError> {
        let steps = &steps[applied.done..];
        let Some(step) = steps.first() else { return Ok(()) };
        match step {
            Step::Table { .. } => {
                let run: Vec<Wanted<'_>> = steps
                    .iter()
                    .map_while(|step| match step {
                        Step::Table { service, list, table } => Some((*service, *list, table)),
                        _ => None,
                    })
                    .take(tables::BATCH)
                    .collect();
                for result in self.tables.publish(&run) {
                    applied.tables.extend(result.err().map(|e| (applied.done, e)));
                    applied.done += 1;
                }
                return Ok(());
            }
            Step::Name { service, name } => {
                let name = name.as_deref().and_then(ServiceName::new).unwrap_or_default();
                self.names.set(*service, name, 0).map_err(failed(maps::SERVICE_NAMES))
            }
            Step::Backend { id, value } => {
                self.filter.set_backend(*id, value.address()).map_err(failed(maps::FILTER))?;
                self.backends.set(id.0, value, 0).map_err(failed(maps::BACKENDS))
            }
            Step::ZeroCounters { id } => {
                let zeros = PerCpuValues::try_from(vec![BackendCounters::default(); self.cpus])
                    .map_err(DatapathError::io(maps::BACKEND_COUNTERS))?;
                self.counters.set(id.0, zeros, 0).map_err(failed(maps::BACKEND_COUNTERS))
            }
            Step::ZeroDurations { service } => {
                self.durations.set(*service, DurationHistogram::default(), 0).map_err(failed(maps::DURATIONS))
            }
            Step::Block { block, value } => self.pools.set(*block, value, 0).map_err(failed(maps::POOLS)),
            Step::Host { service, address, backend } => self.set_host(*service, *address, *backend),
            Step::Starts { block, value: Some(value) } => {
                self.starts.insert(block, value, 0).map_err(failed(maps::STARTS))
            }
            Step::Starts { block, value: None } => gone(self.starts.remove(block), maps::STARTS).map(drop),
            Step::Limit { service, value: Some(value) } => {
                self.limits.insert(service, **value, 0).map_err(failed(maps::LIMITS))
            }
            Step::Limit { service, value: None } => gone(self.limits.remove(service), maps::LIMITS).map(drop),
            Step::Sources { value } => {
                value.addresses.iter().try_for_each(|address| self.add_destination(*address))?;
                self.sources.set(value)
            }
            Step::Admit { ranges, prefix, admitted } => self.source_ranges.set(*ranges, *prefix, *admitted),
            Step::AddVip { vip: IpAddr::V4(vip), value } => {
                self.add_destination((*vip).into())?;
                self.vips4.insert(Addr4::from(*vip), value, 0).map_err(failed(maps::VIPS4))
            }
            Step::AddVip { vip: IpAddr::V6(vip), value } => {
                self.add_destination((*vip).into())?;
                self.vips6.insert(Addr6::from(*vip), value, 0).map_err(failed(maps::VIPS6))
            }
            Step::RemoveVip { vip: IpAddr::V4(vip) } => {
                gone(self.vips4.remove(&Addr4::from(*vip)), maps::VIPS4).map(drop)
            }
            Step::RemoveVip { vip: IpAddr::V6(vip) } => {
                gone(self.vips6.remove(&Addr6::from(*vip)), maps::VIPS6).map(drop)
            }
            Step::AddPort { vip, port, proto, value } => self.add_port(*vip, *port, *proto, value),
            Step::RemovePort { vip, port, proto } => self.remove_port(*vip, *port, *proto),
        }
        .map(|()| applied.done += 1)
    }

    fn set_host(
        &mut self,
        service: ServiceId,
        address: IpAddr,
        backend: Option<BackendId>,
    ) -> Result<(), DatapathError> {
        let key = HostKey { service, addr: Backend::new(address, None, service).addr };
        match backend {
            Some(backend) => self.hosts.insert(key, backend, 0).map_err(failed(maps::HOSTS)),
            None => gone(self.hosts.remove(&key), maps::HOSTS).map(drop),
        }
    }

    /// A port leads to a service from now on, or to another one.
    fn add_port(
        &mut self,
        vip: IpAddr,
        port: PortBe,
        proto: Proto,
        value: &Service,
    ) -> Result<(), DatapathError> {
        if self.lookup(vip, port.get(), proto).is_none() {
            self.filter.add_port(vip, port, proto).map_err(failed(maps::FILTER))?;
        }
        self.add_destination(vip)?;
        match vip {
            IpAddr::V4(vip) => {
                let key = ServiceKey::new(Addr4::from(vip), port, proto);
                self.services4.insert(key, value, 0).map_err(failed(maps::SERVICES4))
            }
            IpAddr::V6(vip) => {
                let key = ServiceKey::new(Addr6::from(vip), port, proto);
                self.services6.insert(key, value, 0).map_err(failed(maps::SERVICES6))
            }
        }
    }

    /// Addresses for source NAT, and which of their ports are taken.
    pub fn sources(&mut self) -> &mut SourceMaps {
        &mut self.sources
    }

    /// Packets of flows are sent to this address from now on.
    fn add_destination(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        self.filter.add_destination(address).map_err(failed(maps::FILTER))
    }

    fn remove_port(&mut self, vip: IpAddr, port: PortBe, proto: Proto) -> Result<(), DatapathError> {
        let there = match vip {
            IpAddr::V4(vip) => {
                let key = ServiceKey::new(Addr4::from(vip), port, proto);
                gone(self.services4.remove(&key), maps::SERVICES4)?
            }
            IpAddr::V6(vip) => {
                let key = ServiceKey::new(Addr6::from(vip), port, proto);
                gone(self.services6.remove(&key), maps::SERVICES6)?
            }
        };
        if there {
            self.filter.remove_port(vip, port, proto).map_err(failed(maps::FILTER))?;
        }
        Ok(())
    }

    /// Reads back what a previous agent left, and makes the filter fit. For the owner. `destinations`: where packets of the flows are sent that
    /// there are.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read_actual(&mut self, destinations: BTreeSet<IpAddr>) -> Result<Actual, DatapathError> {
        let mut actual = Actual::default();
        let mut known = Known { destinations: destinations.into_iter().collect(), ..Known::default() };
        for service in 0..limits::MAX_SERVICES {
            let name = self.names.get(&service, 0).map_err(failed(maps::SERVICE_NAMES))?;
            if let Some(name) = name.get() {
                actual.apply(&Step::Name { service, name: Some(name.into()) });
            }
        }
        for block in 1..limits::MAX_BLOCKS {
            let value = self.pools.get(&block, 0).map_err(failed(maps::POOLS))?;
            // A block that was never written is all zero: no weight, and no service has chained it.
            let ours = actual.services().contains_key(&value.service) && value.limit[0] != 0;
            if !ours {
                continue;
            }
            actual.apply(&Step::Block { block, value });
            for slot in 0..lb_common::abi::BLOCK_SLOTS as u32 {
                let id = BackendId::new(block, slot);
                let value = self.backends.get(&id.0, 0).map_err(failed(maps::BACKENDS))?;
                if let Some(address) = value.address() {
                    known.backends.push((id, address));
                    actual.apply(&Step::Backend { id, value });
                }
            }
        }
        for entry in self.hosts.iter() {
            let (HostKey { service, .. }, backend) = entry.map_err(failed(maps::HOSTS))?;
            let address = actual.backend(backend).and_then(Backend::address);
            if let Some(address) = address {
                actual.apply(&Step::Host { service, address, backend: Some(backend) });
            }
        }
        for entry in self.starts.iter() {
            let (block, value) = entry.map_err(failed(maps::STARTS))?;
            actual.apply(&Step::Starts { block, value: Some(value) });
        }
        for entry in self.limits.iter() {
            let (service, value) = entry.map_err(failed(maps::LIMITS))?;
            actual.apply(&Step::Limit { service, value: Some(Box::new(value)) });
        }
        for (ranges, prefix) in self.source_ranges.read()? {
            actual.apply(&Step::Admit { ranges, prefix, admitted: true });
        }
        for entry in self.services4.iter() {
            let (key, value) = entry.map_err(failed(maps::SERVICES4))?;
            let vip = IpAddr::V4(key.vip.into());
            known.ports.push((vip, key.port, key.proto));
            known.destinations.push(vip);
            actual.apply(&Step::AddPort { vip, port: key.port, proto: key.proto, value });
        }
        for entry in self.services6.iter() {
            let (key, value) = entry.map_err(failed(maps::SERVICES6))?;
            let vip = IpAddr::V6(key.vip.into());
            known.ports.push((vip, key.port, key.proto));
            known.destinations.push(vip);
            actual.apply(&Step::AddPort { vip, port: key.port, proto: key.proto, value });
        }
        for entry in self.vips4.iter() {
            let (vip, value) = entry.map_err(failed(maps::VIPS4))?;
            actual.apply(&Step::AddVip { vip: IpAddr::V4(vip.into()), value });
        }
        for entry in self.vips6.iter() {
            let (vip, value) = entry.map_err(failed(maps::VIPS6))?;
            actual.apply(&Step::AddVip { vip: IpAddr::V6(vip.into()), value });
        }
        known.destinations.extend(actual.vips().keys());
        self.filter.rebuild(known).map_err(failed(maps::FILTER))?;
        Ok(actual)
    }

    /// Active connections of a backend.
    pub fn active(&self, id: BackendId) -> u32 {
        self.active.of(id)
    }

    /// Clients that are bound to a backend and have an open flow.
    pub fn clients(&self, id: BackendId) -> u32 {
        self.clients.of(id)
    }

    /// The backend in the slot of a service's Maglev table that a hash leads to.
    pub fn slot(&self, service: ServiceId, list: List, hash: u32) -> Option<BackendId> {
        self.tables.slot(service, list, hash)
    }

    /// A block of a pool.
    pub fn block(&self, id: BlockId) -> Option<PoolBlock> {
        self.pools.get(&id, 0).ok()
    }

    /// Counters of a backend, summed over CPUs.
    pub fn counters(&self, id: BackendId) -> BackendCounters {
        let Ok(values) = self.counters.get(&id.0, 0) else { return BackendCounters::default() };
        values.iter().fold(BackendCounters::default(), |sum, c| sum.plus(*c))
    }

    /// How often a packet was refused for a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.get(&(reason as u32), 0).map_or(0, |values| values.iter().sum())
    }

    /// A service's connection durations.
    pub fn durations(&self, service: ServiceId) -> DurationHistogram {
        self.durations.get(&service, 0).unwrap_or_default()
    }

    /// Which service a VIP, port and protocol lead to.
    pub fn lookup(&self, vip: IpAddr, port: u16, proto: Proto) -> Option<Service> {
        let port = PortBe::new(port);
        match vip {
            IpAddr::V4(vip) => self.services4.get(&ServiceKey::new(vip.into(), port, proto), 0).ok(),
            IpAddr::V6(vip) => self.services6.get(&ServiceKey::new(vip.into(), port, proto), 0).ok(),
        }
    }
}
