//! Services and backends joined with their counters.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    agent::shared::State,
    api::types::{BackendView, FrontendView, RejectedView, ServiceView},
    datapath::Maps,
    model::{AdminState, BackendSpec, Fate, Frontend, ServiceSpec, service::make_backend},
    reconcile::Rejection,
};

fn origin(from_file: bool) -> String {
    if from_file { "file".into() } else { "cli".into() }
}

/// A backend, as of now.
pub fn backend(
    service: &ServiceSpec,
    name: &str,
    spec: &BackendSpec,
    state: &State,
    maps: &Maps,
) -> BackendView {
    let standing = state.standings.of(&service.name, name);
    let id = state.actual.service(&service.name).and_then(|s| s.backends.get(name)).copied();
    let active = id.map_or(0, |id| maps.active(id));
    let counters = id.map(|id| maps.counters(id)).unwrap_or_default();
    let (admin, deadline) = match spec.admin {
        AdminState::Active => ("active", None),
        AdminState::Draining { since, deadline } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let left = deadline.map(|d| (since + d).as_secs_f64() - now.as_secs_f64());
            (if active == 0 { "drained" } else { "draining" }, left)
        }
    };
    BackendView {
        address: name.into(),
        weight: spec.weight,
        max_connections: spec.max_connections,
        local: spec.local || state.own.contains(&spec.address),
        state: admin.into(),
        healthy: standing.healthy,
        health_check_failures: state.failures(&service.name, name),
        origin: origin(spec.from_file),
        active_connections: active.into(),
        clients: service.affinity.as_ref().map(|_| id.map_or(0, |id| maps.clients(id)).into()),
        total_connections: counters.connections,
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
        oldest_seconds: id
            .filter(|_| active > 0)
            .and_then(|id| state.oldest.get(&id))
            .map(|ms| *ms as f64 / 1000.0),
        drain_deadline_seconds: deadline,
    }
}

/// Backends that are no longer declared and have connections, if the service wants them seen.
fn leaving(spec: &ServiceSpec, state: &State, maps: &Maps) -> Vec<BackendView> {
    let Some(actual) = state.actual.service(&spec.name).filter(|_| spec.fates.removal == Fate::Drain) else {
        return Vec::new();
    };
    let gone = actual
        .backends
        .iter()
        .filter(|(name, id)| !spec.backends.contains_key(*name) && maps.active(**id) > 0);
    gone.filter_map(|(name, _)| {
        let backend_spec = make_backend(&spec.name, name, None, None, false, spec.from_file).ok()?;
        let view = backend(spec, name, &backend_spec, state, maps);
        Some(BackendView { state: "draining".into(), origin: "removed".into(), ..view })
    })
    .collect()
}

/// Most open connections for its weight over the mean, of backends that may take new ones. `None`: there are no connections.
fn imbalance(backends: &[BackendView]) -> Option<f64> {
    let in_use: Vec<(f64, f64)> = backends
        .iter()
        .filter(|b| b.state == "active" && b.healthy)
        .map(|b| (b.active_connections as f64, f64::from(b.weight)))
        .collect();
    let (open, weight) = in_use.iter().fold((0.0, 0.0), |(a, w), (active, weight)| (a + active, w + weight));
    let most = in_use.iter().map(|(active, weight)| active / weight).fold(0.0, f64::max);
    (open > 0.0).then(|| most * weight / open)
}

fn texts<T: ToString>(list: impl IntoIterator<Item = T>) -> Vec<String> {
    list.into_iter().map(|item| item.to_string()).collect()
}

/// A frontend, as declared.
pub fn frontend(frontend: &Frontend) -> FrontendView {
    FrontendView {
        addresses: frontend.addresses.clone(),
        ports: texts(&frontend.ports),
        scope: frontend.scope.name().into(),
        source_ranges: texts(&frontend.sources),
        forward: frontend.forward.into(),
    }
}

/// What is declared and not in force.
pub fn rejected(rejection: &Rejection) -> RejectedView {
    let Rejection { service, backend, origin, error, kept } = rejection.clone();
    RejectedView { service, backend, origin: origin.name().into(), error, last_good_in_force: kept }
}

/// A service, as of now.
pub fn service(spec: &ServiceSpec, state: &State, maps: &Maps) -> ServiceView {
    let declared = spec.backends.iter().map(|(name, b)| backend(spec, name, b, state, maps));
    let backends: Vec<BackendView> = declared.chain(leaving(spec, state, maps)).collect();
    // A valid service has one, and that an address.
    let first = &spec.frontends[0];
    ServiceView {
        imbalance: imbalance(&backends),
        name: spec.name.clone(),
        vip: first.addresses[0],
        vip_except: spec.frontends.iter().flat_map(|f| f.except.iter().copied()).collect(),
        source_ranges: texts(&first.sources),
        ports: texts(&first.ports),
        frontends: spec.frontends.iter().map(frontend).collect(),
        stray: spec.stray().name().into(),
        algorithm: spec.algorithm.name().into(),
        origin: origin(spec.from_file),
        warnings: spec.warnings(),
        rejected: state.rejected.iter().filter(|r| r.service == spec.name).map(|r| r.error.clone()).collect(),
        backends,
    }
}
