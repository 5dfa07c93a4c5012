//! `[cluster]`: whom counts are shared with.

use std::{net::SocketAddr, path::PathBuf};

use lb_mesh::{Identity, Nats, NatsServer, Tcp, Transport};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::{ClusterSpec, discover::PodService};

/// Share counts with other nodes, so that all of them together go by the least connections.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCluster {
    /// The cluster's name, the same on all nodes and in all certificates.
    name: String,
    /// This node's name, the one in its certificate; left out: NODE_NAME in the environment, else the host's.
    node: Option<String>,
    /// How nodes reach each other: tcp, or nats://HOST:4222, or tls://HOST:4222 for NATS with TLS; USER:PASSWORD@ or
    /// TOKEN@ may be before the host, and commas between several servers.
    #[serde(default = "tcp")]
    transport: String,
    /// Where other nodes connect to, ADDRESS:PORT; default: [::]:7473. With tcp only.
    listen: Option<String>,
    /// All nodes, HOST:PORT each; a name may have many addresses. The own may be among them.
    /// kubernetes:NAMESPACE/SERVICE: all endpoints of a Service of Kubernetes. With tcp only.
    peers: Option<Vec<String>>,
    /// A file of credentials for NATS, as nsc makes them. In this path and those of certificate and key {node} is the
    /// node's name.
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

/// This node's name: what the file says, else what a pod was told of its Node, else the host's.
fn node_name(
    said: Option<String>,
    told: Option<String>,
    host: impl Fn() -> Option<String>,
) -> Result<String, String> {
    let told = told.filter(|name| !name.is_empty());
    said.or(told).or_else(|| host().map(|name| name.to_ascii_lowercase())).ok_or_else(|| {
        "cluster.node: the host's name isn't known; name the node as its certificate does".into()
    })
}

impl RawCluster {
    /// # Errors
    /// A value can't be right, in words.
    pub(super) fn checked(mut self) -> Result<ClusterSpec, String> {
        let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let node = node_name(self.node.take(), std::env::var("NODE_NAME").ok(), host)?;
        for path in [&mut self.credentials, &mut self.certificate, &mut self.key].into_iter().flatten() {
            *path = path.to_string_lossy().replace("{node}", &node).into();
        }
        let (name, aggregators) = (self.name.clone(), std::mem::take(&mut self.aggregators));
        let (transport, pods) = if self.transport == TCP {
            let (tcp, pods) = self.tcp()?;
            (Transport::Tcp(tcp), pods)
        } else {
            (Transport::Nats(self.nats()?), None)
        };
        let spec = ClusterSpec { name, node, transport, pods, aggregators };
        spec.settings().check().map_err(|error| format!("cluster: {error}"))?;
        Ok(spec)
    }

    fn tcp(self) -> Result<(Tcp, Option<PodService>), String> {
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
        let (services, peers): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| PodService::is(peer));
        let pods = match services.as_slice() {
            [] => None,
            [service] => {
                Some(PodService::parse(service, listen.port()).map_err(|e| format!("cluster.peers: {e}"))?)
            }
            [first, second, ..] => {
                return Err(format!(
                    "cluster.peers has two Services, \"{first}\" and \"{second}\"; all nodes are behind one, keep it"
                ));
            }
        };
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
        Ok((Tcp { listen, peers, identity }, pods))
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
            (
                format!("peers = [\"kubernetes:flowpin\"]\n{FILES}"),
                "cluster.peers: \"kubernetes:flowpin\" is no Service; write kubernetes:NAMESPACE/SERVICE",
            ),
            (
                format!("peers = [\"kubernetes:a/b\", \"n:1\", \"kubernetes:a/c\"]\n{FILES}"),
                "has two Services, \"kubernetes:a/b\" and \"kubernetes:a/c\"",
            ),
            (
                format!("peers = [\"kubernetes:a/b\"]\nlisten = \"[::]:0\"\n{FILES}"),
                "needs a port in cluster.listen",
            ),
        ] {
            let error = cluster(&lines).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn a_service_of_kubernetes_is_no_name_of_a_peer() {
        let lines =
            format!("peers = [\"kubernetes:flowpin/peers\", \"n:1\"]\nlisten = \"[::]:7000\"\n{FILES}");
        let spec = cluster(&lines).unwrap();
        assert_eq!(spec.pods, PodService::parse("kubernetes:flowpin/peers", 7000).ok());
        let Transport::Tcp(tcp) = spec.transport else { panic!("{spec:?}") };
        assert_eq!(tcp.peers, ["n:1"]);
        let spec = cluster(&format!("peers = [\"kubernetes:7473\"]\n{FILES}")).unwrap();
        assert_eq!(spec.pods, None, "a host may be called that");
        let spec = cluster(NATS).unwrap();
        assert_eq!(spec.pods, None);
    }

    #[test]
    fn paths_may_have_the_nodes_name_in_them() {
        let files = "ca = \"/t/ca.pem\"\ncertificate = \"/t/{node}/{node}.pem\"\nkey = \"/t/{node}.key\"\n";
        let Transport::Tcp(tcp) = cluster(&format!("peers = []\n{files}")).unwrap().transport else {
            panic!("TCP is the default")
        };
        assert_eq!(tcp.identity.certificate, PathBuf::from("/t/node-1/node-1.pem"));
        assert_eq!(tcp.identity.key, PathBuf::from("/t/node-1.key"));
        let nats = format!("transport = \"nats://h\"\ncredentials = \"{{node}}.creds\"\n{files}");
        let Transport::Nats(nats) = cluster(&nats).unwrap().transport else { panic!("it is said") };
        assert_eq!(nats.credentials, Some("node-1.creds".into()));
        assert_eq!(nats.certificate, Some(("/t/node-1/node-1.pem".into(), "/t/node-1.key".into())));
    }

    #[test]
    fn who_the_node_is() {
        let (said, told) = (Some("said".to_owned()), Some("told".to_owned()));
        let host = || Some("Host.Example".to_owned());
        assert_eq!(node_name(said, told.clone(), host).unwrap(), "said");
        assert_eq!(node_name(None, told, host).unwrap(), "told");
        assert_eq!(node_name(None, Some(String::new()), host).unwrap(), "host.example");
        assert!(node_name(None, None, || None).unwrap_err().contains("name the node"));
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
