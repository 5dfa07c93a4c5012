//! `[cluster]`, valid.

use lb_mesh::{Settings, Transport};

use super::discover::PodService;

/// Whom counts are shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: String,
    /// This node's.
    pub node: String,
    /// How nodes reach each other. A password in it is never shown.
    pub transport: Transport,
    /// With TCP: whose endpoints are peers, besides those that are named.
    pub pods: Option<PodService>,
    /// Names of the nodes that own services; empty: it follows from who is connected.
    pub aggregators: Vec<String>,
}

impl ClusterSpec {
    /// As the mesh wants it.
    pub fn settings(&self) -> Settings {
        Settings {
            node: self.node.clone(),
            cluster: self.name.clone(),
            transport: self.transport.clone(),
            aggregators: self.aggregators.clone(),
        }
    }
}
