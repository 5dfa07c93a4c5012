//! What is known of the cluster, as the agent goes on.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    api::types::{KubernetesView, NoteView},
    model::OwnAddresses,
    source::kubernetes::{feed::FeedStatus, note::Note, translate::HealthPort},
};

/// For how long a change may not be in force before the node is said to be unhealthy: twice as long as kube-proxy takes
/// to try again.
const LATE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug)]
pub struct ClusterState {
    /// The own Node.
    pub node: String,
    /// How it goes with the API server.
    pub status: FeedStatus,
    /// Services that are followed.
    pub services: usize,
    /// What is said of objects.
    pub notes: Arc<Vec<Note>>,
    /// Where load balancers ask for endpoints of this node, by Service.
    pub health: Arc<Vec<(Arc<str>, HealthPort)>>,
    /// Ports that drop clients for want of an endpoint on this node: those of the cluster, those from outside.
    pub without_local: [usize; 2],
    /// Is the node to stay? `None`: it isn't known.
    pub node_stays: Option<bool>,
    /// Since when a change isn't in force; `None`: all are.
    pub waits_since: Option<Instant>,
    /// When a change came into force last.
    pub updated: SystemTime,
    /// Has all that the API server told of been in force once?
    pub in_force: bool,
}

impl ClusterState {
    /// Nothing is known yet. `node`: the own Node.
    pub fn new(node: String) -> Self {
        Self {
            node,
            status: FeedStatus::default(),
            services: 0,
            notes: Arc::default(),
            health: Arc::default(),
            without_local: [0; 2],
            node_stays: None,
            waits_since: None,
            updated: SystemTime::now(),
            in_force: false,
        }
    }

    /// Is all in force that is to be, or will it be soon?
    pub fn is_healthy(&self, now: Instant) -> bool {
        self.waits_since.is_none_or(|since| now.saturating_duration_since(since) < LATE)
    }

    /// Notes how a change went.
    pub fn note(&mut self, in_force: bool) {
        match in_force {
            true => (self.waits_since, self.updated) = (None, SystemTime::now()),
            false => drop(self.waits_since.get_or_insert_with(Instant::now)),
        }
    }

    /// What is wrong, a sentence.
    pub fn problem(&self) -> Option<String> {
        let listed =
            || "Kubernetes: the API server hasn't told of all there is yet; what was in force stays".into();
        self.status.problem().or_else(|| (!self.status.synced).then(listed))
    }

    /// For the API. `deaf`: where it can't be listened, and why, by port.
    pub fn view(&self, deaf: &BTreeMap<u16, String>) -> KubernetesView {
        let text = |text: &str| text.to_string();
        let note = |note: &Note| NoteView {
            kind: note.kind.into(),
            object: text(&note.object),
            reason: note.reason.name().into(),
            text: note.text.clone(),
        };
        KubernetesView {
            node: self.node.clone(),
            server: Some(self.status.server.clone()).filter(|server| !server.is_empty()),
            synced: self.status.synced,
            services: self.services as u64,
            unseen: self.status.unseen.iter().map(|(kind, why)| (text(kind), why.clone())).collect(),
            not_listening: deaf.values().cloned().collect(),
            notes: self.notes.iter().map(note).collect(),
        }
    }
}

/// IP versions of which the node has addresses, as Kubernetes names them.
pub fn families(own: &OwnAddresses) -> Vec<&'static str> {
    let has = |v6: bool| own.iter().any(|address| address.is_ipv6() == v6);
    [("IPv4", false), ("IPv6", true)].into_iter().filter(|(_, v6)| has(*v6)).map(|(name, _)| name).collect()
}
