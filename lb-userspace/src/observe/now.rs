//! Backends as they are now: what is declared, what is known and what is counted, for views and metrics alike.

use std::time::Duration;

use lb_common::abi::BackendId;

use super::snapshot::{Counted, Snapshot};
use crate::{
    agent::shared::State as Agent,
    model::{AdminState, BackendSpec, Departure, RemovalPolicy, ServiceSpec, uptime},
    reconcile::ActualService,
};

/// What a backend is to connections, as far as the operator is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes new ones.
    Active,
    /// It has some left.
    Draining,
    /// It has none left.
    Drained,
}

impl State {
    /// One that is no longer declared is shown while it has some left.
    pub const fn new(takes_new: bool, declared: bool, active: u32) -> Self {
        match (takes_new, declared, active) {
            (true, ..) => Self::Active,
            (false, true, 0) => Self::Drained,
            (false, ..) => Self::Draining,
        }
    }

    /// As users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// What is known of a backend, whatever is counted.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// As declared; `None`: it no longer is, and has connections that the service wants seen.
    pub spec: Option<&'a BackendSpec>,
    /// `None`: it isn't in force.
    pub id: Option<BackendId>,
    /// Health check's word.
    pub healthy: bool,
    /// Does nothing come back from it?
    pub one_way: bool,
    /// Health checks that failed.
    pub failures: u64,
    /// Why the last of them did.
    pub why: Option<&'a str>,
    /// While draining: open connections when the drain began.
    pub from: Option<u64>,
    /// If it is no longer declared: its connections' deadline.
    pub removed: Option<Departure>,
}

impl<'a> Known<'a> {
    fn new(
        service: &str,
        name: &'a str,
        spec: Option<&'a BackendSpec>,
        id: Option<BackendId>,
        state: &'a Agent,
    ) -> Self {
        let healthy = state.health.of(service, name).healthy;
        let one_way = !state.one_way.is_empty() && state.one_way.contains(&(service.into(), name.into()));
        let (failures, why) = state.failures(service, name);
        let drains = spec.is_some_and(|spec| spec.admin != AdminState::Active);
        let from = || state.drained_from.get(&(service.into(), name.into())).copied();
        let from = if drains { from() } else { None };
        let removals = || state.removals().get(service).and_then(|of| of.get(name)).copied();
        let removed = if spec.is_none() { removals() } else { None };
        Self { name, spec, id, healthy, one_way, failures, why, from, removed }
    }

    /// May it take new connections, as far as the operator is concerned?
    pub fn takes_new(&self) -> bool {
        self.spec.is_some_and(|spec| spec.admin == AdminState::Active)
    }

    /// By [`uptime`], the deadline of its drain, or of its removal.
    pub fn deadline(&self) -> Option<Duration> {
        match self.spec.map(|spec| spec.admin) {
            Some(AdminState::Draining { since, deadline }) => Some(since.saturating_add(deadline?)),
            Some(AdminState::Active) => None,
            None => self.removed.map(|removed| removed.end),
        }
    }

    /// By [`uptime`], when its drain began, or it was removed.
    fn since(&self) -> Option<Duration> {
        match self.spec.map(|spec| spec.admin) {
            Some(AdminState::Draining { since, .. }) => Some(since),
            Some(AdminState::Active) => None,
            None => self.removed.map(|removed| removed.since),
        }
    }

    fn now(self, service: &ServiceSpec, snapshot: &Snapshot) -> Now<'a> {
        let counted = snapshot.backend(self.id);
        Now {
            name: self.name,
            spec: self.spec,
            state: State::new(self.takes_new(), self.spec.is_some(), counted.active).name(),
            healthy: self.healthy,
            one_way: self.one_way,
            failures: self.failures,
            why: self.why,
            counted,
            clients: service.affinity.as_ref().map(|_| counted.clients),
            from: self.from,
            drained: self.since().map(|since| -left(since)),
            left: self.deadline().map(left),
        }
    }
}

/// Seconds until a deadline, negative if it has passed.
pub fn left(deadline: Duration) -> f64 {
    deadline.as_secs_f64() - uptime::now().as_secs_f64()
}

/// A backend.
pub struct Now<'a> {
    /// Its name.
    pub name: &'a str,
    /// See [`Known`].
    pub spec: Option<&'a BackendSpec>,
    /// `active`, `draining`, `drained`.
    pub state: &'static str,
    /// Health check's word.
    pub healthy: bool,
    /// Does nothing come back from it?
    pub one_way: bool,
    /// Health checks that failed.
    pub failures: u64,
    /// Why the last of them did.
    pub why: Option<&'a str>,
    /// Counts.
    pub counted: Counted,
    /// Clients bound to it, if the service has affinity.
    pub clients: Option<u32>,
    /// While draining: open connections when the drain began, if the agent was there then.
    pub from: Option<u64>,
    /// Seconds since its drain began.
    pub drained: Option<f64>,
    /// Seconds until its drain's deadline, negative if that has passed; `None`: there is none.
    pub left: Option<f64>,
}

impl Now<'_> {
    /// Seconds that its oldest connection has been open.
    pub fn oldest(&self) -> Option<f64> {
        self.counted.oldest.map(|millis| millis as f64 / 1000.0)
    }
}

/// The backend of a service with this name and declaration.
pub fn backend<'a>(
    service: &ServiceSpec,
    name: &'a str,
    spec: &'a BackendSpec,
    id: Option<BackendId>,
    state: &'a Agent,
    snapshot: &Snapshot,
) -> Now<'a> {
    Known::new(&service.name, name, Some(spec), id, state).now(service, snapshot)
}

/// All of a service: those that are declared, and, if the service wants them seen, those that no longer are. Of the latter,
/// those that have connections are of interest.
pub fn known<'a>(service: &'a ServiceSpec, state: &'a Agent) -> impl Iterator<Item = Known<'a>> {
    let actual: Option<&ActualService> = state.actual().service(&service.name);
    let declared = service.backends.iter().map(move |(name, spec)| {
        let id = actual.and_then(|actual| actual.backends.get(name)).copied();
        Known::new(&service.name, name, Some(spec), id, state)
    });
    let seen = actual.filter(|_| service.policies.removal == RemovalPolicy::Drain);
    let gone = seen.into_iter().flat_map(|actual| &actual.backends);
    let leaving = gone
        .filter(|(name, _)| !service.backends.contains_key(*name))
        .map(move |(name, id)| Known::new(&service.name, name, None, Some(*id), state));
    declared.chain(leaving)
}

/// The same, with counts.
pub fn backends<'a>(
    service: &'a ServiceSpec,
    state: &'a Agent,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = Now<'a>> {
    let all = known(service, state).map(|known| known.now(service, snapshot));
    all.filter(|now| now.spec.is_some() || now.counted.active > 0)
}

/// Most open connections for its weight over the mean, of backends that may take new ones, by their connections and weights.
/// `None`: there are no connections.
pub fn imbalance(in_use: impl Iterator<Item = (impl Into<f64>, impl Into<f64>)> + Clone) -> Option<f64> {
    let numbers =
        in_use.map(|(active, weight)| (active.into(), weight.into())).filter(|(_, weight)| *weight > 0.0);
    let (open, weight) =
        numbers.clone().fold((0.0, 0.0), |(a, w), (active, weight)| (a + active, w + weight));
    let most = numbers.map(|(active, weight)| active / weight).fold(0.0, f64::max);
    (open > 0.0).then(|| most * weight / open)
}
