//! What a mesh is told by configuration.

use std::{net::SocketAddr, path::PathBuf};

use lb_cluster::MAX_AGGREGATORS;

use crate::{MeshError, NatsServer, names};

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name: a DNS name in lower case, 1 to 253 bytes; the one in its certificate.
    pub node: String,
    /// The cluster's name: the same on all nodes, and in all certificates. As long as a DNS name allows, with
    /// [`CLUSTER_SUFFIX`](crate::CLUSTER_SUFFIX) behind it.
    pub cluster: String,
    /// How frames get to other nodes.
    pub transport: Transport,
    /// Names of the nodes that own services, [`MAX_AGGREGATORS`] at most, the same on all nodes; 3 are enough. Empty:
    /// of the nodes that are connected the first by name, see the crate's documentation.
    pub aggregators: Vec<String>,
}

/// How frames get to other nodes, the same on all nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// From node to node, see [the crate](crate#connections).
    Tcp(Tcp),
    /// Through a NATS server, see [the crate](crate#nats).
    Nats(Nats),
}

/// TCP with TLS at both ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// Where other nodes connect to. Port 0: any free one, see [`Mesh::address`](crate::Mesh::address).
    pub listen: SocketAddr,
    /// All nodes, `HOST:PORT` each; an IPv6 address is in brackets. Names are resolved every 30 seconds, and all
    /// addresses of a name are peers: one name for all nodes will do. The node's own may be among them.
    pub peers: Vec<String>,
    /// Who the node is.
    pub identity: Identity,
}

/// Servers of NATS, and how the node presents itself to them. Files are read again for each connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nats {
    /// They are tried in turn, and the node is connected to one of them.
    pub servers: Vec<NatsServer>,
    /// What the server knows the node by, as `nsc` writes it: a JWT and the seed of its key. `None`: the server's
    /// address has a user and a password, or the certificate says who it is, or nobody asks.
    pub credentials: Option<PathBuf>,
    /// Certificates of the authorities that the server's certificate may be from, PEM. `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The node's certificate and its private key, PEM, for servers that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Files that say who the node is, PEM each. They are read again when they have changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Certificates of the authorities that other nodes' certificates may be from.
    pub ca: PathBuf,
    /// The node's certificate, and those between it and the authority's, if there are any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Settings {
    /// Could it be right? Files aren't looked at.
    ///
    /// # Errors
    /// Something can't be: what, and what to do.
    pub fn check(&self) -> Result<(), MeshError> {
        names::check_node(&self.node)?;
        names::check_cluster(&self.cluster)?;
        match &self.transport {
            Transport::Tcp(tcp) => check_peers(&tcp.peers)?,
            Transport::Nats(nats) => nats.check()?,
        }
        for aggregator in &self.aggregators {
            names::check_node(aggregator)?;
        }
        if self.aggregators.len() > MAX_AGGREGATORS {
            return Err(MeshError::Aggregators(self.aggregators.len()));
        }
        Ok(())
    }
}

impl Nats {
    fn check(&self) -> Result<(), MeshError> {
        if self.servers.is_empty() {
            return Err(MeshError::NoServer);
        }
        match self.servers.iter().find(|server| self.credentials.is_some() && server.has_login()) {
            Some(server) => Err(MeshError::TwoLogins(server.to_string())),
            None => Ok(()),
        }
    }
}

/// # Errors
/// One of them has no host or no port.
pub(crate) fn check_peers(peers: &[String]) -> Result<(), MeshError> {
    let is_peer = |peer: &&String| {
        let (host, port) = peer.rsplit_once(':').unwrap_or_default();
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    match peers.iter().find(|peer| !is_peer(peer)) {
        Some(peer) => Err(MeshError::Peer(peer.clone())),
        None => Ok(()),
    }
}
