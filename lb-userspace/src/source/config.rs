//! The config file: TOML, unknown keys refused, everything checked before anything is touched.

mod cluster;
mod exposed;
mod kubernetes;
mod log;
mod read;
mod schema;
mod split;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

pub use self::{
    exposed::exposed,
    kubernetes::KubernetesSpec,
    read::{guess, load, parse, read, text},
    schema::schema,
};
use super::SourceError;
use crate::{
    cluster::ClusterSpec,
    connection_log::LogSpec,
    model::{ServiceSpec, SnatSpec},
};

/// How to attach to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// XDP: native, or generic where the driver has none.
    Xdp,
    /// TC ingress: TCX, or clsact where the kernel has none.
    Tc,
}

impl Attach {
    /// As in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// `[[interface]]`
#[derive(Clone, Debug)]
pub struct InterfaceRule {
    /// The name or glob as written.
    pub pattern: String,
    /// Which interfaces it is for.
    pub matcher: Matcher,
    /// How.
    pub attach: Attach,
    /// Is what was translated sent on past the IP stack?
    pub fast: Fast,
    /// Where the way back is translated.
    pub reply: Reply,
    /// What is behind it, if it is said.
    pub role: Option<Role>,
}

/// Which interfaces a rule is for.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// Those with such names.
    Named(globset::GlobMatcher),
    /// Those that are found to be this, whatever their names.
    Found(Role),
}

impl Matcher {
    /// Is it for an interface of this name, which is found to be this?
    pub fn is_match(&self, name: &str, found: Option<Role>) -> bool {
        match self {
            Self::Named(glob) => glob.is_match(name),
            Self::Found(role) => found == Some(*role),
        }
    }

    /// Is it for those that are found to lead to the rest of the network?
    pub const fn wants_uplink(&self) -> bool {
        matches!(self, Self::Found(Role::Uplink))
    }
}

impl InterfaceRule {
    /// For interfaces that are found to be this: by TC, with every default.
    pub fn found(role: Role) -> Self {
        let pattern = match role {
            Role::Uplink => "(default routes)",
            Role::Pod => "(pods)",
        };
        let (fast, reply) = (Fast::default(), Reply::default());
        Self {
            pattern: pattern.into(),
            matcher: Matcher::Found(role),
            attach: Attach::Tc,
            fast,
            reply,
            role: Some(role),
        }
    }

    /// The one interface that it names, if it names one rather than a kind.
    pub fn literal(&self) -> Option<&str> {
        let named = matches!(self.matcher, Matcher::Named(_)) && !self.pattern.contains(['*', '?', '[', '{']);
        named.then_some(&self.pattern)
    }

    /// What is behind it: by TC pods, by XDP the rest of the network, unless it is said.
    pub const fn role(&self) -> Role {
        match (self.role, self.attach) {
            (Some(role), _) => role,
            (None, Attach::Tc) => Role::Pod,
            (None, Attach::Xdp) => Role::Uplink,
        }
    }

    /// Which variant of the programs packets meet that come in by it.
    pub const fn variant(&self) -> Variant {
        match (self.fast.is_on(), self.reply) {
            (true, _) => Variant::Fast,
            (false, Reply::Ingress) => Variant::Ingress,
            (false, Reply::Egress) => Variant::Egress,
        }
    }
}

/// Where answers of backends are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Where they leave towards the client: the stack, its firewall and connection tracking see client and backend in both directions.
    #[default]
    Egress,
    /// Where they come in from the backend.
    Ingress,
}

/// Which variant of the programs an interface gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The stack carries packets on; answers are translated where they leave.
    Egress,
    /// The stack carries packets on; answers are translated where they come in.
    Ingress,
    /// Packets are sent on past the stack.
    Fast,
    /// By TC beside XDP: for what XDP leaves to it.
    Besides,
}

/// What is behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pods, or other backends and clients of this node.
    Pod,
    /// The rest of the network.
    Uplink,
}

/// Whether and how what was translated skips parts of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fast {
    /// It doesn't.
    #[default]
    Off,
    /// It skips the IP stack.
    Stack,
    /// Likewise, and what goes out by this veth is handed to its other end at once, past this end's queues and programs.
    Peer,
}

impl Fast {
    /// Does it skip the IP stack?
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}

impl<'de> Deserialize<'de> for Fast {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Switch(bool),
            Word(String),
        }
        match Raw::deserialize(deserializer) {
            Ok(Raw::Switch(false)) => Ok(Self::Off),
            Ok(Raw::Switch(true)) => Ok(Self::Stack),
            Ok(Raw::Word(word)) if word == "peer" => Ok(Self::Peer),
            Ok(Raw::Word(word)) => Err(serde::de::Error::custom(format!(
                "fast = \"{word}\" is not known; use true, false or \"peer\""
            ))),
            Err(_) => Err(serde::de::Error::custom("fast is not known so; use true, false or \"peer\"")),
        }
    }
}

impl JsonSchema for Fast {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fast".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "Whether and how what was translated skips parts of the kernel.", "enum": [false, true, "peer"]})
    }
}

/// Whose processes' sockets are led to backends when they connect to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SocketScope {
    /// Nobody's.
    #[default]
    Off,
    /// Those in the agent's own network namespace: the node's.
    Host,
    /// Those of pods too.
    All,
}

impl SocketScope {
    /// As in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Host => "host",
            Self::All => "all",
        }
    }
}

/// `[sockets]`
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SocketSpec {
    /// Whose.
    pub scope: SocketScope,
    /// A directory of cgroup2: only processes below it. `None`: where it is mounted.
    pub cgroup: Option<PathBuf>,
}

/// A `[[service]]` of the file.
#[derive(Clone, Debug)]
pub struct FileService {
    /// Its name; if that can't be read, where it is.
    pub name: String,
    /// As written, its tables included.
    pub text: Arc<str>,
    /// Where it begins in the file, from 1.
    pub line: usize,
    /// What it says, or what is wrong with it by itself.
    pub spec: Result<Arc<ServiceSpec>, String>,
}

impl FileService {
    /// What a file must have said, as the maps tell.
    pub(super) fn unwritten(spec: ServiceSpec) -> Self {
        Self { name: spec.name.clone(), text: "".into(), line: 0, spec: Ok(Arc::new(spec)) }
    }
}

/// A config file. Whatever isn't about one service is valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API listens.
    pub api_socket: PathBuf,
    /// Where metrics are served.
    pub metrics_listen: SocketAddr,
    /// Is the stats page served there too?
    pub ui: bool,
    /// May health checks run programs?
    pub exec_checks: bool,
    /// Directory on bpffs for maps and links.
    pub pin_dir: PathBuf,
    /// What the command line added.
    pub state_file: PathBuf,
    /// Capacity of each flow table.
    pub max_flows: u32,
    /// Is that the default for this machine, since the file doesn't say?
    pub flows_by_default: bool,
    /// Capacity of the affinity table.
    pub max_clients: u32,
    /// Key of consistent hashing.
    pub hash_seed: u64,
    /// Addresses that stand in for clients'.
    pub snat: SnatSpec,
    /// The node's own processes.
    pub sockets: SocketSpec,
    /// Whom counts are shared with, if anybody.
    pub cluster: Option<Arc<ClusterSpec>>,
    /// The cluster that is followed, if any.
    pub kubernetes: Option<Arc<KubernetesSpec>>,
    /// Where lines of connections go, if anywhere.
    pub log: Option<Arc<LogSpec>>,
    /// Which interfaces.
    pub interfaces: Vec<InterfaceRule>,
    /// What is declared, in the file's order.
    pub services: Arc<Vec<FileService>>,
    /// The file but for its services, with their lines empty.
    pub head: Arc<str>,
    /// What can't be read of the file. Then it isn't used, unless there is nothing else.
    pub broken: Option<Arc<SourceError>>,
}

impl Config {
    /// The rule for an interface of this name, which is found to be this.
    pub fn rule(&self, name: &str, found: Option<Role>) -> Option<&InterfaceRule> {
        self.interfaces.iter().find(|rule| rule.matcher.is_match(name, found))
    }

    /// Adds a service that the file must have had.
    pub fn put(&mut self, spec: ServiceSpec) {
        Arc::make_mut(&mut self.services).push(FileService::unwritten(spec));
    }
}

#[cfg(test)]
mod tests;
