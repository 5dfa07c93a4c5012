//! Backends, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    BackendSpec, HostSpec, Member, ModelError, Origin,
    host::{backend_key, make_host},
    service::make_backend,
};

/// A backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackendDecl {
    /// `10.0.1.11:5432`, `[fd00::11]:5432`, or without port: then it is the one that the client used, or to which the
    /// service's port leads. `db.example.com:5432`, with a port: each address that the name has in the DNS is a backend.
    /// Not in the state file, where it is the key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Its share compared with the others', 0 to 65535; with 0 it gets nothing new, and what is open stays; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Most active connections; default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// One of this node's, for frontends with `scope = "local"`. What has an address of the node's own is anyway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// It gets new connections only while no other backend of its IP version takes any: the others are unhealthy, drained or of weight 0.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
}

impl BackendDecl {
    /// As a service has it.
    ///
    /// # Errors
    /// Something of it is out of range.
    pub fn member(&self, service: &str, origin: Origin) -> Result<Member, ModelError> {
        let Self { address, weight, max_connections, local, backup } = self;
        let (local, backup) = (*local, *backup);
        if let Some(host) = make_host(service, address, *weight, *max_connections, origin)? {
            return Ok(Member::Host(HostSpec { local, backup, ..host }));
        }
        let spec = make_backend(service, address, *weight, *max_connections, local, origin)?;
        Ok(Member::Address(BackendSpec { backup, ..spec }))
    }

    /// What it is called, in its one form.
    ///
    /// # Errors
    /// It can't be read.
    pub fn key(&self, service: &str) -> Result<String, ModelError> {
        backend_key(service, &self.address)
    }

    /// Of a backend with this address, in its one form.
    pub fn named(&self, address: &str) -> Self {
        Self { address: address.into(), ..self.clone() }
    }
}

impl From<&BackendSpec> for BackendDecl {
    fn from(spec: &BackendSpec) -> Self {
        Self {
            address: spec.name(),
            weight: Some(spec.weight.into()),
            max_connections: spec.max_connections.map(Into::into),
            local: spec.local,
            backup: spec.backup,
        }
    }
}
