//! Taking the datapath away, and bringing it back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/detach`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Open connections go on until they end, and the programs leave after them; otherwise at once.
    #[serde(default)]
    pub hand_over: bool,
    /// With `hand_over`: seconds after which the programs leave in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}

/// How far that is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct DetachedView {
    /// The programs are off.
    pub detached: bool,
    /// Connections that still need them, as of the last sweep.
    pub open_connections: u64,
    /// Seconds until they leave in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<f64>,
}
