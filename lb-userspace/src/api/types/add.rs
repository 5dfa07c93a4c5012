//! What is asked for: services, backends, drains.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::source::decl::{
    AffinityDecl, BackendDecl, ForwardBySource, ForwardDecl, FrontendDecl, HealthDecl, ServiceDecl, StepDecl,
    Time, TimeoutsDecl, patch::Patch,
};

/// `POST /v1/services/{name}/backends/{address}/drain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}
