//! Services and backends joined with their counters.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    agent::shared::State,
    api::types::{BackendView, ServiceView},
    datapath::Maps,
    model::{AdminState, BackendSpec, ServiceSpec},
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
        state: admin.into(),
        healthy: standing.healthy,
        health_check_failures: standing.failures,
        origin: origin(spec.from_file),
        active_connections: active.into(),
        clients: service.affinity.as_ref().map(|_| id.map_or(0, |id| maps.clients(id)).into()),
        total_connections: counters.connections,
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
        drain_deadline_seconds: deadline,
    }
}

/// A service, as of now.
pub fn service(spec: &ServiceSpec, state: &State, maps: &Maps) -> ServiceView {
    ServiceView {
        name: spec.name.clone(),
        vip: spec.vip,
        ports: spec.ports.iter().map(ToString::to_string).collect(),
        algorithm: spec.algorithm.name().into(),
        origin: origin(spec.from_file),
        warnings: spec.warnings.clone(),
        backends: spec.backends.iter().map(|(name, b)| backend(spec, name, b, state, maps)).collect(),
    }
}
