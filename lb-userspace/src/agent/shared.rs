//! What tasks share: the desired state, the mirror of the maps, the last census. Readers look, the owner writes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lb_common::{
    abi::{BackendId, PortBe, Proto, Reason, ServiceId},
    affinity::group_at,
    expiry::{Timeout, Timeouts},
};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::events::Log;
pub use super::state::State;
use crate::{
    api::types::{ConnectionFilter, ConnectionView, ServiceView, StatsView, StatusView, WarningView},
    conntrack::Census,
    datapath::{
        Clock, DatapathError, Maps, clients::Clients, flows::FlowTables, object::Object, pin::PinDir,
        sockets::SocketPins,
    },
    observe::{
        connections::{self, Order, Place, Victims},
        metrics, views,
    },
};

/// See the module.
pub struct Shared {
    state: RwLock<State>,
    census: RwLock<Census>,
    /// One at a time writes the last good config.
    pub saving: Mutex<()>,
    /// What happens.
    pub log: Log,
    /// Clients in the affinity table, as of the last look.
    pub bound: AtomicU64,
    /// Flows that ran into a timeout, by service and timeout.
    pub timed_out: Mutex<BTreeMap<(String, Timeout), u64>>,
    /// Read halves of the maps.
    pub maps: Maps,
    /// Read halves of the flow tables.
    pub tables: FlowTables,
    /// What the node's own processes have.
    pub sockets: SocketPins,
    /// The affinity table.
    pub clients: Clients,
    /// Programs; locked for a swap, or for a batch of the sweeper's requests.
    pub object: Mutex<Object>,
    /// Kernel time.
    pub clock: Clock,
    /// Capacity.
    pub max_flows: u32,
    /// For messages.
    pub config_path: Option<PathBuf>,
    /// Time from a change to its being in force.
    pub reconcile: Histogram,
    kernel: String,
    started: Instant,
}

impl Shared {
    /// Around loaded programs.
    ///
    /// # Errors
    /// The maps can't be opened.
    pub fn new(object: Object, pins: &PinDir, config_path: Option<PathBuf>) -> Result<Self, DatapathError> {
        let (clock, max_flows) = (object.clock, object.max_flows);
        Ok(Self {
            state: RwLock::default(),
            census: RwLock::default(),
            saving: Mutex::default(),
            log: Log::default(),
            bound: AtomicU64::default(),
            timed_out: Mutex::default(),
            maps: Maps::open(pins)?,
            tables: FlowTables::open(pins, object.seed)?,
            sockets: SocketPins::open(pins)?,
            clients: Clients::open(pins)?,
            object: Mutex::new(object),
            clock,
            max_flows,
            config_path,
            reconcile: Histogram::new(exponential_buckets(0.0001, 4.0, 10)),
            kernel: nix::sys::utsname::uname()
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            started: Instant::now(),
        })
    }

    /// For a look.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    /// For the owner.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
    /// The last census.
    pub fn census(&self) -> RwLockReadGuard<'_, Census> {
        self.census.read().unwrap_or_else(PoisonError::into_inner)
    }
    /// A new one.
    pub fn set_census(&self, census: Census) {
        {
            let mut state = self.write();
            state.oldest.clone_from(&census.oldest);
            let mut totals = self.timed_out.lock().unwrap_or_else(PoisonError::into_inner);
            for ((service, timeout), count) in census.timeouts.iter().filter(|(_, count)| **count > 0) {
                if let Some(service) = state.actual.services().get(service) {
                    *totals.entry((service.name.clone(), *timeout)).or_default() += count;
                }
            }
        }
        *self.census.write().unwrap_or_else(PoisonError::into_inner) = census;
    }

    /// All services with counters.
    pub fn services(&self) -> Vec<ServiceView> {
        let state = self.read();
        state.desired.services().values().map(|s| views::service(s, &state, &self.maps)).collect()
    }

    /// Active counts of all backends.
    pub fn active(&self) -> HashMap<BackendId, u32> {
        let ids: Vec<BackendId> = self.read().actual.backends().map(|(id, _)| id).collect();
        ids.into_iter().map(|id| (id, self.maps.active(id))).collect()
    }

    /// Backends that are no longer declared.
    pub fn retired(&self) -> HashSet<BackendId> {
        self.read().actual.backends().filter(|(_, b)| b.retired != 0).map(|(id, _)| id).collect()
    }

    /// Which service a backend belongs to.
    pub fn owners(&self) -> HashMap<BackendId, ServiceId> {
        self.read().actual.backends().map(|(id, b)| (id, b.service)).collect()
    }

    /// Timeouts of services that have their own.
    pub fn timeouts(&self) -> HashMap<ServiceId, Timeouts> {
        let state = self.read();
        let services = state.desired.services().values().filter(|s| s.timeouts != Default::default());
        services.filter_map(|s| Some((state.actual.id(&s.name)?, s.timeouts.limits()))).collect()
    }

    /// Affinity groups in use, and how long each remembers, in milliseconds: as the maps have it.
    pub fn groups(&self) -> HashMap<u64, u64> {
        let state = self.read();
        let mut groups = HashMap::new();
        for service in state.actual.services().values() {
            let block = service.blocks.first().and_then(|id| state.actual.block(*id));
            let Some(block) = block.filter(|block| block.group != 0) else { continue };
            let remember = block.remember.into();
            if block.by_port == 0 {
                groups.insert(block.group, remember);
                continue;
            }
            let ports: HashSet<(u16, Proto)> =
                service.ports.keys().map(|(_, proto, port)| (*port, *proto)).collect();
            let at = |(port, proto)| (group_at(block.group, PortBe::new(port), proto), remember);
            groups.extend(ports.into_iter().map(at));
        }
        groups
    }

    /// Names of services by backend.
    pub fn names(&self) -> HashMap<BackendId, String> {
        let state = self.read();
        let name = |id| state.actual.services().get(&id).map(|s| s.name.clone()).unwrap_or_default();
        state.actual.backends().map(|(id, b)| (id, name(b.service))).collect()
    }

    /// What connections are looked for in. `services`: their names, by backend.
    const fn place<'a>(&'a self, services: &'a HashMap<BackendId, String>) -> Place<'a> {
        Place { tables: &self.tables, sockets: &self.sockets, clock: self.clock, services }
    }

    /// Connections that match.
    pub fn connections(
        &self,
        filter: &ConnectionFilter,
        order: Option<Order>,
        limit: Option<usize>,
    ) -> Vec<ConnectionView> {
        let names = self.names();
        connections::list(self.place(&names), filter, order, limit)
    }

    /// The same, as they come, until `visit` has enough.
    pub fn stream(&self, filter: &ConnectionFilter, visit: impl FnMut(ConnectionView) -> bool) {
        let names = self.names();
        connections::stream(self.place(&names), filter, visit);
    }

    /// Connections that count, match and have been silent for so long.
    pub fn victims(&self, filter: &ConnectionFilter, idle_for: Duration) -> Victims {
        let names = self.names();
        connections::victims(self.place(&names), filter, idle_for, |_| true)
    }

    /// Connections that count and belong to these backends.
    pub fn victims_of(&self, backends: &HashSet<BackendId>) -> Victims {
        let (nameless, all) = (HashMap::new(), ConnectionFilter::default());
        connections::victims(self.place(&nameless), &all, Duration::ZERO, |id| backends.contains(&id))
    }

    /// State of the agent.
    pub fn status(&self) -> StatusView {
        let census = self.census();
        let state = self.read();
        let mut problems = state.problems();
        problems.extend(state.sourceless());
        if census.drift != 0 {
            problems.push(format!("accounting drift {}: report it, with the kernel's version", census.drift));
        }
        StatusView {
            state: if problems.is_empty() { "ok" } else { "degraded" }.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: self.kernel.clone(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            interfaces: state.interfaces.clone(),
            services: state.desired.services().len() as u64,
            backends: state.desired.services().values().map(|s| s.backends.len() as u64).sum(),
            conntrack_entries: census.flows,
            conntrack_capacity: self.max_flows.into(),
            affinity_entries: self.bound.load(Ordering::Relaxed),
            affinity_capacity: self.clients.capacity().into(),
            accounting_drift: census.drift,
            sweeps: census.generation,
            generation: state.generation,
            problems,
            warnings: state.warnings.iter().cloned().chain(state.notes.iter().map(note)).collect(),
            rejected: state.rejected.iter().map(views::rejected).collect(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> StatsView {
        let drops = Reason::ALL.iter().map(|r| (r.name().to_string(), self.maps.reason(*r))).collect();
        StatsView { services: self.services(), drops }
    }

    /// The metrics page.
    ///
    /// # Errors
    /// None in practice.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let durations = {
            let state = self.read();
            let services = state.actual.services().iter();
            services.map(|(id, s)| (s.name.clone(), self.maps.durations(*id))).collect()
        };
        let (entries, drift) = {
            let census = self.census();
            (census.flows, census.drift)
        };
        metrics::render(metrics::Page {
            services: self.services(),
            durations,
            reasons: Reason::ALL.iter().map(|r| (*r, self.maps.reason(*r))).collect(),
            entries,
            capacity: self.max_flows.into(),
            clients: (self.bound.load(Ordering::Relaxed), self.clients.capacity().into()),
            timed_out: self.timed_out.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            drift,
            clock: self.clock,
            reconcile: self.reconcile.clone(),
            kernel: self.kernel.clone(),
            rejected: self.read().rejected.iter().map(views::rejected).collect(),
        })
    }
}

fn note(text: &String) -> WarningView {
    let remedy = "remove it there or here".into();
    WarningView { about: "declared twice".into(), text: text.clone(), remedy }
}
