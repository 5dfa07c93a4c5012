//! What an operator wants done or said at all nodes: one agent is told, and asks the others.

use std::time::Duration;

use lb_cluster::rebalance::Ask;
use lb_mesh::Reply;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{PROBLEM, rebalance::Totals};
use crate::{
    agent::handle::Handle,
    api::{
        error::{ApiError, Refusal},
        types::{BackendView, Drain},
    },
};

/// How long the others may take: as long as a large change takes to be in force.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done with a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Nothing: it is only looked at.
    Look,
    /// No new connections go to it.
    Drain(Drain),
    /// They do again.
    Undrain,
}

/// A backend, and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its service.
    pub service: String,
    /// Its address, as the node that is told has it.
    pub backend: String,
    /// What.
    pub deed: Deed,
}

/// What a node asks others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Is this done, please? Answered with a [`BackendView`], or why not.
    Task(Task),
    /// How many connections may be moved? For the owner; answered with an `Answer`.
    Moves {
        /// Of which service.
        service: String,
        /// What all nodes have, as far as it is known.
        totals: Totals,
        /// How many it could move.
        ask: Ask,
    },
    /// How does rebalancing stand? For the owner; answered with a [`Stand`].
    Stand {
        /// Of which service.
        service: String,
        /// What all nodes have.
        totals: Totals,
        /// An operator wants it to begin now.
        begin: bool,
    },
    /// How many connections of each backend are idle? Answered with [`Totals`].
    Idle {
        /// Of which service.
        service: String,
    },
}

/// A backend at all nodes that share their counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EverywhereView {
    /// Its service.
    pub service: String,
    /// Its address.
    pub backend: String,
    /// Open connections with it, over all nodes that have answered.
    pub active_connections: u64,
    /// Nodes, by name; peers that aren't connected, by their address.
    pub nodes: Vec<NodeBackendView>,
}

/// A backend at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeBackendView {
    /// The node's name.
    pub node: String,
    /// As it is there now; left out: that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendView>,
    /// Why not, or why it wasn't done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// As it is sent.
fn written(what: &impl Serialize) -> Vec<u8> {
    // Text, numbers and lists can always be written.
    serde_json::to_vec(what).unwrap_or_default()
}

/// What a node answers.
type Said = Result<BackendView, String>;

impl NodeBackendView {
    fn new(node: String, said: Said) -> Self {
        let (backend, problem) = match said {
            Ok(backend) => (Some(backend), None),
            Err(problem) => (None, Some(problem)),
        };
        Self { node, backend, problem }
    }

    fn of(Reply { node, body }: Reply) -> Self {
        let said = match body {
            None => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Some(body) => serde_json::from_slice(&body)
                .unwrap_or_else(|_| Err("its answer isn't understood: is it of the same version?".into())),
        };
        Self::new(node, said)
    }
}

impl Handle {
    /// Does it here and at all nodes that this one is connected to.
    ///
    /// # Errors
    /// This node shares no counts; or there is no such backend here: then nobody else is asked.
    pub async fn everywhere(&self, task: Task) -> Result<EverywhereView, ApiError> {
        let view = self.shared.cluster_view().await?;
        let sharing = self.shared.sharing.borrow().clone();
        let mesh = sharing.ok_or_else(|| ApiError::Conflict(format!("{PROBLEM}: it has ended")))?.mesh;
        let here = match self.here(&task).await {
            Ok(backend) => Ok(backend),
            // It may be so here and not there.
            Err(ApiError::Conflict(why)) => Err(why),
            Err(error) => return Err(error),
        };
        let replies = mesh.ask(written(&Question::Task(task.clone())), PATIENCE).await;
        let mut nodes = vec![NodeBackendView::new(view.node, here)];
        nodes.extend(replies.into_iter().map(NodeBackendView::of));
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let unreachable = view.unreachable.into_iter();
        nodes.extend(unreachable.map(|peer| NodeBackendView::new(peer.peer, Err(peer.why))));
        let backends = nodes.iter().filter_map(|node| node.backend.as_ref());
        let active_connections = backends.map(|backend| backend.active_connections).sum();
        Ok(EverywhereView { service: task.service, backend: task.backend, active_connections, nodes })
    }

    async fn here(&self, Task { service, backend, deed }: &Task) -> Result<BackendView, ApiError> {
        match deed {
            Deed::Look => Ok(self.backend(service, &self.named(service, backend)?)?.0),
            Deed::Drain(drain) => self.drain(service, backend, drain.clone()).await,
            Deed::Undrain => self.undrain(service, backend).await,
        }
    }

    /// Does what other nodes ask for, one after another.
    pub(super) async fn answer(&self, mut questions: mpsc::Receiver<lb_mesh::Question>) {
        while let Some(question) = questions.recv().await {
            let answer = match serde_json::from_slice(&question.body) {
                Ok(Question::Task(task)) => {
                    if task.deed != Deed::Look {
                        let Task { service, backend, deed } = &task;
                        tracing::info!(from = question.from, service, backend, ?deed, "asked by a node");
                    }
                    let said: Said = self.here(&task).await.map_err(|error| Refusal::from(error).error);
                    written(&said)
                }
                Ok(Question::Moves { service, totals, ask }) => {
                    written(&self.shared.grant(&service, &totals, &ask))
                }
                Ok(Question::Stand { service, totals, begin }) => {
                    written(&self.shared.stand(&service, &totals, begin))
                }
                Ok(Question::Idle { service }) => written(&self.idle_here(&service).await),
                Err(_) => {
                    let why = "the question isn't understood: is this node of the same version?";
                    written(&Said::Err(why.into()))
                }
            };
            question.answer(answer);
        }
    }

    /// Asks all others; those who don't answer, or aren't understood, are left out.
    pub(super) async fn ask_all<T: DeserializeOwned>(
        &self,
        question: &Question,
        patience: Duration,
    ) -> Vec<T> {
        let Some(sharing) = self.shared.sharing.borrow().clone() else { return Vec::new() };
        let replies = sharing.mesh.ask(written(question), patience).await;
        replies.into_iter().filter_map(|reply| serde_json::from_slice(&reply.body?).ok()).collect()
    }

    /// Asks one node. `None`: it doesn't answer, or isn't understood.
    pub(super) async fn ask_node<T: DeserializeOwned>(
        &self,
        node: &str,
        question: &Question,
        patience: Duration,
    ) -> Option<T> {
        let mesh = self.shared.sharing.borrow().clone()?.mesh;
        let body = mesh.ask_one(node, written(question), patience).await?;
        serde_json::from_slice(&body).ok()
    }
}
