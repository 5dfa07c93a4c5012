//! Frontends, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ForwardDecl;
use crate::model::Frontend;

/// A frontend besides a service's first one. What it doesn't say is as there, but for `scope`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrontendDecl {
    /// Addresses, of either family; `0.0.0.0` and `::`: all of the node's.
    pub addresses: Vec<String>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// `all` (the default) or `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Prefixes of clients; `[]`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<String>>,
    /// Prefixes of clients that may not connect, also if `source_ranges` have them; `[]`: nobody is shut out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_ranges: Option<Vec<String>>,
    /// How packets go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardDecl>,
}

/// As declared, with all that it has.
impl From<&Frontend> for FrontendDecl {
    fn from(frontend: &Frontend) -> Self {
        Self {
            addresses: frontend.addresses.iter().map(ToString::to_string).collect(),
            ports: Some(frontend.ports.iter().map(ToString::to_string).collect()),
            scope: Some(frontend.scope.name().into()),
            source_ranges: Some(frontend.sources.iter().map(ToString::to_string).collect()),
            deny_ranges: Some(frontend.denied.iter().map(ToString::to_string).collect()),
            forward: Some(frontend.forward.into()),
        }
    }
}
