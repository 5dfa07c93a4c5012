//! `[log]`: lines for others than the agent's own log.

use schemars::JsonSchema;
use serde::Deserialize;

use super::KubernetesSpec;
use crate::{
    cluster::ClusterSpec,
    connection_log::{LogSpec, Target},
};

/// What is logged besides the agent's own log.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// Where a line goes for each connection that has ended: the path of a file, journald, or otlp:http://HOST:4318, a
    /// collector of OpenTelemetry. Left out: nowhere.
    connections: Option<String>,
}

impl RawLog {
    /// The same, checked. The node's name in the lines is that of the cluster, else of Kubernetes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn checked(
        self,
        cluster: Option<&ClusterSpec>,
        kubernetes: Option<&KubernetesSpec>,
    ) -> Result<Option<LogSpec>, String> {
        let connections = self.connections.as_deref().map(Target::parse).transpose()?;
        let node = || cluster.map(|spec| spec.node.clone()).or_else(|| kubernetes?.node().ok());
        Ok(connections.map(|connections| LogSpec { connections, node: node() }))
    }
}
