//! The owner of the write halves: maps, links, state file. There is one, behind a lock that is held for the whole of a change,
//! so that changes happen one after the other.
//!
//! A change goes through in this order, and whatever fails leaves the last good state in force: check, plan, kernel, state file.

mod places;
mod sources;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::abi::{Backend, BackendId};
use rtnetlink::Handle as Netlink;

use self::places::has_direct;
use super::{
    shared::{Shared, State},
    standing,
};
use crate::{
    api::error::ApiError,
    datapath::{
        DatapathError, Maps, attach::Attachments, maps::Applied, pin::PinDir, roles::Roles, snat::SourceMaps,
        sockets::Hooks,
    },
    model::{Desired, ServiceSpec},
    reconcile::{Plan, PlanError, Scope, collect, plan},
    source::{Config, Runtime, config, merge},
};

/// See the module.
pub struct Owner {
    /// What readers see.
    pub shared: Arc<Shared>,
    /// The config in force.
    pub config: Config,
    /// What the command line added.
    pub runtime: Runtime,
    maps: Maps,
    sources: SourceMaps,
    roles: Roles,
    attachments: Attachments,
    hooks: Hooks,
    netlink: Netlink,
    config_path: Option<PathBuf>,
    /// When tables that the kernel refused are tried again.
    tables_due: Instant,
}

/// How often tables that the kernel refused are tried again: it may have lacked memory.
const TABLES: Duration = Duration::from_secs(60);

impl Owner {
    /// Reads back what the maps hold. Nothing is changed yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(
        shared: Arc<Shared>,
        config: Config,
        runtime: Runtime,
        pins: &PinDir,
        netlink: Netlink,
    ) -> Result<Self, DatapathError> {
        let mut maps = Maps::open(pins)?;
        let mut destinations = shared.tables.destinations();
        let sources = SourceMaps::open(pins)?;
        destinations.extend(&config.snat.addresses);
        destinations.extend(sources.current()?);
        shared.write().actual = maps.read_actual(destinations)?;
        let roles = Roles::open(pins)?;
        let config_path = shared.config_path.clone();
        let (attachments, hooks) = (Attachments::new(pins), Hooks::new(pins));
        let tables_due = Instant::now() + TABLES;
        Ok(Self {
            shared,
            config,
            runtime,
            maps,
            sources,
            roles,
            attachments,
            hooks,
            netlink,
            config_path,
            tables_due,
        })
    }

    /// Brings the whole desired state into force.
    ///
    /// # Errors
    /// It isn't valid, or the kernel refuses.
    pub fn reconcile_all(&mut self) -> Result<(), String> {
        let desired = self.merged(&self.config.services)?;
        self.enforce(desired).map_err(|e| e.to_string())
    }

    fn merged(&self, file: &[ServiceSpec]) -> Result<Desired, String> {
        let (services, notes) = merge::merge(file, &self.runtime).map_err(|e| e.to_string())?;
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        for service in &services {
            service.warnings().iter().for_each(|w| tracing::warn!(service = service.name, "{w}"));
        }
        Desired::new(services).map_err(|e| e.to_string())
    }

    fn enforce(&mut self, desired: Desired) -> Result<(), anyhow::Error> {
        let start = Instant::now();
        let steps = {
            let mut state = self.shared.write();
            let State { desired: old, actual, own, standings, departed, .. } = &mut *state;
            if old.services().is_empty() {
                standing::adopt(standings, &desired, actual);
            }
            for service in desired.services().values() {
                standing::begin(standings, old.services().get(&service.name), service);
            }
            standing::forget(standings, &desired);
            standing::part(departed, old, &desired);
            plan(&desired, actual, standings, own, Scope::All)?
        };
        let count = steps.steps.len();
        self.apply(steps)?;
        self.shared.write().desired = desired;
        self.shared.reconcile.observe(start.elapsed().as_secs_f64());
        tracing::info!(steps = count, took = ?start.elapsed(), "reconciled");
        Ok(())
    }

    /// Takes the steps, in order; what the kernel took is in the mirror even if a later one fails. A table that it
    /// refused is noted for its service, and nothing else waits for it.
    fn apply(&mut self, plan: Plan) -> Result<(), DatapathError> {
        let Applied { done, tables, result } = self.maps.apply(&plan.steps);
        let mut state = self.shared.write();
        let mut refused = tables.into_iter().peekable();
        for (at, step) in plan.steps[..done].iter().enumerate() {
            match refused.next_if(|(refused, _)| *refused == at) {
                Some((_, error)) => state.note_table(step, Err(error)),
                None => {
                    state.actual.apply(step);
                    state.note_table(step, Ok(()));
                }
            }
        }
        state.generation += 1;
        match &result {
            Ok(()) => state.problems.remove("reconcile"),
            Err(e) => {
                state.problems.insert("reconcile", format!("the kernel refused a change, retrying: {e}"))
            }
        };
        result
    }

    /// Changes what the command line said of one service. All or nothing.
    ///
    /// # Errors
    /// The result isn't valid, or disk or kernel refuse.
    pub fn change(&mut self, service: &str, runtime: Runtime) -> Result<(), ApiError> {
        let start = Instant::now();
        let mut notes = Vec::new();
        let file = self.config.services.iter().find(|s| s.name == service);
        let spec = merge::service(service, file, &runtime, &mut notes)
            .map_err(|e| ApiError::Invalid(e.to_string()))?;
        let before = self.shared.read().desired.services().get(service).cloned();
        self.shared.write().desired.replace(service, spec).map_err(|e| ApiError::Invalid(e.to_string()))?;
        let undo = |owner: &Self, error: String| {
            // What was valid a moment ago is valid again.
            let mut state = owner.shared.write();
            let _ = state.desired.replace(service, before.clone());
            state.tables.remove(service);
            drop(state);
            ApiError::Failed(error)
        };
        {
            let mut state = self.shared.write();
            let State { desired, standings, departed, .. } = &mut *state;
            departed.remove(service);
            if let Some(before) = before.as_ref().filter(|_| !desired.services().contains_key(service)) {
                standing::leave(departed, before);
            }
            if let Some(new) = desired.services().get(service) {
                standing::begin(standings, before.as_ref(), new);
            }
            standing::forget(standings, desired);
        }
        // In force first: the disk takes longer than all the rest. Who asked hears of it when both is done; should the agent die
        // between the two, the next one goes back to what was saved.
        let applied = self
            .planned(service)
            .map_err(|e| e.to_string())
            .and_then(|steps| self.apply(steps).map_err(|e| e.to_string()))
            .and_then(|()| self.shared.read().table_refused(service).map_or(Ok(()), |e| Err(e.into())));
        let took = start.elapsed();
        let kept = applied.and_then(|()| runtime.save(&self.config.state_file).map_err(|e| e.to_string()));
        if let Err(error) = kept {
            let error = undo(self, error);
            if let Ok(steps) = self.planned(service)
                && let Err(e) = self.apply(steps)
            {
                tracing::error!("going back to the last good state: {e}");
            }
            return Err(error);
        }
        self.runtime = runtime;
        self.shared.reconcile.observe(took.as_secs_f64());
        Ok(())
    }

    /// Re-reads the config file. An error changes nothing. Programs that the kernel refused are tried once more.
    pub async fn reload(&mut self) {
        self.retry_refused();
        let result = self.try_reload().await;
        let mut state = self.shared.write();
        match result {
            Ok(()) => {
                tracing::info!("config reloaded");
                state.problems.remove("config");
            }
            Err(e) => {
                tracing::error!("reload refused, nothing changed: {e}");
                state
                    .problems
                    .insert("config", format!("reload refused, the last good config is in force: {e}"));
            }
        }
    }

    async fn try_reload(&mut self) -> Result<(), String> {
        let config = config::load(self.config_path.as_deref()).map_err(|e| e.to_string())?;
        let desired = self.merged(&config.services)?;
        self.check_ways(&desired).await.map_err(|e| e.to_string())?;
        self.shared.write().problems.remove("ways");
        if has_direct(&desired) && !has_direct(&self.shared.read().desired) {
            // Before the first packet that XDP leaves to TC.
            self.attach_for(true).await;
        }
        self.enforce(desired).map_err(|e| e.to_string())?;
        self.note_settled(&config);
        self.config.services = config.services;
        self.config.interfaces = config.interfaces;
        self.config.snat = config.snat;
        self.look().await;
        Ok(())
    }

    /// Where the agent listens and keeps things is settled when it starts; says so of what has changed since.
    fn note_settled(&self, new: &Config) {
        let old = &self.config;
        let changed = [
            ("agent.api_socket", old.api_socket != new.api_socket),
            ("agent.metrics_listen", old.metrics_listen != new.metrics_listen),
            ("agent.pin_dir", old.pin_dir != new.pin_dir),
            ("agent.state_file", old.state_file != new.state_file),
            ("sockets", old.sockets != new.sockets),
            ("conntrack.max_flows", old.max_flows != new.max_flows),
        ];
        for (key, _) in changed.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!("{key} has changed in the file; that takes effect when the agent is restarted");
        }
    }

    /// Frees ids that nothing uses any more, of backends that were `retired` before the last census began: no packet
    /// can be on its way with one of those, and the census saw all their flows. A table that couldn't be replaced may
    /// name them; as long as there is one, nothing is freed.
    pub fn collect(&mut self, retired: &HashSet<BackendId>) {
        let steps = {
            let state = self.shared.read();
            if state.has_old_table() {
                return;
            }
            let census = self.shared.census();
            let busy = |id| {
                !retired.contains(&id)
                    || census.pinned.contains_key(&id)
                    || self.maps.active(id) != 0
                    || state
                        .actual
                        .backend(id)
                        .and_then(Backend::address)
                        .is_some_and(|address| census.past.contains(&address))
            };
            collect(&state.desired, &state.actual, busy)
        };
        if !steps.steps.is_empty()
            && let Err(e) = self.apply(steps)
        {
            tracing::warn!("freeing ids: {e}");
        }
    }

    /// Removes what is noted of ports of backends that have no more flows.
    pub fn collect_ports(&mut self) {
        if let Err(e) = self.sources.collect() {
            tracing::warn!("source ports: {e}");
        }
    }

    /// A health check's word on a backend.
    pub fn set_health(&mut self, service: &str, backend: &str, healthy: bool) {
        {
            let mut state = self.shared.write();
            let slow = state.desired.services().get(service).is_some_and(|s| s.slow_start.is_some());
            let standing = state.standings.entry(service, backend);
            standing.healthy = healthy;
            standing.ramp = (healthy && slow).then(Instant::now);
        }
        self.shared.log.note(if healthy { "healthy" } else { "unhealthy" }, service, backend, "");
        self.replan(service);
    }

    /// Gives backends in their slow start as much as is due by now.
    pub fn ramp(&mut self) {
        let ramping = self.shared.read().standings.ramping();
        for service in ramping {
            {
                let mut state = self.shared.write();
                let slow = state.desired.services().get(&service).and_then(|s| s.slow_start);
                state.standings.end_ramps(&service, slow, Instant::now());
            }
            self.replan(&service);
        }
    }

    /// What leads one service to the state that is due now.
    fn planned(&self, service: &str) -> Result<Plan, PlanError> {
        let state = self.shared.read();
        plan(&state.desired, &state.actual, &state.standings, &state.own, Scope::Service(service))
    }

    /// Brings a service into the state that is due now. A failure is in the status, and tried again.
    fn replan(&mut self, service: &str) {
        let applied =
            self.planned(service).map_err(|e| e.to_string()).and_then(|steps| match steps.steps.is_empty() {
                true => Ok(()),
                false => self.apply(steps).map_err(|e| e.to_string()),
            });
        if let Err(e) = applied {
            tracing::error!(service, "not in force yet: {e}");
        }
    }

    /// Tries again what the kernel refused.
    pub fn retry(&mut self) {
        let tables = self.tables_due <= Instant::now() && self.shared.read().lacks_table();
        if tables {
            self.tables_due = Instant::now() + TABLES;
        }
        if (tables || self.shared.read().problems.contains_key("reconcile"))
            && let Err(e) = self.reconcile_all()
        {
            tracing::warn!("still refused: {e}");
        }
    }

    /// Takes the programs off all interfaces.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self) -> Result<(), DatapathError> {
        self.hooks.detach()?;
        self.attachments.detach_all()
    }
}
