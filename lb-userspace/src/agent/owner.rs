//! The owner of the write halves: maps, links, state file. There is one, behind a lock that is held for the whole of a change,
//! so that changes happen one after the other. Whatever takes a while, like a question to netlink, is done before the lock is taken: see `seen`.
//!
//! A change is a transition: it comes into force whole and is then what is known, or all stays as it was.

mod change;
mod detach;
mod field;
mod kubernetes;
mod names;
mod places;
mod quorum;
mod reload;
mod removals;
mod start;
mod upgrade;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::abi::{Backend, BackendId};

pub(in crate::agent) use self::detach::PROBLEM as DETACHED;
pub use self::start::{Loaded, load};
use self::{field::Field, kubernetes::ClusterSource};
use super::shared::Shared;
use crate::{
    datapath::{DatapathError, Maps, attach::Attachments, macs::Macs, roles::Roles, sockets::Hooks},
    model::{Origin, ServiceSpec},
    reconcile::{
        Declared, Failure, Ground as _, Input, Known, Refused, collect, converge, enact, transition,
    },
    source::{Config, Good, Names, Runtime, Sources, runtime::removals::Removals},
};

/// See the module.
pub struct Owner {
    /// What readers see.
    pub shared: Arc<Shared>,
    /// The config in force.
    pub config: Config,
    /// What the command line added.
    pub runtime: Runtime,
    /// What each service of the file said when it was good.
    good: Good,
    /// What a cluster says.
    cluster: ClusterSource,
    /// What is known of hosts.
    names: Names,
    /// Services of the file whose backends can't be reached as they are to be, and why.
    unreachable: BTreeMap<String, (Arc<ServiceSpec>, String)>,
    /// Conclusions about backends that the kernel refused to put into force.
    pending: BTreeMap<(String, String), bool>,
    /// Told to leave, and how far that is.
    leaving: Option<detach::Leaving>,
    maps: Maps,
    roles: Roles,
    macs: Macs,
    attachments: Attachments,
    hooks: Hooks,
    config_path: Option<PathBuf>,
    /// The file couldn't be read at all, and neither could its last good version: nobody knows where programs are to be.
    blind: bool,
    /// When tables that the kernel refused are tried again.
    tables_due: Instant,
}

/// How often tables that the kernel refused are tried again: it may have lacked memory.
const TABLES: Duration = Duration::from_secs(60);

/// Why a change didn't come into force.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{}", .0.error)]
    Failed(Failure),
}

impl Owner {
    /// Where services are declared.
    fn sources(&self) -> Sources<'_> {
        Sources {
            file: &self.config.services,
            good: &self.good,
            runtime: &self.runtime,
            cluster: &self.cluster.specs,
            names: &self.names,
        }
    }

    /// All that is declared.
    fn declared(&self) -> Vec<Declared> {
        if self.is_leaving() {
            return Vec::new();
        }
        let mut notes = Vec::new();
        let mut all = self.sources().all(&mut notes);
        all.iter_mut().for_each(|declared| self.mark(declared));
        let mut state = self.shared.write();
        notes.iter().filter(|note| !state.notes.contains(note)).for_each(|note| tracing::warn!("{note}"));
        state.notes = notes;
        all
    }

    /// Notes what can't be reached, and what of a cluster's was good last.
    fn mark(&self, declared: &mut Declared) {
        if declared.origin == Origin::Kubernetes {
            declared.good = self.last_of_cluster(declared);
        } else if let Some(last) = self.last_of_hosts(declared) {
            declared.good = Some(last);
        }
        if let Some((spec, error)) = self.unreachable.get(&declared.name)
            && self.config.services.iter().any(|s| s.spec.as_ref().is_ok_and(|now| Arc::ptr_eq(now, spec)))
        {
            declared.spec = Err(error.clone());
        }
    }

    /// Takes a transition. What the kernel refused is undone.
    fn enter(
        &mut self,
        input: Input<'_>,
        accept: impl FnOnce(&mut Field<'_>, &Removals) -> Result<(), String>,
    ) -> Result<(), Stopped> {
        let now = Instant::now();
        let (old, mut step) = {
            let state = self.shared.read();
            (state.known().clone(), transition(state.known(), state.actual(), input, now)?)
        };
        if self.is_leaving() {
            // Whatever a removal means for connections: this is none.
            step.next.departed = Arc::default();
        }
        let removals = self.removals_after(&old.desired, &step.next.desired);
        let mut field = Field { maps: &mut self.maps, shared: &self.shared };
        let accept = |field: &mut Field<'_>| accept(field, &removals);
        let entered = enact(&mut field, &old, step, accept, now);
        match entered {
            Ok(next) => {
                self.commit(&old, next);
                self.note_removals(removals);
            }
            Err(failure) => {
                if let Some(halfway) = &failure.halfway {
                    let problem =
                        format!("the kernel refused a change, and its undoing, retrying: {halfway}");
                    tracing::error!("{problem}");
                    self.shared.write().problems.insert("reconcile", problem);
                }
                return Err(Stopped::Failed(failure));
            }
        }
        Ok(())
    }

    /// Something else is known now. Says what is refused from now on, and what isn't any more.
    fn commit(&self, old: &Known, next: Known) {
        let (before, after) = (old.rejected.clone(), next.rejected.clone());
        self.note_quorums(old, &next);
        self.shared.write().commit(next);
        if Arc::ptr_eq(&before, &after) {
            return;
        }
        let log = &self.shared.log;
        for new in after.iter().filter(|r| !before.contains(r)) {
            match new.address_of {
                Some(_) => tracing::warn!("{new}"),
                None => tracing::error!("{new}"),
            }
            log.note("rejected", &new.service, new.backend.as_deref().unwrap_or_default(), &new.error);
        }
        for gone in before.iter() {
            let same = |r: &&_| -> bool {
                let r: &crate::reconcile::Rejection = r;
                (&r.service, &r.backend) == (&gone.service, &gone.backend)
            };
            if !after.iter().any(|r| same(&r)) {
                tracing::info!(service = gone.service, "not refused any more");
                log.note("accepted", &gone.service, gone.backend.as_deref().unwrap_or_default(), "");
            }
        }
    }

    /// Looks again at what is refused: what was in its way may be gone.
    fn try_rejected(&mut self) {
        if !self.shared.read().rejected.is_empty()
            && let Err(e) = self.settle()
        {
            tracing::warn!("what was refused is still: {e}");
        }
    }

    /// Looks at all that is declared again.
    fn settle(&mut self) -> Result<(), Stopped> {
        let all = self.declared();
        let own = self.shared.read().own.clone();
        self.enter(Input::Declared { all: &all, own: &own, sources: None }, |_, _| Ok(()))
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
                        .actual()
                        .backend(id)
                        .and_then(Backend::address)
                        .is_some_and(|address| census.past.contains(&address))
            };
            collect(&state.desired, state.actual(), busy)
        };
        if steps.steps.is_empty() {
            return;
        }
        let mut field = Field { maps: &mut self.maps, shared: &self.shared };
        if let Err(e) = field.apply(steps) {
            return tracing::warn!("freeing ids: {e}");
        }
        // There is room again for who was refused for want of it.
        self.try_rejected();
    }

    /// Removes what is noted of ports of backends that have no more flows.
    pub fn collect_ports(&mut self) {
        if let Err(e) = self.maps.sources().collect() {
            tracing::warn!("source ports: {e}");
        }
    }

    /// A health check's word on a backend, and why if it isn't well. If the kernel refuses, it is tried again.
    pub fn set_health(&mut self, service: &str, backend: &str, healthy: bool, why: &str) {
        self.shared.log.note(if healthy { "healthy" } else { "unhealthy" }, service, backend, why);
        self.conclude(service, backend, healthy);
    }

    fn conclude(&mut self, service: &str, backend: &str, healthy: bool) {
        let key = (service.to_string(), backend.to_string());
        self.pending.remove(&key);
        if let Err(e) = self.enter(Input::Health { service, backend, healthy }, |_, _| Ok(())) {
            tracing::error!(service, backend, healthy, "not in force yet: {e}");
            self.pending.insert(key, healthy);
        }
    }

    /// Gives backends in their slow start as much as is due by now.
    pub fn ramp(&mut self) {
        if self.shared.read().health.ramping().is_empty() {
            return;
        }
        if let Err(e) = self.enter(Input::Time, |_, _| Ok(())) {
            tracing::error!("slow starts stay where they are: {e}");
        }
    }

    /// Tries again what the kernel refused.
    pub fn retry(&mut self) {
        for ((service, backend), healthy) in std::mem::take(&mut self.pending) {
            self.conclude(&service, &backend, healthy);
        }
        let tables = self.tables_due <= Instant::now() && self.shared.read().lacks_table();
        if tables {
            self.tables_due = Instant::now() + TABLES;
        }
        if !tables && !self.shared.read().problems.contains_key("reconcile") {
            return;
        }
        let known = self.shared.read().known().clone();
        let mut field = Field { maps: &mut self.maps, shared: &self.shared };
        let done = converge(&mut field, &known, Instant::now());
        if let Err(e) = &done {
            tracing::warn!("still refused: {e}");
        }
        let done = done.map_err(|e| format!("the kernel refused a change, retrying: {e}"));
        self.shared.write().note("reconcile", done);
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
