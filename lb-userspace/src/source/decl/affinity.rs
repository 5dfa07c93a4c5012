//! How clients are bound to backends, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    number,
    time::{Time, optional},
};
use crate::model::{AffinitySpec, ModelError, service::check_name};

/// How clients are bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AffinityDecl {
    /// By the client's address; `false`: not at all.
    pub client_ip: bool,
    /// How long a client is remembered after its last connection; default `3h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// Services that share their clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `service` (the default) or `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Bits of an IPv6 address that make a client; default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<i64>,
    /// Open flows of a client beyond which further ones are balanced like any other's; default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<i64>,
}

impl Default for AffinityDecl {
    fn default() -> Self {
        Self { client_ip: true, timeout: None, group: None, by: None, ipv6_prefix: None, bound: None }
    }
}

impl AffinityDecl {
    /// As a service has it; `None`: it has none.
    ///
    /// # Errors
    /// Something of it is out of range.
    pub fn spec(&self) -> Result<Option<AffinitySpec>, ModelError> {
        if !self.client_ip {
            return Ok(None);
        }
        let prefix = number("affinity.ipv6_prefix", self.ipv6_prefix, 1..=128, "1 to 128")?.unwrap_or(128);
        let bound = number("affinity.bound", self.bound, 1..=1_000_000, "1 to 1000000, or leave it out")?;
        if let Some(group) = &self.group {
            let known = "1 to 253 of a-z A-Z 0-9 . _ - with / or : between parts";
            let text = group.clone();
            check_name(group).map_err(|_| ModelError::NotKnown { what: "affinity.group", text, known })?;
        }
        let by_port = match self.by.as_deref() {
            None | Some("service") => false,
            Some("port") => true,
            Some(other) => {
                let known = "service or port";
                return Err(ModelError::NotKnown { what: "affinity.by", text: other.into(), known });
            }
        };
        if let (Some(by), Some(group)) = (&self.by, &self.group) {
            return Err(ModelError::ByAndGroup { by: by.clone(), group: group.clone() });
        }
        Ok(Some(AffinitySpec {
            timeout: optional(&self.timeout, "affinity.timeout")?.unwrap_or(AffinitySpec::TIMEOUT),
            group: self.group.clone(),
            by_port,
            ipv6_prefix: prefix,
            bound,
        }))
    }
}

/// As declared, with all that it has.
impl From<&AffinitySpec> for AffinityDecl {
    fn from(spec: &AffinitySpec) -> Self {
        let AffinitySpec { timeout, group, by_port, ipv6_prefix, bound } = spec;
        Self {
            client_ip: true,
            timeout: Some((*timeout).into()),
            group: group.clone(),
            by: by_port.then(|| "port".into()),
            ipv6_prefix: Some((*ipv6_prefix).into()),
            bound: bound.map(Into::into),
        }
    }
}
