//! From watches to changes: one task that knows the cluster, and hands on what follows as soon as it may.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Delta, Options, State,
    client::Servers,
    explain::Question,
    saved::{API, ApiServer, Saved},
    translate::HealthPort,
    watch::{self as watches, Selection, Told},
};
use crate::{
    api::types::EndpointsView,
    model::{OwnAddresses, uptime},
};

/// How long what has become less waits: it may be on its way from one EndpointSlice to another.
const LESS: Duration = Duration::from_millis(100);
/// How long more of the same is waited for, when there is something to do.
const GATHER: Duration = Duration::from_millis(2);
/// How long the own Node is waited for.
const NODE: Duration = Duration::from_secs(30);
/// How soon the first list is saved.
const FIRST: Duration = Duration::from_secs(1);
/// How often the list is saved while it changes.
const SAVE: Duration = Duration::from_secs(30);
/// Events that may wait to be looked at.
const QUEUE: usize = 1024;

/// What is to be followed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of which node, and which Services.
    pub selection: Selection,
    /// What the operator says.
    pub options: Options,
    /// Where the last list is kept.
    pub saved: PathBuf,
    /// How long the server is waited for before that is taken.
    pub patience: Duration,
}

impl Wanted {
    /// As long as it usually is.
    pub const PATIENCE: Duration = Duration::from_secs(5);
}

/// What comes out.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What has changed.
    pub delta: Delta,
    /// Has the API server told of all there is? If not, it is the last list, and what isn't in it may be there all
    /// the same.
    pub synced: bool,
    /// All that is said of objects.
    pub notes: Arc<Vec<super::note::Note>>,
    /// Where load balancers ask for endpoints of this node, by Service.
    pub health: Arc<Vec<(Arc<str>, HealthPort)>>,
    /// Ports that drop clients for want of an endpoint on this node: those of the cluster, those from outside.
    pub without_local: [usize; 2],
    /// Is the node to stay? `None`: it isn't known.
    pub node_stays: Option<bool>,
    /// How many Services are followed.
    pub services: usize,
    /// Events of EndpointSlices and of Services since the last change.
    pub events: [u64; 2],
}

/// How it is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStatus {
    /// Which address of the API server is in use.
    pub server: String,
    /// Has everything been listed once?
    pub synced: bool,
    /// Kinds that can't be seen now, and why.
    pub unseen: BTreeMap<&'static str, String>,
}

impl FeedStatus {
    /// What is wrong, in a sentence. Kinds that can be done without aren't.
    pub fn problem(&self) -> Option<String> {
        let needed = |kind: &&str| !matches!(*kind, "ServiceCIDR" | "Namespace");
        let (kind, why) = self.unseen.iter().find(|(kind, _)| needed(kind))?;
        Some(format!(
            "Kubernetes: the API server doesn't tell of {kind}s, what was known stays in force: {why}"
        ))
    }
}

/// A question, and where the answer goes. `None`: nothing is known of the service.
pub type Asked = (Question, oneshot::Sender<Option<EndpointsView>>);

/// The other end of a feed.
pub struct Feed {
    /// What comes out, in its order.
    pub changes: mpsc::Receiver<Change>,
    /// How it is going.
    pub status: watch::Receiver<FeedStatus>,
    /// Who wants to know why.
    pub asks: mpsc::Sender<Asked>,
}

/// Begins to follow. `own`: the node's addresses. The task ends when nobody listens any more.
pub fn start(
    servers: Servers,
    wanted: Wanted,
    own: watch::Receiver<OwnAddresses>,
) -> (Feed, impl Future<Output = ()>) {
    let (out, changes) = mpsc::channel(1);
    let (tell, status) = watch::channel(FeedStatus::default());
    let (asks, asked) = mpsc::channel(1);
    (Feed { changes, status, asks }, run(servers, wanted, own, asked, out, tell))
}

async fn run(
    servers: Servers,
    wanted: Wanted,
    own: watch::Receiver<OwnAddresses>,
    asked: mpsc::Receiver<Asked>,
    out: mpsc::Sender<Change>,
    tell: watch::Sender<FeedStatus>,
) {
    let (to, told) = mpsc::channel(QUEUE);
    let client = match servers.client() {
        Ok(client) => client,
        Err(e) => return tracing::error!("Kubernetes: {e}"),
    };
    let state = State::new(&wanted.selection.node, wanted.options.clone());
    let watches = servers.watches();
    let feeding = Feeding {
        state,
        servers,
        path: wanted.saved,
        patience: wanted.patience,
        own,
        told,
        asked,
        out,
        tell,
        synced: false,
        unsaved: false,
        events: [0; 2],
    };
    tokio::select! {
        () = watches::run(client, wanted.selection, to, watches) => {}
        () = feeding.run() => {}
    }
}

struct Feeding {
    state: State,
    servers: Servers,
    path: PathBuf,
    patience: Duration,
    own: watch::Receiver<OwnAddresses>,
    told: mpsc::Receiver<Told>,
    asked: mpsc::Receiver<Asked>,
    out: mpsc::Sender<Change>,
    tell: watch::Sender<FeedStatus>,
    /// Has the server told of all there is?
    synced: bool,
    /// Has something changed since the list was saved?
    unsaved: bool,
    /// See [`Change::events`].
    events: [u64; 2],
}

impl Feeding {
    async fn run(mut self) {
        let started = Instant::now();
        let (mut due, mut save): (Option<Instant>, Instant) = (None, started + SAVE);
        let mut patience = Some(started + self.patience);
        let mut node = Some(started + NODE);
        let never = started + Duration::from_secs(365 * 24 * 3600);
        self.state.set_own(&self.own.borrow_and_update().clone());
        loop {
            tokio::select! {
                told = self.told.recv() => {
                    let Some(told) = told else { break };
                    self.hear(told);
                    while let Ok(more) = self.told.try_recv() {
                        self.hear(more);
                    }
                }
                changed = self.own.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.state.set_own(&self.own.borrow_and_update().clone());
                }
                Some((question, answer)) = self.asked.recv() => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.state.explain(&question));
                    continue;
                }
                () = self.out.closed() => break,
                () = sleep_until(due.unwrap_or(never)) => {}
                () = sleep_until(save) => {
                    save = Instant::now() + SAVE;
                    self.save().await;
                }
                () = sleep_until(patience.unwrap_or(never)) => {
                    patience = None;
                    self.restore().await;
                }
                () = sleep_until(node.unwrap_or(never)) => {
                    node = None;
                    if !self.state.cache.nodes.is_synced() {
                        tracing::warn!("the own Node isn't seen; going on without its zone and addresses");
                        self.state.cache.nodes.give_up();
                    }
                }
            }
            let now = Instant::now();
            if !self.synced && self.state.cache.is_listed() {
                self.synced = true;
                // What wasn't in the last list is known by now, too.
                self.state.begin_again();
                (patience, due, save) = (None, Some(now), now + FIRST);
                let server = self.servers.current().to_string();
                self.tell.send_modify(|status| (status.synced, status.server) = (true, server));
            }
            due = match (self.is_due(), self.state.cache.dirty().is_urgent()) {
                (false, _) => due.filter(|_| self.synced && due.is_some_and(|at| at <= now)),
                (true, true) => Some(due.map_or(now + GATHER, |at| at.min(now + GATHER))),
                (true, false) => due.or(Some(now + LESS)),
            };
            if due.is_some_and(|at| at <= now) {
                due = None;
                if !self.hand_on().await {
                    break;
                }
            }
        }
        self.save().await;
    }

    /// Is there something to do? What was restored isn't mixed with half of what is listed.
    fn is_due(&self) -> bool {
        let cache = &self.state.cache;
        let whole = self.synced || !cache.is_listed_in_part();
        whole && cache.is_ready() && !cache.dirty().is_empty()
    }

    fn hear(&mut self, told: Told) {
        match &told {
            Told::Slice(_) => self.events[0] += 1,
            Told::Service(_) => self.events[1] += 1,
            _ => {}
        }
        let cache = &mut self.state.cache;
        match told {
            Told::Service(event) => cache.service(event),
            Told::Slice(event) => cache.slice(event),
            Told::Node(event) => cache.node_event(event),
            Told::Cidr(event) => cache.cidr(event),
            Told::Namespace(event) => cache.namespace(event),
            Told::Unseen { kind, optional, error } => {
                match kind {
                    "ServiceCIDR" if optional => cache.cidrs.give_up(),
                    "Namespace" if optional => cache.namespaces.give_up(),
                    _ => {}
                }
                self.tell.send_if_modified(|status| {
                    let new = status.unseen.get(kind) != Some(&error);
                    if new {
                        tracing::warn!(
                            kind,
                            "the API server doesn't tell, what was known stays in force: {error}"
                        );
                        status.unseen.insert(kind, error);
                    }
                    new
                });
            }
            Told::Seen { kind } => {
                tracing::info!(kind, "the API server tells again");
                let server = self.servers.current().to_string();
                self.tell.send_modify(|status| {
                    status.unseen.remove(kind);
                    status.server = server;
                });
            }
        }
    }

    /// Hands on what follows. False: nobody listens any more.
    async fn hand_on(&mut self) -> bool {
        let Some(delta) = self.state.follow(uptime::now()) else { return true };
        self.unsaved = true;
        self.avoid_own();
        let notes = self.state.notes().into_iter().cloned().collect();
        let health = self.state.health().into_iter().map(|(key, port)| (key.clone(), port)).collect();
        let cache = &self.state.cache;
        let change = Change {
            delta,
            synced: self.synced,
            notes: Arc::new(notes),
            health: Arc::new(health),
            without_local: self.state.without_local(),
            node_stays: cache.nodes.get(cache.me()).map(|node| node.stays),
            services: cache.services.len(),
            events: std::mem::take(&mut self.events),
        };
        self.out.send(change).await.is_ok()
    }

    /// The API server must not be reached by way of what depends on it.
    fn avoid_own(&mut self) {
        let api = ApiServer::of(&self.state.cache);
        if self.servers.avoid(|ip| api.cluster.contains(&ip), &api.endpoints) {
            tracing::warn!(
                "the API server was reached by the cluster address of Service {API}, which this agent serves itself; \
                 going on by its endpoints {:?}. Name them in kubernetes.servers, so that a start doesn't depend on it",
                api.endpoints
            );
        }
    }

    /// Takes the last list, for want of a better one.
    async fn restore(&mut self) {
        if self.state.cache.is_ready() {
            return;
        }
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || Saved::load(&path)).await;
        match loaded.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(Some(saved)) if saved.node == self.state.cache.me() => {
                tracing::warn!(
                    "the API server isn't reached; going on with the last list, {}",
                    self.path.display()
                );
                self.servers.avoid(|ip| saved.api.cluster.contains(&ip), &saved.api.endpoints);
                saved.restore(&mut self.state.cache);
            }
            Ok(Some(saved)) => tracing::warn!("the last list is of node \"{}\", and not used", saved.node),
            Ok(None) => tracing::warn!("the API server isn't reached, and there is no last list"),
            Err(e) => tracing::error!("the last list {} can't be used: {e}", self.path.display()),
        }
    }

    /// Saves the list, if the server has told of something new.
    async fn save(&mut self) {
        if !self.synced || !std::mem::take(&mut self.unsaved) {
            return;
        }
        let (path, saved) = (self.path.clone(), Saved::of(&self.state.cache));
        let written = tokio::task::spawn_blocking(move || saved.save(&path)).await;
        if let Err(e) = written.unwrap_or_else(|e| Err(e.to_string())) {
            self.unsaved = true;
            tracing::error!("the last list {}: {e}", self.path.display());
        }
    }
}
