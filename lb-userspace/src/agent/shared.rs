//! What tasks share: the desired state, the mirror of the maps, the last census. Readers look, the owner writes.

mod unserved;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use lb_common::{
    abi::{PortBe, Proto},
    affinity::group_at,
    expiry::Timeout,
};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{broadcast, mpsc, watch};

pub use super::state::State;
use super::tasks::{TaskEnd, TaskReport};
use super::{events::Log, saving::Newest, seen::Seen};
use crate::{
    api::types::{ClusterView, StatusView, WarningView},
    cluster::{Sharing, SharingTimes, rebalance::Owned},
    connection_log::ConnectionLog,
    conntrack::{Census, Closer, Directory},
    datapath::{
        Clock, DatapathError, Maps, clients::Clients, flows::FlowTables, object::Object, pin::PinDir,
        repin::Repin, sockets::SocketPins,
    },
    model::OwnAddresses,
    observe::{Snapshot, metrics::Rows, views},
    proxy::{ClusterState, Occurrence, ProxyMetrics, events::WAITING},
    reconcile::Rejection,
    source::{Good, KubernetesSpec, Names, kubernetes::feed::Asked},
};

/// Something that follows from the state, and of which revision it is.
struct Kept<T>(Mutex<Option<(u64, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// See the module.
pub struct Shared {
    state: RwLock<State>,
    /// The directory.
    directory: Kept<Directory>,
    /// What the metrics page says but for what is counted.
    rows: Kept<Rows>,
    census: RwLock<Arc<Census>>,
    /// All counts, for as long as anybody uses them, and when they were begun to be read.
    pub(super) snapshot: Mutex<Option<(Instant, Weak<Snapshot>)>>,
    /// Closes connections.
    pub closer: Closer,
    /// Addresses of hosts, and where they are to be written.
    pub names: Newest<(PathBuf, Names)>,
    /// What was good last of the config, likewise.
    pub good: Newest<(PathBuf, Good)>,
    /// The cluster that is to be followed.
    pub kubernetes: watch::Sender<Option<Arc<KubernetesSpec>>>,
    /// What is known of it.
    pub cluster: watch::Sender<Option<ClusterState>>,
    /// Who knows why its Services lead where they do.
    pub feed: Mutex<Option<mpsc::Sender<Asked>>>,
    /// What is counted of it.
    pub proxy_metrics: Arc<ProxyMetrics>,
    /// Where load balancers, kubelets and scrapers can't be listened to, and why, by port.
    pub deaf: watch::Sender<BTreeMap<u16, String>>,
    /// What happens in it, for Events.
    pub occurrences: broadcast::Sender<Occurrence>,
    /// The node's addresses.
    pub own: watch::Sender<OwnAddresses>,
    /// What happens.
    pub log: Log,
    /// A line for each connection that has ended.
    pub connection_log: Arc<ConnectionLog>,
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
    /// Are they led at their sockets?
    pub led: bool,
    /// The affinity table.
    pub clients: Clients,
    /// Programs; locked for a swap, or for a batch of the sweeper's requests.
    pub object: Mutex<Object>,
    /// What shares counts with other nodes, while it does.
    pub sharing: watch::Sender<Option<Sharing>>,
    /// What those nodes were like a moment ago.
    pub sharing_view: watch::Sender<Option<Arc<ClusterView>>>,
    /// How old what is known of them is, and how long what is told takes.
    pub sharing_times: SharingTimes,
    /// What is handed out of services that are rebalanced.
    pub owned: Owned,
    /// Kernel time.
    pub clock: Clock,
    /// Capacity.
    pub max_flows: u32,
    /// Key of consistent hashing.
    pub hash_seed: u64,
    /// May checks run programs, as the config file says now?
    pub exec_checks: AtomicBool,
    /// For messages.
    pub config_path: Option<PathBuf>,
    /// Time from a change to its being in force.
    pub reconcile: Histogram,
    pub(super) kernel: String,
    started: Instant,
}

impl Shared {
    /// Around loaded programs. `led`: are the node's own processes to be led at their sockets?
    ///
    /// # Errors
    /// The maps can't be opened.
    pub fn new(
        object: Object,
        pins: &PinDir,
        led: bool,
        config_path: Option<PathBuf>,
    ) -> Result<Self, DatapathError> {
        let (clock, max_flows, hash_seed) = (object.clock, object.max_flows, object.hash_seed);
        Ok(Self {
            state: RwLock::default(),
            directory: Kept::default(),
            rows: Kept::default(),
            closer: Closer::default(),
            snapshot: Mutex::default(),
            census: RwLock::default(),
            names: Newest::default(),
            good: Newest::default(),
            kubernetes: watch::channel(None).0,
            cluster: watch::channel(None).0,
            feed: Mutex::default(),
            proxy_metrics: Arc::default(),
            deaf: watch::channel(BTreeMap::new()).0,
            occurrences: broadcast::channel(WAITING).0,
            own: watch::channel(OwnAddresses::new()).0,
            log: Log::default(),
            connection_log: Arc::default(),
            bound: AtomicU64::default(),
            timed_out: Mutex::default(),
            maps: Maps::open(pins)?,
            tables: FlowTables::open(pins, object.seed)?,
            sockets: SocketPins::open(pins)?,
            led,
            clients: Clients::open(pins)?,
            object: Mutex::new(object),
            owned: Owned::default(),
            sharing: watch::channel(None).0,
            sharing_view: watch::channel(None).0,
            sharing_times: SharingTimes::default(),
            clock,
            max_flows,
            hash_seed,
            exec_checks: AtomicBool::default(),
            config_path,
            reconcile: Histogram::new(exponential_buckets(0.0001, 4.0, 10)),
            kernel: nix::sys::utsname::uname()
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            started: Instant::now(),
        })
    }

    /// Tells who follows the node's addresses.
    pub fn note_own(&self, seen: &Seen) {
        if seen.addresses.is_ok() {
            let now = seen.own();
            self.own.send_if_modified(|own| {
                let new = *own != now;
                *own = now;
                new
            });
        }
    }

    /// Notes what became of a task: in the log, in the status, in the metrics and among the events.
    pub fn note_task(&self, name: &'static str, said: TaskReport) {
        let mut state = self.write();
        match said {
            TaskReport::Kept => drop(state.restarts.entry(name).or_default()),
            TaskReport::Ended(TaskEnd { why, count, rest }) => {
                tracing::error!("task \"{name}\" {why}; it is started again in {rest:?}");
                self.log.note("panic", "", "", format!("{name} {why}"));
                *state.restarts.entry(name).or_default() = count;
                let times = if count == 1 { "once".into() } else { format!("{count} times") };
                let problem = format!(
                    "task \"{name}\" has been started again {times}, since it {why}; report it, with the log"
                );
                state.tasks.insert(name, problem);
            }
            TaskReport::Well => drop(state.tasks.remove(name)),
        }
    }

    /// Puts pins back that have vanished. What can't be put back is in the status. True: what is attached may have gone with them.
    pub fn keep_pins(&self, repin: &mut Repin) -> bool {
        let kept = repin.keep(&self.object());
        let back = kept.as_ref().map_or(&[][..], |kept| &kept.back);
        if !back.is_empty() {
            let detail = format!("pins had vanished and were put back: {}", back.join(", "));
            tracing::warn!("{detail}");
            self.log.note("pins", "", "", detail);
        }
        let look = !back.is_empty() || kept.as_ref().is_ok_and(|kept| kept.links);
        if kept.is_ok() && !self.read().problems.contains_key("pins") {
            return look;
        }
        let kept = kept.map(drop).map_err(|e| {
            format!(
                "pins have vanished and can't be put back, so that the next agent finds nothing to adopt: {e}"
            )
        });
        self.write().note("pins", kept);
        look
    }

    /// The programs, for one at a time.
    pub fn object(&self) -> MutexGuard<'_, Object> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a look.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    /// For the owner.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose each backend is, as of now.
    pub fn directory(&self) -> Arc<Directory> {
        self.kept(&self.directory, |state| Directory::new(&state.desired, state.actual()))
    }

    /// What the metrics page says but for what is counted.
    pub fn rows(&self) -> Arc<Rows> {
        self.kept(&self.rows, Rows::new)
    }

    /// What follows from the state. Made anew when that has changed.
    fn kept<T>(&self, kept: &Kept<T>, make: impl FnOnce(&State) -> T) -> Arc<T> {
        let state = self.read();
        let mut kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((when, made)) if *when == state.revision() => made.clone(),
            _ => {
                let made = Arc::new(make(&state));
                *kept = Some((state.revision(), made.clone()));
                made
            }
        }
    }

    /// The last census.
    pub fn census(&self) -> Arc<Census> {
        self.census.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// A new one.
    pub fn set_census(&self, census: Census, directory: &Directory) {
        let mut totals = self.timed_out.lock().unwrap_or_else(PoisonError::into_inner);
        for ((service, timeout), count) in census.timeouts.iter().chain(&self.closer.timed_out()) {
            if let Some(name) = directory.name_of(*service) {
                *totals.entry((name.into(), *timeout)).or_default() += count;
            }
        }
        drop(totals);
        *self.census.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(census);
    }

    /// Affinity groups in use, and how long each remembers, in milliseconds: as the maps have it.
    pub fn groups(&self) -> HashMap<u64, u64> {
        let state = self.read();
        let mut groups = HashMap::new();
        for service in state.actual().services().values() {
            let block = service.blocks.first().and_then(|id| state.actual().block(*id));
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

    /// State of the agent.
    pub fn status(&self) -> StatusView {
        let census = self.census();
        let state = self.read();
        let mut problems = state.problems();
        problems.extend(state.sourceless());
        let cluster = self.cluster.borrow();
        problems.extend(cluster.as_ref().and_then(ClusterState::problem));
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
            warnings: state
                .warnings
                .iter()
                .cloned()
                .chain(state.notes.iter().map(|text| note(text)))
                .chain(state.left_out().map(left_out))
                .chain(one_way(&state))
                .chain(short_of_quorum(&state))
                .chain(unserved::warnings(&state))
                .collect(),
            rejected: state.refusals().map(views::rejected).collect(),
            kubernetes: cluster.as_ref().map(|cluster| cluster.view(&self.deaf.borrow())),
            detached: None,
        }
    }
}

/// What is said of backends from which nothing comes back: of the first, and how many there are.
fn one_way(state: &State) -> Option<WarningView> {
    let (service, backend) = state.one_way.first()?;
    let more = match state.one_way.len() - 1 {
        0 => String::new(),
        more => format!(", and so with {more} more"),
    };
    let text = format!(
        "clients ask backend {backend} of service \"{service}\" and nothing comes back by this node{more}"
    );
    // Whatever of the host's is in the way of a backend's answers is the likelier reason.
    let concerned =
        |warning: &&WarningView| ["rp_filter", "netfilter", "route"].contains(&warning.about.as_str());
    let remedy = match state.warnings.iter().find(concerned) {
        Some(warning) => format!("see the warning about {}", warning.about),
        None => "it may lead answers past this node (its route to clients; with forward = \"snat\" it answers to the \
                 node), or its firewall doesn't let clients in"
            .into(),
    };
    Some(WarningView { about: "one-way".into(), text, remedy })
}

/// Services that are down for want of a quorum.
fn short_of_quorum(state: &State) -> impl Iterator<Item = WarningView> {
    let services = state.desired.services().values().filter(|spec| spec.quorum > 1);
    services.filter_map(|spec| {
        let text = format!("service \"{}\" is down: {}", spec.name, state.known().short_of_quorum(spec)?);
        let remedy = format!("see why with flowpin service show {}", spec.name);
        Some(WarningView { about: "quorum".into(), text, remedy })
    })
}

/// An address of a host.
fn left_out(rejection: &Rejection) -> WarningView {
    let remedy = "take it out of the DNS, or declare the other addresses instead of the name".into();
    WarningView { about: "backends by name".into(), text: rejection.to_string(), remedy }
}

fn note(text: &str) -> WarningView {
    let remedy = "remove it there or here".into();
    WarningView { about: "declared twice".into(), text: text.into(), remedy }
}
