//! The config file: TOML, unknown keys refused, everything checked before anything is touched.

mod service;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_common::{abi::limits, expiry::Timeouts, flow_table::default_flows};
use serde::Deserialize;

use self::service::RawService;
use super::SourceError;
use crate::model::{Desired, ModelError, ServiceSpec, SnatSpec};

/// How to attach to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
    /// The same, compiled.
    pub matcher: globset::GlobMatcher,
    /// How.
    pub attach: Attach,
    /// Is what was translated sent on past the IP stack?
    pub fast: Fast,
    /// Where the way back is translated.
    pub reply: Reply,
    /// What is behind it, if it is said.
    pub role: Option<Role>,
}

impl InterfaceRule {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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

/// Whose processes' sockets are led to backends when they connect to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketSpec {
    /// Whose.
    pub scope: SocketScope,
    /// A directory of cgroup2: only processes below it. `None`: where it is mounted.
    pub cgroup: Option<PathBuf>,
}

/// A valid config file.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API listens.
    pub api_socket: PathBuf,
    /// Where metrics are served.
    pub metrics_listen: SocketAddr,
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
    /// Addresses that stand in for clients'.
    pub snat: SnatSpec,
    /// The node's own processes.
    pub sockets: SocketSpec,
    /// Which interfaces.
    pub interfaces: Vec<InterfaceRule>,
    /// What is declared.
    pub services: Vec<ServiceSpec>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    agent: RawAgent,
    conntrack: RawConntrack,
    snat: RawSnat,
    sockets: SocketSpec,
    interface: Vec<RawInterface>,
    service: Vec<RawService>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAgent {
    api_socket: PathBuf,
    metrics_listen: String,
    pin_dir: PathBuf,
    state_file: PathBuf,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            api_socket: "/run/flowpin/api.sock".into(),
            metrics_listen: "127.0.0.1:9479".into(),
            pin_dir: "/sys/fs/bpf/flowpin".into(),
            state_file: "/var/lib/flowpin/state.json".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConntrack {
    max_flows: Option<i64>,
    max_clients: i64,
}

impl Default for RawConntrack {
    fn default() -> Self {
        Self { max_flows: None, max_clients: limits::DEFAULT_MAX_CLIENTS.into() }
    }
}

/// Packets are worked on by all CPUs that are online, whatever this process may use of them.
fn cpus() -> u32 {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.and_then(|n| u32::try_from(n).ok()).unwrap_or(1)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSnat {
    addresses: Vec<String>,
    ports: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInterface {
    #[serde(rename = "match")]
    pattern: String,
    attach: Attach,
    #[serde(default)]
    fast: Fast,
    #[serde(default)]
    reply: Reply,
    role: Option<Role>,
}

/// A duration between a second and the longest that the flow table's stamps can measure.
///
/// # Errors
/// It isn't.
pub fn duration(what: &'static str, text: &str) -> Result<Duration, ModelError> {
    within(what, text, Duration::from_millis(Timeouts::MAX_MS), "from 1s to 20days")
}

/// A duration between a second and another; `range` says so.
fn within(
    what: &'static str,
    text: &str,
    longest: Duration,
    range: &'static str,
) -> Result<Duration, ModelError> {
    let bad = || ModelError::Duration { what, text: text.into(), range };
    let value = humantime::parse_duration(text).map_err(|_| bad())?;
    if value < Duration::from_secs(1) || value > longest {
        return Err(bad());
    }
    Ok(value)
}

/// Reads and checks a config file. `None`: every default, no interfaces, no services.
///
/// # Errors
/// It can't be read or is wrong anywhere; then nothing of it is used.
pub fn load(path: Option<&Path>) -> Result<Config, SourceError> {
    let Some(path) = path else { return parse("", "defaults") };
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| SourceError::Read { path: shown.clone(), error })?;
    parse(&text, &shown)
}

/// The same, from text; `path` is for messages.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &str) -> Result<Config, SourceError> {
    let value = |message: String| SourceError::Value { path: path.into(), message };
    let raw: Raw = toml::from_str(text).map_err(|e| {
        let line = e
            .span()
            .map_or(String::new(), |s| format!("line {}: ", text[..s.start].matches('\n').count() + 1));
        let message = e.message().replace('\n', " ");
        SourceError::Syntax { path: path.into(), message: format!("{line}{message}") }
    })?;
    let metrics_listen = raw.agent.metrics_listen.parse().map_err(|_| {
        value(format!(
            "metrics_listen \"{}\" is not ADDRESS:PORT; write 127.0.0.1:9479",
            raw.agent.metrics_listen
        ))
    })?;
    let capacity = |key, given: i64| {
        u32::try_from(given)
            .ok()
            .filter(|n| (1024..=16_777_216).contains(n))
            .ok_or_else(|| value(format!("conntrack.{key} {given} is out of range; use 1024 to 16777216")))
    };
    let given = raw.conntrack.max_flows.map(|flows| capacity("max_flows", flows)).transpose()?;
    let max_flows = given.unwrap_or_else(|| default_flows(cpus()));
    let max_clients = capacity("max_clients", raw.conntrack.max_clients)?;
    let mut interfaces: Vec<InterfaceRule> = Vec::new();
    for rule in raw.interface {
        let bad = |why: &str| value(format!("interface match \"{}\" {why}", rule.pattern));
        let glob = globset::Glob::new(&rule.pattern)
            .map_err(|e| bad(&format!("is not a name or glob: {}", e.kind())))?;
        if rule.pattern.is_empty() || rule.pattern.contains('/') {
            return Err(bad("is not an interface name or glob; write eth0 or veth*"));
        }
        if interfaces.iter().any(|i| i.pattern == rule.pattern) {
            return Err(bad("is declared twice; keep one"));
        }
        interfaces.push(InterfaceRule {
            pattern: rule.pattern,
            matcher: glob.compile_matcher(),
            attach: rule.attach,
            fast: rule.fast,
            reply: rule.reply,
            role: rule.role,
        });
    }
    let services = raw
        .service
        .into_iter()
        .map(RawService::into_spec)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| SourceError::Model { path: path.into(), error })?;
    let model = |error| SourceError::Model { path: path.into(), error };
    Desired::new(services.clone()).map_err(model)?;
    let snat = SnatSpec::parse(&raw.snat.addresses, raw.snat.ports.as_deref()).map_err(model)?;
    Ok(Config {
        api_socket: raw.agent.api_socket,
        metrics_listen,
        pin_dir: raw.agent.pin_dir,
        state_file: raw.agent.state_file,
        max_flows,
        flows_by_default: given.is_none(),
        max_clients,
        snat,
        sockets: raw.sockets,
        interfaces,
        services,
    })
}

#[cfg(test)]
mod tests;
