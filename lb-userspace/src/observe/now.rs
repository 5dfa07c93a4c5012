//! Backends as they are now: what is declared, what is known and what is counted, for views and metrics alike.

use lb_common::abi::BackendId;

use super::snapshot::{Counted, Snapshot};
use crate::{
    agent::shared::State,
    model::{AdminState, BackendSpec, Fate, ServiceSpec, uptime},
    reconcile::ActualService,
};

/// A backend.
pub struct Now<'a> {
    /// Its name.
    pub name: &'a str,
    /// As declared; `None`: it no longer is, and has connections that the service wants seen.
    pub spec: Option<&'a BackendSpec>,
    /// `active`, `draining`, `drained`.
    pub state: &'static str,
    /// Health check's word.
    pub healthy: bool,
    /// Health checks that failed.
    pub failures: u64,
    /// Counts.
    pub counted: Counted,
    /// Clients bound to it, if the service has affinity.
    pub clients: Option<u32>,
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
    spec: Option<&'a BackendSpec>,
    id: Option<BackendId>,
    state: &State,
    snapshot: &Snapshot,
) -> Now<'a> {
    let standing = state.standings.of(&service.name, name);
    let counted = snapshot.backend(id);
    let (admin, left) = match spec.map(|spec| spec.admin) {
        Some(AdminState::Active) => ("active", None),
        None => ("draining", None),
        Some(AdminState::Draining { since, deadline }) => {
            let left = deadline.map(|d| since.saturating_add(d).as_secs_f64() - uptime::now().as_secs_f64());
            (if counted.active == 0 { "drained" } else { "draining" }, left)
        }
    };
    Now {
        name,
        spec,
        state: admin,
        healthy: standing.healthy,
        failures: state.failures(&service.name, name),
        counted,
        clients: service.affinity.as_ref().map(|_| counted.clients),
        left,
    }
}

/// All of a service: those that are declared, and those that no longer are and have connections, if the service wants them
/// seen.
pub fn backends<'a>(
    service: &'a ServiceSpec,
    state: &'a State,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = Now<'a>> {
    let actual: Option<&ActualService> = state.actual.service(&service.name);
    let declared = service.backends.iter().map(move |(name, spec)| {
        let id = actual.and_then(|actual| actual.backends.get(name)).copied();
        backend(service, name, Some(spec), id, state, snapshot)
    });
    let seen = actual.filter(|_| service.fates.removal == Fate::Drain);
    let gone = seen.into_iter().flat_map(|actual| &actual.backends);
    let leaving = gone
        .filter(|(name, _)| !service.backends.contains_key(*name))
        .map(move |(name, id)| backend(service, name, None, Some(*id), state, snapshot));
    declared.chain(leaving.filter(|now| now.counted.active > 0))
}

/// Most open connections for its weight over the mean, of backends that may take new ones. `None`: there are no connections.
pub fn imbalance(backends: &[Now<'_>]) -> Option<f64> {
    let in_use = || {
        let open = backends.iter().filter(|b| b.state == "active" && b.healthy);
        open.map(|b| (f64::from(b.counted.active), f64::from(b.spec.map_or(1, |spec| spec.weight))))
    };
    let (open, weight) = in_use().fold((0.0, 0.0), |(a, w), (active, weight)| (a + active, w + weight));
    let most = in_use().map(|(active, weight)| active / weight).fold(0.0, f64::max);
    (open > 0.0).then(|| most * weight / open)
}
