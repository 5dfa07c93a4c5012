//! Idle connections are moved from the fullest backends, within a budget of all nodes: see `lb_cluster::rebalance`, which decides. Here counts
//! are read, the owner is asked, and connections are closed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use lb_cluster::{
    BackendKey,
    rebalance::{Answer, Ask, Asker, Backend, Grants, State, is_even},
};
use lb_common::abi::BackendId;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{PROBLEM, everywhere::Question, pools, views::ClusterView};
use crate::{
    agent::{down, handle::Handle, shared::Shared},
    conntrack::{
        select::{Cause, Victim},
        victims,
    },
    model::RebalanceSpec,
};

/// How often services are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long an owner may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What this node hands out of the services that it owns, or that only it has.
pub struct Owned {
    start: Instant,
    services: Mutex<HashMap<String, One>>,
}

struct One {
    grants: Grants,
    weights: Vec<(BackendKey, u32)>,
}

impl Default for Owned {
    fn default() -> Self {
        Self { start: Instant::now(), services: Mutex::default() }
    }
}

impl Owned {
    /// Forgets services that aren't rebalanced any more.
    fn keep(&self, rebalanced: &[String]) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service, _| rebalanced.contains(service));
    }

    fn with<T>(&self, service: &str, pool: &[Backend], act: impl FnOnce(&mut Grants, Duration) -> T) -> T {
        let now = self.start.elapsed();
        let weights: Vec<_> = pool.iter().map(|backend| (backend.key, backend.weight)).collect();
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || One { grants: Grants::new(now), weights: weights.clone() };
        let one = services.entry(service.into()).or_insert_with(new);
        if one.weights != weights {
            one.weights = weights;
            one.grants.changed(now);
        }
        act(&mut one.grants, now)
    }
}

/// A service's backends as this node has them, with connections of all nodes.
#[derive(Clone, Debug)]
pub struct Known {
    /// How it is rebalanced.
    pub spec: RebalanceSpec,
    /// Backends; those that take nothing new have weight 0.
    pub pool: Vec<Backend>,
    /// Their numbers and names.
    members: Vec<(BackendKey, BackendId, String)>,
    /// Who hands out; `None`: this node.
    pub owner: Option<String>,
}

/// Open connections by backend, over all nodes.
pub type Totals = Vec<(BackendKey, u64)>;

impl Known {
    /// What this node knows; `view`: of others, if it shares counts. `None`: the service isn't rebalanced, or what others
    /// have isn't known.
    pub fn of(shared: &Shared, view: Option<&ClusterView>, service: &str) -> Option<Self> {
        let known = Self::alone(shared, service)?;
        let Some(view) = view else {
            // A node whose mesh doesn't start isn't alone.
            return (!shared.read().problems.contains_key(PROBLEM)).then_some(known);
        };
        let shown = view.services.iter().find(|shown| shown.name == service && shown.shared)?;
        let count = |(key, _, name): &(BackendKey, BackendId, String)| {
            let count = shown.backends.iter().find(|count| count.address == *name);
            let open = count.map_or(Some(0), |count| Some(u64::from(count.own) + count.others?))?;
            Some((*key, open))
        };
        let totals: Totals = known.members.iter().map(count).collect::<Option<_>>()?;
        let owner = shown.owner.clone()?;
        Some(Self { owner: Some(owner).filter(|owner| *owner != view.node), ..known.with(&totals) })
    }

    /// The service's backends, with this node's connections.
    fn alone(shared: &Shared, service: &str) -> Option<Self> {
        let state = shared.read();
        let spec = state.desired.services().get(service)?.rebalance?;
        let (_, found) = pools::one(state.actual(), service)?;
        drop(state);
        let backend = |it: &pools::Member| {
            let open = u64::from(shared.maps.active(it.id));
            Backend { key: it.key, weight: it.weight, open }
        };
        let pool = found.backends.iter().map(backend).collect();
        let members = found.backends.into_iter().map(|it| (it.key, it.id, it.address)).collect();
        Some(Self { spec, pool, members, owner: None })
    }

    /// The same with what another node knows of all nodes' connections.
    fn with(mut self, totals: &Totals) -> Self {
        let totals: HashMap<_, _> = totals.iter().copied().collect();
        for backend in &mut self.pool {
            backend.open = totals.get(&backend.key).copied().unwrap_or_default();
        }
        self
    }

    fn totals(&self) -> Totals {
        self.pool.iter().map(|backend| (backend.key, backend.open)).collect()
    }

    /// As people know it.
    pub fn name(&self, key: BackendKey) -> &str {
        self.members.iter().find(|(own, ..)| *own == key).map_or("?", |(_, _, name)| name)
    }

    /// How many of the node's own may be moved.
    pub fn count(&self, idle: &HashMap<BackendId, Vec<Victim>>) -> Totals {
        let count = |(key, id, _): &(BackendKey, BackendId, String)| Some((*key, idle.get(id)?.len() as u64));
        self.members.iter().filter_map(count).collect()
    }
}

/// How a service's rebalancing stands, as its owner says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stand {
    /// `even`, `waiting`, `quiet`, `moving`, `futile`.
    pub state: String,
    /// `quiet`, `futile`: for how many seconds yet.
    pub seconds: Option<f64>,
    /// `moving`: connections moved so far.
    pub moved: Option<u64>,
}

impl Stand {
    fn new(state: State, now: Duration) -> Self {
        let (state, until, moved) = match state {
            State::Even => ("even", None, None),
            State::Waiting { .. } => ("waiting", None, None),
            State::Quiet { until } => ("quiet", Some(until), None),
            State::Moving { granted, .. } => ("moving", None, Some(granted)),
            State::Futile { until } => ("futile", Some(until), None),
        };
        let seconds = until.map(|until| until.saturating_sub(now).as_secs_f64());
        Self { state: state.into(), seconds, moved }
    }
}

impl Shared {
    /// What another node's ask, or this one's, is answered with. `None`: this node doesn't rebalance the service.
    pub fn grant(&self, service: &str, totals: &Totals, ask: &Ask) -> Option<Answer> {
        let known = Known::alone(self, service)?.with(totals);
        let settings = known.spec.settings();
        Some(
            self.owned.with(service, &known.pool, |grants, now| grants.ask(now, &settings, &known.pool, ask)),
        )
    }

    /// How it stands, of a service whose owner this node is. `begin`: an operator wants it to begin now.
    pub fn stand(&self, service: &str, totals: &Totals, begin: bool) -> Option<Stand> {
        let known = Known::alone(self, service)?.with(totals);
        let settings = known.spec.settings();
        Some(self.owned.with(service, &known.pool, |grants, now| {
            if begin {
                grants.begin();
            }
            Stand::new(grants.look(now, &settings, &known.pool), now)
        }))
    }

    /// Connections of this node's that may be moved, by backend.
    pub fn idle(&self, service: &str, spec: &RebalanceSpec) -> HashMap<BackendId, Vec<Victim>> {
        let directory = self.directory();
        victims::unused_of(self.place(&directory), service, spec.idle)
    }
}

/// When this node asks for each service.
struct Asking {
    asker: Asker,
    weights: Vec<(BackendKey, u32)>,
}

/// Moves what it is granted, for as long as the agent runs.
pub async fn run(agent: Handle, stopped: watch::Receiver<bool>) {
    let mut asking: BTreeMap<String, Asking> = BTreeMap::new();
    let start = Instant::now();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = tick.tick() => {}
        }
        let shared = &agent.shared;
        let services: Vec<String> = {
            let state = shared.read();
            let services = state.desired.services().values().filter(|spec| spec.rebalance.is_some());
            services.map(|spec| spec.name.clone()).collect()
        };
        asking.retain(|service, _| services.contains(service));
        shared.owned.keep(&services);
        if services.is_empty() {
            continue;
        }
        let view = shared.cluster_view().await.ok();
        for service in services {
            let Some(known) = Known::of(shared, view.as_ref(), &service) else { continue };
            let first = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64);
            let weights: Vec<_> = known.pool.iter().map(|it| (it.key, it.weight)).collect();
            let asks = asking
                .entry(service.clone())
                .or_insert_with(|| Asking { asker: Asker::new(first), weights: weights.clone() });
            if asks.weights != weights {
                asks.weights = weights;
                asks.asker.changed();
            }
            if asks.asker.is_due(start.elapsed()) && !is_even(&known.pool) {
                agent.move_some(&service, &known, &mut asks.asker, start).await;
            }
        }
    }
}

impl Handle {
    /// Asks for what is idle, and closes what is granted.
    async fn move_some(&self, service: &str, known: &Known, asker: &mut Asker, start: Instant) {
        let Some(idle) = self.idle_now(service, known.spec).await else { return };
        let Some(ask) = asker.ask(start.elapsed(), &known.count(&idle), &known.pool) else { return };
        let totals = known.totals();
        let answer = match &known.owner {
            None => self.shared.grant(service, &totals, &ask),
            Some(owner) => {
                let question = Question::Moves { service: service.into(), totals, ask };
                self.ask_node(owner, &question, PATIENCE).await.flatten()
            }
        };
        let Some(answer) = answer else { return };
        let moves = asker.answered(start.elapsed(), &answer);
        if moves.is_empty() {
            return;
        }
        // As of now: who has said something meanwhile stays.
        let Some(mut idle) = self.idle_now(service, known.spec).await else { return };
        for it in moves {
            let member = known.members.iter().find(|(key, ..)| *key == it.backend);
            let Some((_, id, name)) = member else { continue };
            let mut chosen = idle.remove(id).unwrap_or_default();
            chosen.truncate(usize::try_from(it.connections).unwrap_or(usize::MAX));
            match self.shared.closer.close(Cause::Rebalance, chosen).await {
                Ok(0) => {}
                Ok(closed) => {
                    let what = format!("{closed} idle connections moved, of {} granted", it.connections);
                    self.shared.log.note("rebalance", service, name, what);
                }
                Err(why) => tracing::warn!(service, backend = name, "rebalancing: {why}"),
            }
        }
    }

    /// How many connections of this node's may be moved, by backend.
    pub(super) async fn idle_here(&self, service: &str) -> Totals {
        let Some(known) = Known::alone(&self.shared, service) else { return Vec::new() };
        let idle = self.idle_now(service, known.spec).await;
        idle.map(|idle| known.count(&idle)).unwrap_or_default()
    }

    async fn idle_now(&self, service: &str, spec: RebalanceSpec) -> Option<HashMap<BackendId, Vec<Victim>>> {
        let (shared, service) = (self.shared.clone(), service.to_owned());
        crate::agent::handle::blocking(move || shared.idle(&service, &spec)).await.ok()
    }
}
