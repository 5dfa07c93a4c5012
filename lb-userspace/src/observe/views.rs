//! Services and backends joined with their counters.

use super::{
    now::{self, Now},
    snapshot::Snapshot,
};
use crate::{
    agent::shared::State,
    api::types::{BackendView, FrontendView, RejectedView, ServiceView},
    model::{BackendSpec, Frontend, HostSpec, ServiceSpec, service::make_backend},
    reconcile::Rejection,
};

/// A backend, as of now.
pub fn backend(service: &ServiceSpec, now: &Now<'_>, state: &State) -> BackendView {
    let counters = now.counted.counters;
    let gone;
    let (origin, spec) = match now.spec {
        Some(spec) => (spec.origin.name().into(), Some(spec)),
        None => {
            gone = make_backend(&service.name, now.name, None, None, false, service.origin).ok();
            ("removed".into(), gone.as_ref())
        }
    };
    let checks = service.health.is_some() && now.spec.is_some();
    BackendView {
        address: now.name.into(),
        host: spec.and_then(|spec| spec.host.as_deref().map(String::from)),
        weight: spec.map_or(1, |spec| spec.weight),
        max_connections: spec.and_then(|spec| spec.max_connections),
        local: spec.is_some_and(|spec| spec.lists(&state.own).local),
        backup: spec.is_some_and(|spec| spec.backup),
        state: now.state.into(),
        healthy: now.healthy,
        unchecked: checks && now.healthy && !state.is_checked(&service.name, now.name),
        one_way: now.one_way,
        health_check_failures: now.failures,
        last_health_check_failure: now.why.map(String::from),
        origin,
        active_connections: now.counted.active.into(),
        clients: now.clients.map(u64::from),
        total_connections: counters.connections,
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
        oldest_seconds: now.oldest(),
        drain_from: now.from,
        drain_seconds: now.drained,
        drain_deadline_seconds: now.left,
    }
}

/// A host of a service as one backend: what is declared of each of its addresses, and what is counted of all. `all`: the
/// service's backends.
pub fn host(service: &ServiceSpec, host: &HostSpec, all: &[BackendView]) -> BackendView {
    let has = |view: &&BackendView| service.backends.get(&view.address).is_some_and(|spec| host.has(spec));
    let own: Vec<&BackendView> = all.iter().filter(has).collect();
    let sum = |of: fn(&BackendView) -> u64| own.iter().map(|view| of(view)).sum::<u64>();
    BackendView {
        address: host.name(),
        host: Some(host.host.to_string()),
        weight: host.weight,
        max_connections: host.max_connections,
        local: host.local,
        backup: host.backup,
        state: "active".into(),
        healthy: own.iter().any(|view| view.healthy),
        unchecked: own.iter().any(|view| view.unchecked),
        one_way: own.iter().any(|view| view.one_way),
        health_check_failures: sum(|view| view.health_check_failures),
        last_health_check_failure: None,
        origin: host.origin.name().into(),
        active_connections: sum(|view| view.active_connections),
        clients: None,
        total_connections: sum(|view| view.total_connections),
        packets_in: sum(|view| view.packets_in),
        bytes_in: sum(|view| view.bytes_in),
        packets_out: sum(|view| view.packets_out),
        bytes_out: sum(|view| view.bytes_out),
        oldest_seconds: own.iter().filter_map(|view| view.oldest_seconds).reduce(f64::max),
        drain_from: None,
        drain_seconds: None,
        drain_deadline_seconds: None,
    }
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
        deny_ranges: texts(&frontend.denied),
        forward: frontend.forward.into(),
    }
}

/// What is declared and not in force.
pub fn rejected(rejection: &Rejection) -> RejectedView {
    let Rejection { service, backend, origin, error, kept, alone: _, address_of: _ } = rejection.clone();
    RejectedView { service, backend, origin: origin.name().into(), error, last_good_in_force: kept }
}

/// In the status is why; here it may also be that no address is of an IP version that the service has.
fn without_address(host: &HostSpec) -> String {
    format!("host {} is no backend: no address of it is known that the service could use", host.name())
}

/// A service, as of now.
pub fn service(spec: &ServiceSpec, state: &State, snapshot: &Snapshot) -> ServiceView {
    let backends: Vec<Now<'_>> = now::backends(spec, state, snapshot).collect();
    let in_use = backends.iter().filter(|now| now.state == "active" && now.healthy);
    // A valid service has one, and that an address.
    let first = &spec.frontends[0];
    let all = state.actual().service(&spec.name).into_iter().flat_map(|actual| actual.backends.values());
    ServiceView {
        active_connections: all.map(|id| u64::from(snapshot.active(*id))).sum(),
        imbalance: now::imbalance(
            in_use.map(|now| (now.counted.active, now.spec.map_or(1, BackendSpec::share))),
        ),
        name: spec.name.clone(),
        vip: first.addresses[0],
        vip_except: spec.frontends.iter().flat_map(|f| f.except.iter().copied()).collect(),
        source_ranges: texts(&first.sources),
        deny_ranges: texts(&first.denied),
        ports: texts(&first.ports),
        frontends: spec.frontends.iter().map(frontend).collect(),
        stray: spec.stray().name().into(),
        algorithm: spec.algorithm.name().into(),
        origin: spec.origin.name().into(),
        declared: spec.into(),
        warnings: spec
            .warnings()
            .into_iter()
            .chain(spec.unresolved().map(without_address))
            .chain(state.left_out().filter(|r| r.service == spec.name).map(ToString::to_string))
            .collect(),
        short_of_quorum: state.known().short_of_quorum(spec),
        rejected: state.refusals().filter(|r| r.service == spec.name).map(|r| r.error.clone()).collect(),
        backends: backends.iter().map(|now| backend(spec, now, state)).collect(),
    }
}
