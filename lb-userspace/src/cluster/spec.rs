//! `[cluster]`, valid.

use std::{net::SocketAddr, path::PathBuf};

/// Whom counts are shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: String,
    /// This node's.
    pub node: String,
    /// Where other nodes connect to.
    pub listen: SocketAddr,
    /// All nodes, `HOST:PORT` each.
    pub peers: Vec<String>,
    /// Certificates of authorities.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Names of the nodes that own services; empty: it follows from who is connected.
    pub aggregators: Vec<String>,
}

impl ClusterSpec {
    /// As the mesh wants it.
    pub fn settings(&self) -> lb_mesh::Settings {
        let (ca, certificate, key) = (self.ca.clone(), self.certificate.clone(), self.key.clone());
        lb_mesh::Settings {
            node: self.node.clone(),
            cluster: self.name.clone(),
            transport: lb_mesh::Transport::Tcp(lb_mesh::Tcp {
                listen: self.listen,
                peers: self.peers.clone(),
                identity: lb_mesh::Identity { ca, certificate, key },
            }),
            aggregators: self.aggregators.clone(),
        }
    }
}
