//! What is known, what the maps hold, and what is wrong: of one moment for a reader.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Deref,
    sync::Arc,
};

use super::owner::DETACHED;
use crate::{
    api::types::{InterfaceView, WarningView},
    datapath::{
        DatapathError,
        refusal::{Refusals, missed},
    },
    model::{AdminState, Departures, ForwardKind, Forwarding, ModelError, ServiceSpec, frontend::family},
    reconcile::{Actual, Known, Rejection, Step},
};

/// Desired and actual, always of the same moment for a reader.
#[derive(Default)]
pub struct State {
    /// What is declared and in force, and what is concluded.
    known: Known,
    /// What the maps hold.
    actual: Actual,
    /// Health checks that failed since the agent started, by service and backend: how many, and why the last did.
    failures: HashMap<String, HashMap<String, (u64, String)>>,
    /// Backends that a health check has answered of since the agent started, by service.
    checked: HashMap<String, HashSet<String>>,
    /// Open connections of draining backends when their drains began, since the agent started: by service and backend.
    pub drained_from: HashMap<(String, String), u64>,
    /// Backends from which nothing comes back, by service and name.
    pub one_way: BTreeSet<(String, String)>,
    /// Backends that are no longer declared and whose connections have a deadline.
    removals: Departures,
    /// How often what follows from the state may have changed.
    revision: u64,
    /// Where programs should be and are.
    pub interfaces: Vec<InterfaceView>,
    /// What is wrong, by what it is about.
    pub problems: HashMap<&'static str, String>,
    /// How often each task of the agent was started again.
    pub restarts: BTreeMap<&'static str, u64>,
    /// Tasks that were of late, in words.
    pub tasks: BTreeMap<&'static str, String>,
    /// Hosts whose addresses may be others, or that have none, and why: by name.
    pub unresolved: BTreeMap<Arc<str>, String>,
    /// Tables that the kernel refused, and why: by service.
    pub tables: BTreeMap<String, String>,
    /// Programs that the kernel refused.
    pub refused: Refusals,
    /// What sources say that is set aside, a sentence each.
    pub notes: Vec<String>,
    /// What the host's own rules get in the way of.
    pub warnings: Vec<WarningView>,
    /// What is noted of removals isn't in the state file yet.
    pub unsaved: bool,
    /// Plans applied.
    pub generation: u64,
}

impl Deref for State {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

impl State {
    /// What is known; a copy costs little.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Something else is known now, and in force.
    pub fn commit(&mut self, next: Known) {
        let declared = next.desired.services();
        if !Arc::ptr_eq(&next.desired, &self.known.desired) {
            self.failures.retain(|service, backends| {
                let spec = declared.get(service);
                backends.retain(|backend, _| spec.is_some_and(|spec| spec.backends.contains_key(backend)));
                !backends.is_empty()
            });
            self.checked.retain(|service, backends| {
                let spec = declared.get(service);
                backends.retain(|backend| spec.is_some_and(|spec| spec.backends.contains_key(backend)));
                !backends.is_empty()
            });
            self.drained_from.retain(|(service, backend), _| {
                let spec = declared.get(service).and_then(|spec| spec.backends.get(backend));
                spec.is_some_and(|spec| spec.admin != AdminState::Active)
            });
        }
        self.known = next;
        self.generation += 1;
        self.revision += 1;
    }

    /// Backends that are no longer declared and whose connections have a deadline.
    pub const fn removals(&self) -> &Departures {
        &self.removals
    }

    /// They are these now.
    pub fn set_removals(&mut self, removals: Departures) {
        self.removals = removals;
        self.revision += 1;
    }

    /// What the maps hold.
    pub const fn actual(&self) -> &Actual {
        &self.actual
    }

    /// The same, to change it.
    pub const fn actual_mut(&mut self) -> &mut Actual {
        self.revision += 1;
        &mut self.actual
    }

    /// How often what is known, what the maps hold or failures have changed.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// From these backends nothing comes back.
    pub fn set_one_way(&mut self, backends: BTreeSet<(String, String)>) {
        self.revision += 1;
        self.one_way = backends;
    }

    /// Counts a failed check of a backend, and remembers why it failed.
    pub fn failed(&mut self, service: &str, backend: &str, why: &str) {
        self.revision += 1;
        let (count, last) =
            self.failures.entry(service.into()).or_default().entry(backend.into()).or_default();
        *count += 1;
        why.clone_into(last);
    }

    /// A check of a backend has come out, well or not.
    pub fn note_checked(&mut self, service: &str, backend: &str) {
        self.checked.entry(service.into()).or_default().insert(backend.into());
    }

    /// Has any?
    pub fn is_checked(&self, service: &str, backend: &str) -> bool {
        self.checked.get(service).is_some_and(|of| of.contains(backend))
    }

    /// Failed checks of a backend, and why the last one failed.
    pub fn failures(&self, service: &str, backend: &str) -> (u64, Option<&str>) {
        let found = self.failures.get(service).and_then(|of| of.get(backend));
        found.map_or((0, None), |(count, last)| (*count, Some(last)))
    }

    /// Services whose packets need an address for source NAT of an IP version of which there is none.
    pub(super) fn sourceless(&self) -> Vec<String> {
        let Some(sources) = &self.sources else { return Vec::new() };
        let mut found = Vec::new();
        for v6 in [false, true].into_iter().filter(|v6| sources.of_family(*v6).next().is_none()) {
            let by_snat = |forward: Forwarding| forward.kinds().contains(&ForwardKind::Snat);
            for service in self.desired.services().values() {
                if service.frontends.iter().any(|f| f.has_family(v6) && by_snat(f.forward)) {
                    let (service, family) = (service.name.clone(), family(v6));
                    found.push(ModelError::NoSource { service, family }.to_string());
                }
            }
        }
        found
    }

    /// Notes how something went: what is wrong with it, or that nothing is any more.
    pub fn note<E: std::fmt::Display>(&mut self, about: &'static str, result: Result<(), E>) {
        match result {
            Ok(()) => self.problems.remove(about),
            Err(e) => self.problems.insert(about, e.to_string()),
        };
    }
}

impl State {
    /// Has the agent been told to detach?
    pub fn is_leaving(&self) -> bool {
        self.problems.contains_key(DETACHED)
    }

    /// Notes how the kernel took a table; other steps are none of its business. A new refusal is logged.
    pub fn note_table(&mut self, step: &Step, result: Result<(), DatapathError>) {
        let Step::Table { service, .. } = step else { return };
        let Some(name) = self.actual.services().get(service).map(|s| s.name.clone()) else { return };
        let Err(error) = result else {
            self.tables.remove(&name);
            return;
        };
        let problem = format!("service \"{name}\": the table of its backends isn't in force: {error}");
        if self.tables.insert(name, problem.clone()).as_ref() != Some(&problem) {
            tracing::error!("{problem}");
        }
    }

    /// Why a service lacks the table that it is to have.
    pub fn table_refused(&self, service: &str) -> Option<&str> {
        let listed = |s: &Arc<ServiceSpec>| s.algorithm.has_table();
        let wanted = self.desired.services().get(service).is_some_and(listed);
        self.tables.get(service).map(String::as_str).filter(|_| wanted)
    }

    /// Is there anything that the kernel refused and that is to be tried again?
    pub fn lacks_anything(&self) -> bool {
        self.lacks_table() || self.problems.contains_key("reconcile")
    }

    /// Does any service lack one?
    pub fn lacks_table(&self) -> bool {
        self.tables.keys().any(|name| self.table_refused(name).is_some())
    }

    /// Is a table in force that couldn't be replaced?
    pub fn has_old_table(&self) -> bool {
        self.tables.keys().any(|name| self.actual.service(name).is_some_and(|s| !s.tables.is_empty()))
    }

    /// What is declared and not in force.
    pub fn refusals(&self) -> impl Iterator<Item = &Rejection> + Clone {
        self.rejected.iter().filter(|rejection| rejection.address_of.is_none())
    }

    /// Addresses of hosts that can't be backends. Nobody has declared them: of those is warned.
    pub fn left_out(&self) -> impl Iterator<Item = &Rejection> {
        self.rejected.iter().filter(|rejection| rejection.address_of.is_some())
    }

    /// What is wrong, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.problems.values().chain(self.tasks.values()).cloned().collect();
        problems.sort();
        problems.extend(self.refusals().take(SHOWN).map(ToString::to_string));
        let more = self.refusals().skip(SHOWN).count();
        if more > 0 {
            problems.push(format!("{more} more are refused; see \"rejected\""));
        }
        problems.extend(self.unresolved.values().take(SHOWN).cloned());
        if self.unresolved.len() > SHOWN {
            problems.push(format!("{} more hosts can't be looked up", self.unresolved.len() - SHOWN));
        }
        problems.extend(self.tables.keys().filter_map(|name| self.table_refused(name)).map(String::from));
        let of = |i: &InterfaceView| Some(format!("interface {}: {}", i.name, i.error.as_ref()?));
        problems.extend(self.interfaces.iter().filter_map(of));
        // Those of the agent's own that no interface speaks of.
        for (program, reason) in self.refused.iter() {
            if !problems.iter().any(|p| p.contains(&format!("program {program} "))) {
                problems.push(format!(
                    "program {program} is refused by this kernel: {reason}; {}",
                    missed(program)
                ));
            }
        }
        problems
    }
}

/// As many refused services are among the problems; all are in a list of their own.
const SHOWN: usize = 50;
