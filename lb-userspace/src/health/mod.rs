//! Health checks: a task for each backend of a service that wants them, and one that judges what they find, and what becomes of clients'
//! connections.

mod exec;
mod lacking;
mod passive;
mod probe;
mod tls;
mod vip;

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

use self::{lacking::Lacking, passive::Signs, probe::Failure};
use crate::{
    agent::{
        down,
        handle::Handle,
        shared::{Shared, State},
        tasks::words,
    },
    datapath::handshake::Handshakes,
    model::{DirectVip, Health, HealthSpec, readable::readable},
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
    /// Why it couldn't be checked at its VIPs as well.
    not_at_vips: Option<String>,
    /// It was made since clients weren't accepted.
    for_clients: bool,
}

/// How a backend is checked.
#[derive(Clone, PartialEq, Eq)]
struct Question {
    spec: HealthSpec,
    to: SocketAddr,
    /// Where it has to answer as well.
    vips: Vec<DirectVip>,
}

/// What checks share.
struct Means {
    handle: Handle,
    handshakes: Handshakes,
    report: mpsc::Sender<Outcome>,
    slots: Semaphore,
}

/// A backend that is being checked. The task ends with it.
struct Watched {
    question: Question,
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
    let slots = Semaphore::new(AT_ONCE);
    let means = Arc::new(Means { handle: handle.clone(), handshakes: Handshakes::default(), report, slots });
    let mut watched: HashMap<Target, Watched> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    let mut signs = Signs::default();
    let mut lacking = [Lacking::checks(), Lacking::checks_at_vips()];
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
                    follow(&handle.shared.read(), exec, &mut watched, &means);
                    lacking.iter_mut().for_each(|l| l.keep(&handle, |target| watched.contains_key(target)));
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
fn follow(state: &State, exec: bool, watched: &mut HashMap<Target, Watched>, means: &Arc<Means>) {
    let mut wanted = HashMap::new();
    for service in state.desired.services().values() {
        let Some(spec) = service.health.as_ref().filter(|_| exec || !service.runs_programs()) else {
            continue;
        };
        for (name, backend) in &service.backends {
            let Some(port) = service.check_port(backend) else { continue };
            let target = Target { service: service.name.clone(), backend: name.clone() };
            let to = SocketAddr::new(backend.address, port);
            let vips = service.direct_vips(backend);
            wanted.insert(target, Question { spec: spec.clone(), to, vips });
        }
    }
    watched.retain(|target, one| wanted.get(target) == Some(&one.question));
    for (target, question) in wanted {
        watched.entry(target.clone()).or_insert_with(|| {
            let known = state.health.of(&target.service, &target.backend);
            let at_once = Arc::new(Notify::new());
            let task = watch_one(target, question.clone(), at_once.clone(), means.clone());
            Watched { question, health: Health::new(known), id: None, at_once, task: tokio::spawn(task) }
        });
    }
    for (target, one) in watched {
        let service = state.actual().service(&target.service);
        one.id = service.and_then(|service| service.backends.get(&target.backend)).copied();
    }
}

/// Checks one backend again and again.
async fn watch_one(target: Target, question: Question, at_once: Arc<Notify>, means: Arc<Means>) {
    let interval = question.spec.interval;
    // Not all at the same moment.
    let mut wait = interval.mul_f64(rand::rng().random_range(0.0..0.5));
    loop {
        let for_clients = tokio::time::timeout(wait, at_once.notified()).await.is_ok();
        let Ok(slot) = means.slots.acquire().await else { return };
        // What is wrong with one check must not be the end of all of them.
        let checked = AssertUnwindSafe(check(&target, &question, &means)).catch_unwind().await;
        let (failure, not_at_vips) = match checked {
            Ok(Ok(not_at_vips)) => (None, not_at_vips),
            Ok(Err(failure)) => (Some(failure), None),
            Err(panic) => (Some(Failure::panicked(&words(panic.as_ref()))), None),
        };
        drop(slot);
        let outcome = Outcome { target: target.clone(), failure, not_at_vips, for_clients };
        if means.report.send(outcome).await.is_err() {
            return;
        }
        wait = interval.mul_f64(rand::rng().random_range(0.9..1.1));
    }
}

/// Checks a backend at its own address, and then where clients' packets reach it as they are. What keeps it from being
/// asked there is said, and says nothing of it.
async fn check(target: &Target, question: &Question, means: &Means) -> Result<Option<String>, Failure> {
    let Question { spec, to, vips } = question;
    probe::check(spec, &target.service, *to).await?;
    match vip::check(&means.handle, &means.handshakes, vips, *to, spec.timeout).await {
        Ok(()) => Ok(None),
        Err(Failure::Here(why)) => Ok(Some(why)),
        Err(failure) => Err(failure),
    }
}

/// Has the service of this one another backend of its IP version whose checks are good?
fn has_others(watched: &HashMap<Target, Watched>, target: &Target) -> bool {
    let v4 = watched.get(target).is_some_and(|one| one.question.to.is_ipv4());
    watched.iter().any(|(other, one)| {
        one.health.up && one.question.to.is_ipv4() == v4 && other.service == target.service && other != target
    })
}

/// Draws the conclusion. `others`: the service has another backend that is well. The last one isn't taken out before its checks say so themselves.
async fn judge(
    handle: &Handle,
    one: &mut Watched,
    [lacking, at_vips]: &mut [Lacking; 2],
    outcome: Outcome,
    others: bool,
) {
    let Target { service, backend } = &outcome.target;
    let failure = match outcome.failure {
        Some(Failure::Here(why)) => return lacking.note(handle, &outcome.target, Some(why)),
        // Some of it may be a backend's own words.
        Some(Failure::There(why)) => Some(readable(&why)),
        None => None,
    };
    lacking.note(handle, &outcome.target, None);
    let known = handle.shared.read().is_checked(service, backend);
    if !known {
        handle.shared.write().note_checked(service, backend);
    }
    if failure.is_none() {
        at_vips.note(handle, &outcome.target, outcome.not_at_vips);
    }
    let refusing = outcome.for_clients && failure.is_some() && one.health.up;
    let changed = match refusing {
        true if others => {
            one.health.fall(&one.question.spec);
            true
        }
        // The last one's checks come at their own pace.
        true => false,
        false => one.health.observe(failure.is_none(), &one.question.spec),
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
    let passive = || watched.iter().filter(|(_, one)| one.question.spec.passive);
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
