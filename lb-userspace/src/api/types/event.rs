//! What happens, and who wants to hear of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EventQuery {
    /// Go on, with flows too; otherwise what the agent did and concluded of late.
    pub follow: bool,
    /// Of this service only.
    pub service: Option<String>,
}

/// Something that happened; a line of the answer to `GET /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct EventView {
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// `open`, `close`, `healthy`, `unhealthy`, `drain`, `undrain`, `rebalance`; `resolved`: a host has the addresses of
    /// `detail`; `unresolved`: it can't be looked up, and its last addresses stay; `down`: a service's quorum isn't met;
    /// `up`: it is again; `rejected` and `accepted`: what is declared of a service, or of a backend of it; `panic`: a task
    /// of the agent's was started again; `pins`: some had vanished and were put back; `gap`: events were lost, since the
    /// follower or the agent was too slow. `one-way`: clients ask a backend and nothing comes back; `answers`: something
    /// does again.
    pub kind: String,
    /// Service.
    pub service: String,
    /// Backend; of a flow with the real target port.
    pub backend: String,
    /// More, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Flow: client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Flow: VIP and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Flow: `tcp` or `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Close: `finished`, `client_reset`, `backend_reset`, `closed` (by the agent: a timeout, a deadline, the operator), `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Close: how long it was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Close: client to backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Close: backend to client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
}
