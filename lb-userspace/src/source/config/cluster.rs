//! `[cluster]`: whom counts are shared with.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::ClusterSpec;

/// Share counts with other nodes, so that all of them together go by the least connections.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCluster {
    /// The cluster's name, the same on all nodes and in all certificates.
    name: String,
    /// This node's name, the one in its certificate; left out: the host's.
    node: Option<String>,
    /// Where other nodes connect to, ADDRESS:PORT.
    #[serde(default = "listen")]
    listen: String,
    /// All nodes, HOST:PORT each; a name may have many addresses. The own may be among them.
    peers: Vec<String>,
    /// Certificates of the authorities whose certificates nodes may have, PEM.
    ca: PathBuf,
    /// This node's certificate, PEM; `flowpin cluster keygen` makes some.
    certificate: PathBuf,
    /// Its private key, PEM.
    key: PathBuf,
    /// Names of up to 16 nodes that add up; left out: the first by name of those that are connected.
    #[serde(default)]
    aggregators: Vec<String>,
}

fn listen() -> String {
    "[::]:7473".into()
}

impl RawCluster {
    /// # Errors
    /// A value can't be right, in words.
    pub(super) fn checked(self) -> Result<ClusterSpec, String> {
        let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let node = match self.node {
            Some(node) => node,
            None => host()
                .map(|name| name.to_ascii_lowercase())
                .ok_or("cluster.node: the host's name isn't known; name the node as its certificate does")?,
        };
        let listen: SocketAddr = self.listen.parse().map_err(|_| {
            format!("cluster.listen \"{}\" is not ADDRESS:PORT; write [::]:7473", self.listen)
        })?;
        let spec = ClusterSpec {
            name: self.name,
            node,
            listen,
            peers: self.peers,
            ca: self.ca,
            certificate: self.certificate,
            key: self.key,
            aggregators: self.aggregators,
        };
        spec.settings().check().map_err(|error| format!("cluster: {error}"))?;
        Ok(spec)
    }
}
