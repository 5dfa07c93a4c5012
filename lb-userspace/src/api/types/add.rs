//! What is asked for: services, backends, drains.

use serde::{Deserialize, Serialize};

pub use crate::source::decl::{AffinityDecl, ForwardBySource, ForwardDecl, FrontendDecl, ServiceDecl};

/// `POST /v1/services`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServiceAdd {
    /// Name.
    pub name: String,
    /// The rest, as text: the server reports what is wrong with it.
    #[serde(flatten)]
    pub service: ServiceDecl,
}

/// `POST /v1/services/{name}/backends`. Adding a backend that the command line added before replaces its weight,
/// limit and `local`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BackendAdd {
    /// `10.0.1.11:5432`, `[fd00::11]:5432`, or without port.
    pub address: String,
    /// Default 1. Wider than the valid range, so that the server can name a bad value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// One of this node's, for frontends with scope `local`. What has an address of the node's own is anyway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
}

/// `POST /v1/services/{name}/backends/{address}/drain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}
