//! What is concluded about backends when the desired state changes.

use std::{collections::HashSet, time::Instant};

use super::Actual;
use crate::model::{BackendSpec, Desired, HealthStates, RemovalPolicy, ServiceSpec};

fn open(backend: &BackendSpec) -> bool {
    backend.takes_new()
}

/// What a service's change means for its backends.
pub fn change(health: &mut HealthStates, old: Option<&ServiceSpec>, new: &ServiceSpec, now: Instant) {
    begin(health, old, new, now);
    unchecked(health, new, now);
}

/// Lets backends start slowly that take new flows from now on and didn't in `old`, unless there was nobody beside them.
fn begin(health: &mut HealthStates, old: Option<&ServiceSpec>, new: &ServiceSpec, now: Instant) {
    let Some(old) = old.filter(|old| old.backends.values().any(open)) else { return };
    if new.slow_start.is_none() {
        return;
    }
    for (name, _) in new.backends.iter().filter(|(_, b)| open(b)) {
        if !old.backends.get(name).is_some_and(open) {
            let state = health.entry(&new.name, name);
            state.ramp = state.healthy.then_some(now);
        }
    }
}

/// Backends of a service that checks none are healthy, whatever was found when they were.
fn unchecked(health: &mut HealthStates, service: &ServiceSpec, now: Instant) {
    if service.health.is_some() {
        return;
    }
    for name in service
        .backends
        .keys()
        .filter(|name| !health.of(&service.name, name).healthy)
        .cloned()
        .collect::<Vec<_>>()
    {
        let state = health.entry(&service.name, &name);
        (state.healthy, state.assumed) = (true, false);
        state.ramp = service.slow_start.map(|_| now);
    }
}

/// Concludes from what an earlier agent left who was unhealthy then: it takes nothing until a check says otherwise.
pub fn adopt(health: &mut HealthStates, desired: &Desired, actual: &Actual) {
    for service in desired.services().values().filter(|s| s.health.is_some()) {
        let Some(before) = actual.service(&service.name) else { continue };
        // A backup has no weight while it isn't needed, and is taken for healthy.
        let weight = |name: &String| {
            let id = before.backends.get(name)?;
            let block = actual.block(id.block())?;
            let declared = actual.backend(*id).is_some_and(|b| !b.is_retired());
            declared.then(|| block.weight[id.slot()])
        };
        let known = || service.backends.iter().filter(|(_, b)| open(b) && !b.backup);
        for (name, backend) in known().filter(|(name, _)| weight(name) == Some(0)) {
            let of_version = known().filter(|(_, b)| b.address.is_ipv6() == backend.address.is_ipv6());
            let nobody = of_version.filter_map(|(name, _)| weight(name)).all(|weight| weight == 0);
            let state = health.entry(&service.name, name);
            state.healthy = false;
            state.assumed = service.quorum > 1 && nobody;
        }
    }
}

/// Forgets who is no longer declared.
pub fn forget(health: &mut HealthStates, desired: &Desired) {
    let services = desired.services();
    health.keep(|service, backend| services.get(service).is_some_and(|s| s.backends.contains_key(backend)));
}

/// Notes a service that goes, if its connections are to go with it.
pub fn leave(departed: &mut HashSet<String>, service: &ServiceSpec) {
    if service.policies.removal == RemovalPolicy::Reset {
        departed.insert(service.name.clone());
    }
}

/// The same of all that `old` has and `new` hasn't; who is back is nobody to be noted.
pub fn part(departed: &mut HashSet<String>, old: &Desired, new: &Desired) {
    departed.retain(|name| !new.services().contains_key(name));
    let gone = old.services().values().filter(|s| !new.services().contains_key(&s.name));
    gone.for_each(|service| leave(departed, service));
}
