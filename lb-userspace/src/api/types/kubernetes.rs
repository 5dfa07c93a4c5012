//! What is said of the cluster that is followed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cluster, as the agent sees it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct KubernetesView {
    /// The own Node.
    pub node: String,
    /// Which address of the API server is in use; `null`: none has answered yet.
    pub server: Option<String>,
    /// Has the API server told of all there is since the agent started? Until then nothing is taken away.
    pub synced: bool,
    /// Kubernetes Services that are followed; each port of one is a service.
    pub services: u64,
    /// Kinds that the API server doesn't tell of now, and why. What was known of them stays in force.
    pub unseen: BTreeMap<String, String>,
    /// Ports at which nobody is answered yet, one sentence each.
    pub not_listening: Vec<String>,
    /// What is wrong with objects; the rest of them is served.
    pub notes: Vec<NoteView>,
}

/// What is wrong with an object.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct NoteView {
    /// `Service`, `EndpointSlice`, `Namespace`.
    pub kind: String,
    /// `namespace/name`
    pub object: String,
    /// `InvalidAnnotation`, `UnsupportedProtocol`, `InvalidAddress`, `AddressConflict`, `Refused`.
    pub reason: String,
    /// One sentence.
    pub text: String,
}
