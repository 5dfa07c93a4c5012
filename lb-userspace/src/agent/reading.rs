//! What the agent can say of its state, counts and connections.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Instant,
};

use lb_common::abi::{BackendId, Reason};

use super::shared::Shared;
use crate::{
    api::{
        error::ApiError,
        types::{ClusterView, ConnectionFilter, ConnectionView, ServiceView, StatsView},
    },
    cluster::{self, pools::Pools},
    conntrack::{Directory, matches::Place},
    datapath::DatapathError,
    observe::{
        Overview, Snapshot,
        connections::{self, Order},
        metrics::{Figures, Node, node::Cluster},
        overview::{Durations, Shown, cpu_time},
        views,
    },
    proxy::state::families,
};

/// Backends whose counters are read one by one; of more, all are.
const ONE_BY_ONE: usize = 1024;

impl Shared {
    /// All counts, as of a moment after `since`. Whoever asks while one is taken for somebody else gets the same, if it is
    /// young enough. Takes a while: for a thread that may block.
    ///
    /// # Errors
    /// The kernel refuses.
    fn snapshot(&self, since: Instant) -> Result<Arc<Snapshot>, DatapathError> {
        let mut taken = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, snapshot)) = &*taken
            && *when >= since
            && let Some(snapshot) = snapshot.upgrade()
        {
            return Ok(snapshot);
        }
        let began = Instant::now();
        let blocks = self.directory().blocks();
        let snapshot = Arc::new(Snapshot::take(&self.maps, self.census(), blocks)?);
        *taken = Some((began, Arc::downgrade(&snapshot)));
        Ok(snapshot)
    }

    /// Counts of one service's backends, as of now.
    pub fn counts_of(&self, service: &str) -> Snapshot {
        let ids: Vec<BackendId> = {
            let state = self.read();
            let backends = state.actual().service(service).map(|s| s.backends.values().copied().collect());
            backends.unwrap_or_default()
        };
        Snapshot::of(&self.maps, self.census(), &ids)
    }

    /// All services with counters.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn services(&self, since: Instant) -> Result<Vec<ServiceView>, DatapathError> {
        let snapshot = self.snapshot(since)?;
        let state = self.read();
        Ok(state.desired.services().values().map(|s| views::service(s, &state, &snapshot)).collect())
    }

    /// The nodes that share counts.
    ///
    /// # Errors
    /// This one doesn't.
    pub async fn cluster_view(&self) -> Result<ClusterView, ApiError> {
        let sharing = self.sharing.borrow().clone();
        let view = match sharing {
            Some(sharing) => sharing.mesh.view().await,
            None => None,
        };
        let view = view.ok_or_else(|| {
            let state = self.read();
            ApiError::Conflict(state.problems.get(cluster::PROBLEM).map_or_else(
                || "this agent shares no counts: write [cluster] in its config file, and restart it".into(),
                |problem| format!("cluster: {problem}"),
            ))
        })?;
        Ok(ClusterView::new(&view, &Pools::of(&self.read())))
    }

    /// What connections are looked for in.
    pub const fn place<'a>(&'a self, directory: &'a Directory) -> Place<'a> {
        Place { tables: &self.tables, sockets: &self.sockets, clock: self.clock, directory }
    }

    /// Connections that match.
    pub fn connections(
        &self,
        filter: &ConnectionFilter,
        order: Option<Order>,
        limit: Option<usize>,
    ) -> Vec<ConnectionView> {
        connections::list(self.place(&self.directory()), filter, order, limit)
    }

    /// The same, as they come, until `visit` has enough.
    pub fn stream(&self, filter: &ConnectionFilter, visit: impl FnMut(ConnectionView) -> bool) {
        connections::stream(self.place(&self.directory()), filter, visit);
    }

    /// Counters.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stats(&self, since: Instant) -> Result<StatsView, DatapathError> {
        let drops = self.drops().map(|(reason, count)| (reason.into(), count)).collect();
        Ok(StatsView { services: self.services(since)?, drops })
    }

    /// Refusals and drops by reason, zeros included.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().map(|reason| (reason.name(), self.maps.reason(*reason)))
    }

    /// All services in a few words each.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn overview(&self, since: Instant) -> Result<Overview, DatapathError> {
        let began = cpu_time();
        let snapshot = self.snapshot(since)?;
        let state = self.read();
        let last = state.actual().services().keys().max().map_or(0, |id| id + 1);
        let mut overview = Overview::new(&state, &snapshot);
        for histogram in self.maps.all_durations(last)? {
            overview.durations.add(&histogram, self.clock);
        }
        overview.cost = cpu_time().saturating_sub(began);
        Ok(overview)
    }

    /// These services, with counts as of now: of each backend, or of all at once where that is less work.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn shown(&self, names: &[String], since: Instant) -> Result<Shown, DatapathError> {
        let began = cpu_time();
        let ids: Vec<BackendId> = {
            let state = self.read();
            let services = names.iter().filter_map(|name| state.actual().service(name));
            services.flat_map(|service| service.backends.values().copied()).collect()
        };
        let snapshot = if ids.len() > ONE_BY_ONE {
            self.snapshot(since)?
        } else {
            Arc::new(Snapshot::of(&self.maps, self.census(), &ids))
        };
        let state = self.read();
        let mut durations = Durations::default();
        if let [name] = names
            && let Some(id) = state.actual().id(name)
        {
            durations.add(&self.maps.durations(id), self.clock);
        }
        let specs = names.iter().filter_map(|name| state.desired.services().get(name));
        let services = specs.map(|spec| views::service(spec, &state, &snapshot)).collect();
        Ok(Shown { services, durations, cost: cpu_time().saturating_sub(began) })
    }

    /// What the metrics page says, read at one time.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn figures(&self) -> Result<Figures, DatapathError> {
        let snapshot = self.snapshot(Instant::now())?;
        let rows = self.rows();
        let last = rows.in_force.last().map_or(0, |(id, _)| id + 1);
        let census = self.census();
        Ok(Figures {
            rows,
            snapshot,
            durations: Arc::new(self.maps.all_durations(last)?),
            node: Node {
                reasons: Reason::ALL.iter().map(|r| (*r, self.maps.reason(*r))).collect(),
                entries: census.flows,
                capacity: self.max_flows.into(),
                clients: (self.bound.load(Ordering::Relaxed), self.clients.capacity().into()),
                timed_out: self.timed_out.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                drift: census.drift,
                reconcile: Some(self.reconcile.clone()),
                kernel: self.kernel.clone(),
                connection_log: self.connection_log.totals(),
                restarts: self.read().restarts.clone(),
                rejected: self.read().refusals().map(views::rejected).collect(),
                sharing: self.sharing_view.borrow().clone().map(|view| (view, self.sharing_times.clone())),
                cluster: self.cluster.borrow().clone().map(|state| Cluster {
                    state,
                    metrics: self.proxy_metrics.clone(),
                    families: families(&self.own.borrow()),
                }),
            },
        })
    }
}
