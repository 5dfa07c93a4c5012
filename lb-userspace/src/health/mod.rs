//! Health checks: a task for each backend of a service that wants them, and one that judges what they find, and what becomes of clients'
//! connections.

mod exec;
mod passive;
mod probe;
mod tls;

use std::{
    collections::HashMap,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt as _;
use lb_common::abi::BackendId;
use rand::RngExt as _;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use self::{passive::Signs, probe::Failure};
use crate::{
    agent::{
        down,
        handle::Handle,
        shared::{Shared, State},
        tasks::words,
    },
    model::{
        health::{Health, HealthSpec},
        readable::readable,
    },
};

/// How often the desired state is looked at for backends that came or went.
const LOOK: Duration = Duration::from_secs(1);
/// Checks under way at once.
const AT_ONCE: usize = 256;

/// Whom a check is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Target {
    service: String,
    backend: String,
}

/// How a check came out.
struct Outcome {
    target: Target,
    failure: Option<Failure>,
    /// It was made since clients weren't accepted.
    for_clients: bool,
}

/// A backend that is being checked. The task ends with it.
struct Watched {
    spec: HealthSpec,
    to: SocketAddr,
    health: Health,
    /// Where its counters are; `None`: it has none yet.
    id: Option<BackendId>,
    /// Has it checked at once.
    at_once: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let (report, mut outcomes) = mpsc::channel(AT_ONCE);
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut watched: HashMap<Target, Watched> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    let mut signs = Signs::default();
    let mut lacking = Lacking::default();
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = look.tick() => {
                // Programs are run only as long as the config file says that they may be.
                let exec = handle.shared.exec_checks.load(Ordering::Relaxed);
                let now = Some((handle.shared.read().generation, exec));
                if std::mem::replace(&mut seen, now) != now {
                    follow(&handle.shared.read(), exec, &mut watched, &report, &slots);
                    lacking.keep(&handle, |target| watched.contains_key(target));
                }
                for target in refusing(&handle.shared, &watched, &mut signs) {
                    if let Some(one) = watched.get(&target) {
                        // What clients meet can be forged by some; what a check meets can't.
                        one.at_once.notify_one();
                    }
                }
            }
            Some(outcome) = outcomes.recv() => {
                let others = has_others(&watched, &outcome.target);
                if let Some(one) = watched.get_mut(&outcome.target) {
                    judge(&handle, one, &mut lacking, outcome, others).await;
                }
            }
        }
    }
}

/// Starts checking whom the state has and stops checking whom it hasn't. `exec`: may programs be run?
#[expect(clippy::disallowed_methods, reason = "panics of checks are caught where they are made")]
fn follow(
    state: &State,
    exec: bool,
    watched: &mut HashMap<Target, Watched>,
    report: &mpsc::Sender<Outcome>,
    slots: &Arc<Semaphore>,
) {
    let mut wanted = HashMap::new();
    for service in state.desired.services().values() {
        let Some(spec) = service.health.as_ref().filter(|_| exec || !service.runs_programs()) else {
            continue;
        };
        for (name, backend) in &service.backends {
            let Some(port) = service.check_port(backend) else { continue };
            let target = Target { service: service.name.clone(), backend: name.clone() };
            wanted.insert(target, (spec, SocketAddr::new(backend.address, port)));
        }
    }
    watched.retain(|target, one| {
        wanted.get(target).is_some_and(|(spec, to)| **spec == one.spec && *to == one.to)
    });
    for (target, (spec, to)) in wanted {
        watched.entry(target.clone()).or_insert_with(|| {
            let known = state.health.of(&target.service, &target.backend);
            let at_once = Arc::new(Notify::new());
            let task = watch_one(target, spec.clone(), to, at_once.clone(), report.clone(), slots.clone());
            Watched {
                spec: spec.clone(),
                to,
                health: Health::new(known.healthy),
                id: None,
                at_once,
                task: tokio::spawn(task),
            }
        });
    }
    for (target, one) in watched {
        let service = state.actual().service(&target.service);
        one.id = service.and_then(|service| service.backends.get(&target.backend)).copied();
    }
}

/// Checks one backend again and again.
async fn watch_one(
    target: Target,
    spec: HealthSpec,
    to: SocketAddr,
    at_once: Arc<Notify>,
    report: mpsc::Sender<Outcome>,
    slots: Arc<Semaphore>,
) {
    // Not all at the same moment.
    let mut wait = spec.interval.mul_f64(rand::rng().random_range(0.0..0.5));
    loop {
        let for_clients = tokio::time::timeout(wait, at_once.notified()).await.is_ok();
        let Ok(slot) = slots.acquire().await else { return };
        // What is wrong with one check must not be the end of all of them.
        let checked = AssertUnwindSafe(probe::check(&spec, &target.service, to)).catch_unwind().await;
        let failure = match checked {
            Ok(outcome) => outcome.err(),
            Err(panic) => Some(Failure::panicked(&words(panic.as_ref()))),
        };
        drop(slot);
        if report.send(Outcome { target: target.clone(), failure, for_clients }).await.is_err() {
            return;
        }
        wait = spec.interval.mul_f64(rand::rng().random_range(0.9..1.1));
    }
}

/// Has the service of this one another backend of its IP version whose checks are good?
fn has_others(watched: &HashMap<Target, Watched>, target: &Target) -> bool {
    let v4 = watched.get(target).is_some_and(|one| one.to.is_ipv4());
    watched.iter().any(|(other, one)| {
        one.health.up && one.to.is_ipv4() == v4 && other.service == target.service && other != target
    })
}

/// Draws the conclusion. `others`: the service has another backend that is well. The last one isn't taken out before its checks say so themselves.
async fn judge(handle: &Handle, one: &mut Watched, lacking: &mut Lacking, outcome: Outcome, others: bool) {
    let Target { service, backend } = &outcome.target;
    let failure = match outcome.failure {
        Some(Failure::Here(why)) => return lacking.note(handle, &outcome.target, Some(why)),
        // Some of it may be a backend's own words.
        Some(Failure::There(why)) => Some(readable(&why)),
        None => None,
    };
    lacking.note(handle, &outcome.target, None);
    let refusing = outcome.for_clients && failure.is_some() && one.health.up;
    let changed = match refusing {
        true if others => {
            one.health = Health::new(false);
            true
        }
        // The last one's checks come at their own pace.
        true => false,
        false => one.health.observe(failure.is_none(), &one.spec),
    };
    if outcome.for_clients && failure.is_none() {
        tracing::warn!(service, backend, "clients aren't accepted, but the check is good: it stays in use");
    }
    if let Some(why) = &failure {
        handle.shared.write().failed(service, backend, why);
    }
    if !changed {
        return;
    }
    let why = failure.as_deref().unwrap_or_default();
    let why = if refusing {
        format!("clients' connections aren't accepted, and the check fails: {why}")
    } else {
        why.into()
    };
    conclude(handle, &outcome.target, one.health.up, &why).await;
}

/// Backends that can't be checked for want of something that the node lacks, and of what; it is in the status.
#[derive(Default)]
struct Lacking(HashMap<Target, String>);

impl Lacking {
    /// What was found about one; `None`: it was checked.
    fn note(&mut self, handle: &Handle, target: &Target, why: Option<String>) {
        match why {
            Some(why) => drop(self.0.insert(target.clone(), why)),
            None if self.0.remove(target).is_none() => return,
            None => {}
        }
        self.tell(handle);
    }

    /// Forgets those that aren't checked any more.
    fn keep(&mut self, handle: &Handle, is_checked: impl Fn(&Target) -> bool) {
        let before = self.0.len();
        self.0.retain(|target, _| is_checked(target));
        if self.0.len() != before {
            self.tell(handle);
        }
    }

    fn tell(&self, handle: &Handle) {
        const KEY: &str = "health checks";
        let Some(why) = self.0.values().next() else {
            handle.shared.write().problems.remove(KEY);
            return;
        };
        let text = format!("health checks can't be made, and backends keep the state that they have: {why}");
        if handle.shared.write().problems.insert(KEY, text.clone()).is_none() {
            tracing::error!("{text}");
        }
    }
}

async fn conclude(handle: &Handle, Target { service, backend }: &Target, healthy: bool, why: &str) {
    if healthy {
        tracing::info!(service, backend, "healthy again");
    } else {
        tracing::warn!(service, backend, "unhealthy, takes no new connections: {why}");
    }
    handle.owner().lock().await.set_health(service, backend, healthy, why);
}

/// Healthy backends whose answers to clients say that they aren't.
fn refusing(shared: &Shared, watched: &HashMap<Target, Watched>, signs: &mut Signs<Target>) -> Vec<Target> {
    let passive = || watched.iter().filter(|(_, one)| one.spec.passive);
    let looked_at: Vec<(&Target, &Watched, BackendId)> =
        passive().filter_map(|(target, one)| Some((target, one, one.id?))).collect();
    let ids: Vec<BackendId> = looked_at.iter().map(|(.., id)| *id).collect();
    let counters = match shared.maps.counters_of(&ids) {
        Ok(counters) => counters,
        Err(e) => {
            tracing::error!("clients' connections aren't watched: {e}");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for ((target, one, _), counters) in looked_at.into_iter().zip(&counters) {
        if signs.observe(target, counters) && one.health.up {
            found.push(target.clone());
        }
    }
    signs.keep(|target| watched.contains_key(target));
    found
}
