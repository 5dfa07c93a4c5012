//! Follows a cluster: what its API server tells goes to the owner, as long as the config file has it.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{down, handle::Handle, seen::Seen, shared::Shared, trim};
use crate::{
    api::server,
    model::Origin,
    proxy::{
        ClusterState, Occurrence,
        events::{self, Regarding},
        listen::{self, Known},
        pages,
    },
    reconcile::Rejection,
    source::{
        KubernetesSpec,
        kubernetes::{
            client::Servers,
            feed::{self, Change, Feed, FeedStatus, Wanted},
            note::{Note, Reason},
            saved,
            watch::Selection,
        },
    },
};

/// How long after one that has ended the next feed is started, and what the kernel refused is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the last list may take to be saved when the agent ends.
const SAVE: Duration = Duration::from_millis(1_500);

/// Goes on until told to stop.
pub async fn run(handle: Handle, stopped: watch::Receiver<bool>) {
    let mut wanted = handle.shared.kubernetes.subscribe();
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        let followed = wanted.borrow_and_update().clone();
        let (end, ended) = watch::channel(false);
        let work = follow(&handle, followed.as_deref(), ended);
        tokio::pin!(work);
        tokio::select! {
            () = &mut stop => {
                end.send_replace(true);
                return work.await;
            }
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                end.send_replace(true);
                work.await;
            }
            () = &mut work => {
                tokio::select! {
                    () = &mut stop => return,
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// Follows one until it is told to end, or can't.
async fn follow(handle: &Handle, followed: Option<&KubernetesSpec>, ended: watch::Receiver<bool>) {
    let shared = &handle.shared;
    let Some(spec) = followed else {
        shared.cluster.send_replace(None);
        shared.write().problems.remove("Kubernetes");
        return down(ended).await;
    };
    let found = async {
        let node = spec.node()?;
        let requests = shared.proxy_metrics.requests.clone();
        let servers = Servers::find(&spec.access, requests).await.map_err(|e| format!("Kubernetes: {e}"))?;
        Ok::<_, String>((node, servers))
    };
    let (node, servers) = match found.await {
        Ok(found) => {
            shared.write().problems.remove("Kubernetes");
            found
        }
        Err(problem) => {
            let mut state = shared.write();
            if state.problems.insert("Kubernetes", problem.clone()).as_ref() != Some(&problem) {
                tracing::error!("{problem}");
            }
            return;
        }
    };
    let saved = saved::path(&handle.owner().lock().await.config.state_file);
    let wanted = Wanted {
        selection: Selection { node: node.clone(), proxy_name: spec.proxy_name.clone() },
        options: spec.options.clone(),
        saved,
        patience: Wanted::PATIENCE,
    };
    tracing::info!(node, server = %servers.current(), "following Kubernetes");
    // Before anybody can know that there is a Node to tell of.
    let told = shared.occurrences.subscribe();
    // What is known of the same node goes on until there is news.
    shared.cluster.send_modify(|cluster| match cluster {
        Some(cluster) if cluster.node == node => cluster.status = FeedStatus::default(),
        cluster => *cluster = Some(ClusterState::new(node.clone())),
    });
    let mut writing = JoinSet::new();
    match servers.client() {
        Ok(client) => drop(writing.spawn(events::run(client, node.clone(), told))),
        Err(e) => tracing::error!("Events aren't written: {e}"),
    }
    let starts = Occurrence {
        regarding: Regarding { kind: "Node", key: node },
        warning: false,
        reason: "Starting",
        action: "StartFlowpin",
        text: "Flowpin balances the Services' connections of this node".into(),
    };
    let _ = shared.occurrences.send(starts);
    let (feed, task) = feed::start(servers, wanted, shared.own.subscribe());
    *shared.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(feed.asks.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    hear(handle, feed, &mut tasks, &mut writing, ended).await;
    // It saves the list when nobody listens any more.
    match timeout(SAVE, tasks.join_next()).await {
        Ok(Some(Err(error))) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Ok(_) => {}
        Err(_) => tracing::warn!("Kubernetes: the last list isn't saved in time"),
    }
}

/// Takes what the feed tells, for as long as it does. `writing`: who writes Events.
async fn hear(
    handle: &Handle,
    mut feed: Feed,
    tasks: &mut JoinSet<()>,
    writing: &mut JoinSet<()>,
    ended: watch::Receiver<bool>,
) {
    let shared = &handle.shared;
    let never = Instant::now() + Duration::from_secs(365 * 24 * 3600);
    let mut again: Option<Instant> = None;
    let end = down(ended);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            change = feed.changes.recv() => {
                let Some(change) = change else { return };
                let first = change.synced && change.delta.first;
                let began = std::time::Instant::now();
                shared.proxy_metrics.told(change.events);
                let done = handle.follow_cluster(&change).await;
                if done.is_ok() {
                    shared.proxy_metrics.in_force(first, began.elapsed(), &change.delta.triggers);
                }
                again = note(shared, done);
                shared.know(change);
                if first {
                    let in_force = again.is_none();
                    shared.cluster.send_modify(|c| c.iter_mut().for_each(|c| c.in_force = in_force));
                    tracing::info!(in_force, "all of the cluster is known");
                    trim();
                }
            }
            changed = feed.status.changed() => {
                if changed.is_err() {
                    return;
                }
                let status = feed.status.borrow_and_update().clone();
                shared.cluster.send_modify(|cluster| {
                    cluster.iter_mut().for_each(|cluster| cluster.status.clone_from(&status));
                });
            }
            Some(written) = writing.join_next() => {
                if let Err(error) = written
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            () = sleep_until(again.unwrap_or(never)) => {
                let done = handle.owner().lock().await.settle_cluster();
                again = note(shared, done);
                let (synced, done) = (feed.status.borrow().synced, again.is_none());
                shared.cluster.send_modify(|c| c.iter_mut().for_each(|c| c.in_force |= synced && done));
            }
        }
        if tasks.is_empty() {
            return;
        }
    }
}

/// Notes how a change went. Returns when it is to be tried again.
fn note(shared: &Shared, done: Result<(), String>) -> Option<Instant> {
    let failed = done.is_err();
    shared.cluster.send_modify(|cluster| cluster.iter_mut().for_each(|cluster| cluster.note(!failed)));
    let done = done
        .map_err(|e| format!("Kubernetes: a change isn't in force yet, retrying: {e}"))
        .inspect_err(|problem| tracing::error!("{problem}"));
    shared.write().note("Kubernetes change", done);
    failed.then(|| Instant::now() + PAUSE)
}

impl Shared {
    /// Takes what a change says besides services of ours. What is new of objects is logged, and an Event.
    fn know(&self, change: Change) {
        let refused = self.read().rejected.clone();
        let refused = refused.iter().filter(|r| r.origin == Origin::Kubernetes && r.backend.is_none());
        // `namespace/name:port`: the port is its Service's.
        let of_service = |r: &Rejection| {
            let key = r.service.split(':').next().unwrap_or_default().into();
            Note::service(&key, Reason::Refused, r.to_string())
        };
        let notes: Vec<Note> = change.notes.iter().cloned().chain(refused.map(of_service)).collect();
        self.cluster.send_modify(|cluster| {
            let Some(cluster) = cluster else { return };
            let before: HashSet<&Note> = cluster.notes.iter().collect();
            for note in notes.iter().filter(|note| !before.contains(note)) {
                tracing::warn!("{note}");
                let _ = self.occurrences.send(Occurrence::of_note(note));
            }
            cluster.notes = Arc::new(notes);
            cluster.health = change.health;
            cluster.without_local = change.without_local;
            cluster.node_stays = change.node_stays;
            cluster.services = change.services;
        });
    }
}

/// Answers load balancers, kubelets and scrapers, until told to stop.
pub async fn listen(handle: Handle, stopped: watch::Receiver<bool>) {
    let shared = &handle.shared;
    let mut wanted = shared.kubernetes.subscribe();
    let since = std::time::Instant::now();
    let stop = down(stopped);
    tokio::pin!(stop);
    loop {
        let followed = wanted.borrow_and_update().clone();
        let listening = async {
            let Some(spec) = followed else { return std::future::pending().await };
            let known = Known {
                cluster: shared.cluster.clone(),
                own: shared.own.subscribe(),
                metrics: shared.proxy_metrics.clone(),
                occurrences: shared.occurrences.clone(),
                deaf: shared.deaf.clone(),
            };
            let shown = pages::Shown {
                config: shared.config_path.clone(),
                since,
                cluster: shared.cluster.subscribe(),
            };
            let page = server::scraped(handle.clone()).merge(pages::router(shown));
            listen::run(known, spec.health_port, spec.metrics_port, page).await;
        };
        tokio::select! {
            () = &mut stop => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = listening => {}
        }
    }
}

impl Handle {
    /// Takes what has changed of a cluster's Services, with what interfaces need for its sake.
    ///
    /// # Errors
    /// The kernel refuses.
    async fn follow_cluster(&self, change: &Change) -> Result<(), String> {
        let direct = change.delta.changed.iter().any(|spec| spec.is_direct());
        let seen = if direct { Some(Seen::look(&*self.netlink().await).await) } else { None };
        let look = self.owner().lock().await.follow_cluster(change, seen.as_ref())?;
        if look {
            self.look().await;
        }
        if direct {
            self.note_ways().await;
        }
        Ok(())
    }
}
