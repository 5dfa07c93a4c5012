//! `[cluster]`: whom counts are shared with.

use std::{net::SocketAddr, path::PathBuf};

use lb_mesh::{Identity, Nats, NatsServer, Tcp, Transport};
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
    /// How nodes reach each other: tcp, or nats://HOST:4222, or tls://HOST:4222 for NATS with TLS; USER:PASSWORD@ or
    /// TOKEN@ may be before the host, and commas between several servers.
    #[serde(default = "tcp")]
    transport: String,
    /// Where other nodes connect to, ADDRESS:PORT; default: [::]:7473. With tcp only.
    listen: Option<String>,
    /// All nodes, HOST:PORT each; a name may have many addresses. The own may be among them. With tcp only.
    peers: Option<Vec<String>>,
    /// A file of credentials for NATS, as nsc makes them.
    credentials: Option<PathBuf>,
    /// Certificates of the authorities whose certificates nodes may have, PEM. With NATS the server's; left out: the
    /// system's.
    ca: Option<PathBuf>,
    /// This node's certificate, PEM; `flowpin cluster keygen` makes some. With NATS: if the server wants one.
    certificate: Option<PathBuf>,
    /// Its private key, PEM.
    key: Option<PathBuf>,
    /// Names of up to 16 nodes that add up; left out: the first by name of those that are connected.
    #[serde(default)]
    aggregators: Vec<String>,
}

const TCP: &str = "tcp";

fn tcp() -> String {
    TCP.into()
}

impl RawCluster {
    /// # Errors
    /// A value can't be right, in words.
    pub(super) fn checked(mut self) -> Result<ClusterSpec, String> {
        let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let node = match self.node.take() {
            Some(node) => node,
            None => host()
                .map(|name| name.to_ascii_lowercase())
                .ok_or("cluster.node: the host's name isn't known; name the node as its certificate does")?,
        };
        let (name, aggregators) = (self.name.clone(), std::mem::take(&mut self.aggregators));
        let transport =
            if self.transport == TCP { Transport::Tcp(self.tcp()?) } else { Transport::Nats(self.nats()?) };
        let spec = ClusterSpec { name, node, transport, aggregators };
        spec.settings().check().map_err(|error| format!("cluster: {error}"))?;
        Ok(spec)
    }

    fn tcp(self) -> Result<Tcp, String> {
        if self.credentials.is_some() {
            return Err(
                "cluster.credentials is for NATS; leave it out, or write transport = \"nats://HOST:4222\""
                    .into(),
            );
        }
        let listen = self.listen.unwrap_or_else(|| "[::]:7473".into());
        let listen: SocketAddr = listen
            .parse()
            .map_err(|_| format!("cluster.listen \"{listen}\" is not ADDRESS:PORT; write [::]:7473"))?;
        let peers =
            self.peers.ok_or("cluster.peers is missing; write all nodes, as [\"node-1:7473\", ...]")?;
        let file = |key, file: Option<PathBuf>| {
            file.ok_or_else(|| {
                format!("cluster.{key} is missing; `flowpin cluster keygen` makes certificates and keys")
            })
        };
        let identity = Identity {
            ca: file("ca", self.ca)?,
            certificate: file("certificate", self.certificate)?,
            key: file("key", self.key)?,
        };
        Ok(Tcp { listen, peers, identity })
    }

    fn nats(self) -> Result<Nats, String> {
        // No error says what was written: there may be a password in it.
        let servers = NatsServer::list(&self.transport)
            .map_err(|error| format!("cluster.transport: {error}, or {TCP}"))?;
        for (key, given) in [("listen", self.listen.is_some()), ("peers", self.peers.is_some())] {
            if given {
                return Err(format!(
                    "cluster.{key} is for TCP: with NATS nodes find each other through the server; leave it out"
                ));
            }
        }
        let certificate = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err("cluster.key is missing; it belongs to cluster.certificate".into()),
            (None, Some(_)) => {
                return Err("cluster.certificate is missing; cluster.key belongs to one".into());
            }
        };
        Ok(Nats { servers, credentials: self.credentials, ca: self.ca, certificate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::config::parse;

    fn cluster(lines: &str) -> Result<ClusterSpec, String> {
        let text = format!("[cluster]\nname = \"prod\"\nnode = \"node-1\"\n{lines}");
        let config = parse(&text, "f.toml").map_err(|error| error.to_string())?;
        Ok(config.cluster.expect("it is there").as_ref().clone())
    }

    const FILES: &str = "ca = \"ca.pem\"\ncertificate = \"n.pem\"\nkey = \"n.key\"\n";
    const NATS: &str = "transport = \"nats://node-1:s3cret@nats.example\"\n";

    #[test]
    fn tcp_wants_peers_and_certificates() {
        let spec = cluster(&format!("peers = [\"node-2:7473\"]\n{FILES}")).unwrap();
        let Transport::Tcp(tcp) = spec.transport else { panic!("{spec:?}") };
        assert_eq!((tcp.listen, tcp.peers.len()), ("[::]:7473".parse().unwrap(), 1));
        assert!(cluster(&format!("transport = \"tcp\"\npeers = []\n{FILES}")).is_ok());
        for (lines, said) in [
            (FILES.to_owned(), "cluster.peers is missing; write all nodes"),
            ("peers = []".into(), "cluster.ca is missing; `flowpin cluster keygen`"),
            ("peers = []\nca = \"ca.pem\"".into(), "cluster.certificate is missing"),
            ("peers = []\nca = \"ca.pem\"\ncertificate = \"n.pem\"".into(), "cluster.key is missing"),
            (
                format!("peers = []\nlisten = \"7473\"\n{FILES}"),
                "cluster.listen \"7473\" is not ADDRESS:PORT",
            ),
            (format!("peers = []\ncredentials = \"a\"\n{FILES}"), "cluster.credentials is for NATS"),
            (format!("peers = [\"node-2\"]\n{FILES}"), "peer \"node-2\": write HOST:PORT"),
        ] {
            let error = cluster(&lines).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn nats_wants_a_server_and_no_password_is_shown() {
        let spec = cluster(NATS).unwrap();
        let Transport::Nats(nats) = &spec.transport else { panic!("{spec:?}") };
        assert_eq!(nats.servers[0].to_string(), "nats://node-1:***@nats.example:4222");
        assert!(!format!("{spec:?}").contains("s3cret"));
        let other = cluster(&NATS.replace("s3cret", "other")).unwrap();
        assert_ne!(spec, other, "a file with another password is another one");
        let full = format!("transport = \"tls://h,tls://i\"\ncredentials = \"n.creds\"\n{FILES}");
        assert!(cluster(&full).is_ok());
        for (lines, said) in [
            (format!("{NATS}peers = []"), "cluster.peers is for TCP: with NATS nodes find each other"),
            (format!("{NATS}listen = \"[::]:7473\""), "cluster.listen is for TCP"),
            (format!("{NATS}certificate = \"n.pem\""), "cluster.key is missing"),
            (format!("{NATS}key = \"n.key\""), "cluster.certificate is missing"),
            (format!("{NATS}credentials = \"n.creds\""), "keep one of them"),
            ("transport = \"udp\"".into(), "cluster.transport: \"udp\" is no NATS server"),
            ("transport = \"udp\"".into(), "write nats://HOST:4222 or tls://HOST:4222, or tcp"),
            ("transport = \"nats:node-1:s3cret@h\"".into(), "\"***@h\" is no NATS server"),
            ("transport = [\"nats://node-1:s3cret@h\"]".into(), "line 4: invalid type"),
        ] {
            let error = cluster(&lines).unwrap_err();
            assert!(error.contains(said) && !error.contains("s3cret"), "{said}: {error}");
        }
    }
}
