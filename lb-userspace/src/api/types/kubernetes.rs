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

/// What of a Kubernetes Service decides where a client goes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct EndpointsView {
    /// `namespace/name`.
    pub service: String,
    /// The port's name; empty: it has none.
    pub port: String,
    /// What the VIP is to it: `cluster IP`, `external IP`, `load balancer`, `node port`.
    pub frontend: String,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: String,
    /// `Cluster` or `Local`; the former also where the Service has none.
    pub external_traffic_policy: String,
    /// Of the own Node; `null`: it has none.
    pub zone: Option<String>,
    /// Which policy decided, and how: a sentence.
    pub policy: String,
    /// Whether hints of EndpointSlices decided, and how: a sentence.
    pub hints: String,
    /// All endpoints of the port and IP version, sorted.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint of a Kubernetes Service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct EndpointView {
    /// Address and port.
    pub address: String,
    /// Its conditions, with what Kubernetes takes for those that aren't set.
    pub ready: bool,
    /// See `ready`.
    pub serving: bool,
    /// See `ready`.
    pub terminating: bool,
    /// Is it on the own Node?
    pub on_this_node: bool,
    /// Its hints: for clients of which zones; none: it has no such hint.
    pub zones: Vec<String>,
    /// Its hints: for clients of the own Node? `null`: it has no such hint.
    pub for_this_node: Option<bool>,
    /// May it take a new connection of this client?
    pub used: bool,
    /// Why, or why not.
    pub why: String,
}
