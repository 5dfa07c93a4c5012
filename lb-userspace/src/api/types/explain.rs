//! Which backend a client is at, or would be given to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EndpointsView;

/// `GET /v1/explain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Address, or address and port.
    pub client: String,
    /// VIP and port.
    pub vip: String,
    /// Default: `tcp`.
    #[serde(default)]
    pub protocol: Option<String>,
}

/// Where a client is, or would be given to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct ExplainView {
    /// Service.
    pub service: String,
    /// As asked.
    pub client: String,
    /// As asked.
    pub vip: String,
    /// The backend; `null`: nobody, or not known beforehand.
    pub backend: Option<String>,
    /// One sentence.
    pub why: String,
    /// All backends.
    pub candidates: Vec<Candidate>,
    /// Of a Kubernetes Service: what decides which endpoints are backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<EndpointsView>,
}

/// A backend as a choice sees it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct Candidate {
    /// Name.
    pub backend: String,
    /// Pins that count.
    pub active_connections: u64,
    /// Connections of other nodes that share their counts; `null`: not known, or none of this service's are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<u32>,
    /// With affinity: clients bound to it that have a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Declared weight, times the part of it in a slow start; 0: takes nothing new.
    pub weight_in_force: u64,
    /// `null`: no limit.
    pub max_connections: Option<u32>,
    /// May it be given a new connection?
    pub takes_new: bool,
    /// Why not; empty if it may.
    pub note: String,
}
