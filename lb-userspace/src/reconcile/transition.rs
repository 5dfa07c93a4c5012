//! One step from what is known to what is to be known next, and the plan that goes with it. Pure: nothing has changed if it fails, or if
//! nobody applies the plan.

use std::{collections::HashSet, sync::Arc, time::Instant};

use super::{
    Actual, Declared, Exhausted, Goal, Plan, Rejection, Scope, health_state, plan,
    settle::{Unplanned, hosts, rejection, settle},
};
use crate::model::{Desired, HealthStates, ModelError, OwnAddresses, ServiceSpec, SnatSpec};

/// All that is concluded from what is declared and seen. A copy costs little.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// What is in force.
    pub desired: Arc<Desired>,
    /// What is known of the backends' health.
    pub health: Arc<HealthStates>,
    /// Services that are no longer declared and whose connections are to be reset.
    pub departed: Arc<HashSet<String>>,
    /// The node's own addresses.
    pub own: Arc<OwnAddresses>,
    /// Addresses for source NAT; `None`: nobody has looked yet.
    pub sources: Option<SnatSpec>,
    /// What is declared and not in force.
    pub rejected: Arc<Vec<Rejection>>,
}

impl Known {
    /// What is to be said of a service that is short of its quorum.
    pub fn short_of_quorum(&self, spec: &ServiceSpec) -> Option<String> {
        spec.short_of_quorum(|backend| self.health.of(&spec.name, backend).healthy)
    }

    /// What plans lead to.
    pub fn goal(&self, now: Instant) -> Goal<'_> {
        let Self { desired, health, own, sources, .. } = self;
        Goal { desired, health, own, sources: sources.as_ref(), now }
    }
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Sources were read, or the node's addresses are others now.
    Declared {
        /// Everything that is declared, in its order.
        all: &'a [Declared],
        /// The node's addresses.
        own: &'a OwnAddresses,
        /// Addresses for source NAT.
        sources: Option<&'a SnatSpec>,
    },
    /// Sources were read, and say of a few services what they didn't say before.
    Some {
        /// These are declared otherwise, or newly.
        changed: &'a [Declared],
        /// These aren't declared any more.
        removed: &'a [&'a str],
    },
    /// Somebody asks for a change of one service: it is made whole, or not at all.
    Asked {
        /// The service.
        name: &'a str,
        /// What is to be declared of it; `None`: nothing.
        declared: Option<&'a Declared>,
    },
    /// A check's word on a backend.
    Health {
        /// The service.
        service: &'a str,
        /// Its backend.
        backend: &'a str,
        /// May it take new flows?
        healthy: bool,
    },
    /// Time has gone by: backends that start slowly are given more.
    Time,
}

/// What follows.
#[derive(Clone, Debug)]
pub struct Transition {
    /// What is known when the plan is applied.
    pub next: Known,
    /// The way there.
    pub plan: Plan,
}

/// Nothing follows.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum Refused {
    /// What was asked for isn't valid.
    #[error("{0}")]
    Invalid(String),
    /// There is no room for it now.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// What changes may concern others: all that is declared has to be looked at.
    #[error("all that is declared has to be looked at")]
    NeedsAll,
}

impl From<ModelError> for Refused {
    fn from(error: ModelError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<Vec<Exhausted>> for Refused {
    fn from(errors: Vec<Exhausted>) -> Self {
        errors.into_iter().next().map_or(Self::NeedsAll, Self::Exhausted)
    }
}

/// See the module. `actual`: what the maps hold.
///
/// # Errors
/// The change can't be made; all is as it was.
pub fn transition(
    old: &Known,
    actual: &Actual,
    input: Input<'_>,
    now: Instant,
) -> Result<Transition, Refused> {
    let mut next = old.clone();
    match input {
        Input::Declared { all, own, sources } => {
            next.own = Arc::new(own.clone());
            next.sources = sources.cloned().or(next.sources);
            Ok(everything(old, next, actual, all, now))
        }
        Input::Some { changed, removed } => {
            some(old, &mut next, changed, removed, now)?;
            let names: Vec<&str> =
                changed.iter().map(|d| d.name.as_str()).chain(removed.iter().copied()).collect();
            planned(next, actual, &names, now)
        }
        Input::Asked { name, declared } => {
            let moved = asked(old, &mut next, name, declared, now)?;
            let names: Vec<&str> = moved.iter().map(String::as_str).chain([name]).collect();
            planned(next, actual, &names, now)
        }
        Input::Health { service, backend, healthy } => {
            let Some(spec) = old.desired.services().get(service) else { return Ok(nothing(next)) };
            if !spec.backends.contains_key(backend) {
                return Ok(nothing(next));
            }
            let state = Arc::make_mut(&mut next.health).entry(service, backend);
            (state.healthy, state.assumed) = (healthy, false);
            state.ramp = (healthy && spec.slow_start.is_some()).then_some(now);
            planned(next, actual, &[service], now)
        }
        Input::Time => {
            let ramping = old.health.ramping();
            if ramping.is_empty() {
                return Ok(nothing(next));
            }
            let health = Arc::make_mut(&mut next.health);
            for service in &ramping {
                let slow = old.desired.services().get(service).and_then(|s| s.slow_start);
                health.end_ramps(service, slow, now);
            }
            let names: Vec<&str> = ramping.iter().map(String::as_str).collect();
            planned(next, actual, &names, now)
        }
    }
}

fn nothing(next: Known) -> Transition {
    Transition { next, plan: Plan::default() }
}

fn planned(next: Known, actual: &Actual, names: &[&str], now: Instant) -> Result<Transition, Refused> {
    let plan = plan(next.goal(now), actual, Scope::Services(names))?;
    Ok(Transition { next, plan })
}

/// All that is declared, anew.
fn everything(old: &Known, next: Known, actual: &Actual, all: &[Declared], now: Instant) -> Transition {
    let mut unplanned = Unplanned::new();
    loop {
        let mut next = next.clone();
        let (desired, rejected) = settle(all, &unplanned, &next.own, |spec| holds(actual, spec));
        next.rejected = Arc::new(rejected);
        let health = Arc::make_mut(&mut next.health);
        if old.desired.services().is_empty() {
            health_state::adopt(health, &desired, actual);
        }
        for new in desired.services().values() {
            let before = old.desired.services().get(&new.name);
            if !before.is_some_and(|before| Arc::ptr_eq(before, new)) {
                health_state::change(health, before.map(Arc::as_ref), new, now);
            }
        }
        health_state::forget(health, &desired);
        health_state::part(Arc::make_mut(&mut next.departed), &old.desired, &desired);
        next.desired = Arc::new(desired);
        let errors = match plan(next.goal(now), actual, Scope::All) {
            Ok(plan) => return Transition { next, plan },
            Err(errors) => errors,
        };
        for error in errors {
            let text = error.to_string();
            unplanned.entry(error.service).or_insert((0, text)).0 += 1;
        }
    }
}

/// Is a service, as the maps have it, at some of the places where this one is to be, and nobody else at the others?
fn holds(actual: &Actual, spec: &ServiceSpec) -> bool {
    let Some(id) = actual.id(&spec.name) else { return false };
    let named = spec.claims().into_iter().filter(|(vip, _)| !vip.is_unspecified());
    let mut somewhere = false;
    for (vip, range) in named {
        match actual.owner(&(vip, range.protocol().proto(), range.first())) {
            Some(owner) if owner != id => return false,
            owner => somewhere |= owner.is_some(),
        }
    }
    somewhere
}

/// A few services, if no other has anything to do with it.
fn some(
    old: &Known,
    next: &mut Known,
    changed: &[Declared],
    removed: &[&str],
    now: Instant,
) -> Result<(), Refused> {
    let concerned: HashSet<&str> =
        changed.iter().map(|d| d.name.as_str()).chain(removed.iter().copied()).collect();
    let others = old.rejected.iter().filter(|r| !concerned.contains(r.service.as_str()));
    let concerns = |r: &Rejection| r.address_of.is_none() || hosts::waits_for(r, &old.desired, &concerned);
    if others.clone().any(|r| !r.alone && concerns(r)) {
        return Err(Refused::NeedsAll);
    }
    let mut rejected: Vec<Rejection> = others.cloned().collect();
    let desired = Arc::make_mut(&mut next.desired);
    for name in removed {
        desired.replace(name, None, &next.own)?;
    }
    for declared in changed {
        rejected.extend(declared.aside.iter().cloned());
        let spec = match &declared.spec {
            Ok(spec) => Some(spec),
            Err(error) => {
                rejected.push(rejection(declared, error.clone(), declared.good.is_some()));
                declared.good.as_ref()
            }
        };
        desired.replace(&declared.name, spec.cloned(), &next.own).map_err(|_| Refused::NeedsAll)?;
    }
    next.rejected = Arc::new(rejected);
    concerned.into_iter().for_each(|name| follow(old, next, name, now));
    Ok(())
}

/// One service, all or nothing. Names of others that give way to it: those of whose hosts' addresses it is one.
fn asked(
    old: &Known,
    next: &mut Known,
    name: &str,
    declared: Option<&Declared>,
    now: Instant,
) -> Result<Vec<String>, Refused> {
    let known = |r: &Rejection| old.rejected.contains(r);
    let refused = |r: &&Rejection| r.address_of.is_none() && !known(r);
    if let Some(new) = declared.and_then(|d| d.aside.iter().find(refused)) {
        return Err(Refused::Invalid(new.error.clone()));
    }
    let whole = |r: &Rejection| r.service == name && r.backend.is_none();
    let desired = Arc::make_mut(&mut next.desired);
    let mut as_declared = true;
    let Some(declared) = declared else {
        desired.replace(name, None, &next.own)?;
        next.rejected = Arc::new(old.rejected.iter().filter(|r| r.service != name).cloned().collect());
        follow(old, next, name, now);
        return Ok(Vec::new());
    };
    let (spec, mut left_out) = match &declared.spec {
        Ok(spec) => {
            let taken = hosts::at(old.desired.services().values(), &hosts::all([spec]));
            let without = hosts::without(spec, |address| taken.get(&address).cloned().unwrap_or_default());
            let (spec, left_out) = without.unwrap_or_else(|| (spec.clone(), Vec::new()));
            (Ok(spec), left_out)
        }
        Err(error) => (Err(error.clone()), Vec::new()),
    };
    let mut moved = Vec::new();
    if let Ok(spec) = &spec {
        for other in old.desired.services().values().filter(|other| other.name != name) {
            let Some((other, more)) = hosts::without(other, |_| vec![spec]) else { continue };
            moved.push(other.name.clone());
            left_out.extend(more);
            desired.replace(&other.name.clone(), Some(other), &next.own)?;
        }
    }
    let tried = spec.and_then(|spec| desired.replace(name, Some(spec), &next.own).map_err(|e| e.to_string()));
    if let Err(error) = tried {
        // What its source says of it was wrong before: what is asked for is done to the version in force.
        let good = declared.good.clone().filter(|_| old.rejected.iter().any(whole));
        desired.replace(name, Some(good.ok_or(Refused::Invalid(error))?), &next.own)?;
        as_declared = false;
    }
    let kept = |r: &&Rejection| r.service != name || !as_declared && whole(r);
    let mut rejected: Vec<Rejection> = old.rejected.iter().filter(kept).cloned().collect();
    rejected.extend(declared.aside.iter().cloned());
    rejected.extend(left_out);
    next.rejected = Arc::new(rejected);
    moved.iter().for_each(|other| follow(old, next, other, now));
    follow(old, next, name, now);
    Ok(moved)
}

/// What is concluded of one service's backends when it changes.
fn follow(old: &Known, next: &mut Known, name: &str, now: Instant) {
    let before = old.desired.services().get(name);
    let departed = Arc::make_mut(&mut next.departed);
    departed.remove(name);
    let after = next.desired.services().get(name);
    let health = Arc::make_mut(&mut next.health);
    match (before, after) {
        (Some(before), None) => health_state::leave(departed, before),
        (before, Some(after)) => health_state::change(health, before.map(Arc::as_ref), after, now),
        (None, None) => {}
    }
    health.keep_of(name, |backend| after.is_some_and(|spec| spec.backends.contains_key(backend)));
}

#[cfg(test)]
mod tests;
