//! What an operator wants done or said at all nodes: one agent is told, and asks the others.

use std::time::Duration;

use lb_mesh::Reply;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::PROBLEM;
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
        let body = serde_json::to_vec(&task).map_err(|e| ApiError::Failed(e.to_string()))?;
        let replies = mesh.ask(body, PATIENCE).await;
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
            Deed::Look => Ok(self.backend(service, backend)?.0),
            Deed::Drain(drain) => self.drain(service, backend, drain.clone()).await,
            Deed::Undrain => self.undrain(service, backend).await,
        }
    }

    /// Does what other nodes ask for, one after another.
    pub(super) async fn answer(&self, mut questions: mpsc::Receiver<lb_mesh::Question>) {
        while let Some(question) = questions.recv().await {
            let said: Said = match serde_json::from_slice::<Task>(&question.body) {
                Ok(task) => {
                    if task.deed != Deed::Look {
                        let Task { service, backend, deed } = &task;
                        tracing::info!(from = question.from, service, backend, ?deed, "asked by a node");
                    }
                    self.here(&task).await.map_err(|error| Refusal::from(error).error)
                }
                Err(_) => Err("the question isn't understood: is this node of the same version?".into()),
            };
            // A view can always be written.
            question.answer(serde_json::to_vec(&said).unwrap_or_default());
        }
    }
}
