//! From text to a [`Config`]: services one by one, all else as a whole.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_common::{abi::limits, flow_table::default_flows, hash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Attach, Config, Fast, FileService, InterfaceRule, Matcher, Reply, Role, SocketScope, SocketSpec,
    cluster::RawCluster,
    kubernetes::RawKubernetes,
    log::RawLog,
    split::{Part, split},
};
use crate::{
    model::{ModelError, Origin, ServiceSpec, SnatSpec, readable::readable},
    source::{SourceError, decl::ServiceDecl},
};

/// A config file.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    /// Where the agent listens and keeps things.
    agent: RawAgent,
    /// Capacity of the tables.
    conntrack: RawConntrack,
    /// Addresses that stand in for clients'.
    snat: RawSnat,
    /// The node's own processes.
    sockets: SocketSpec,
    /// Whom counts are shared with; left out: each node counts by itself.
    cluster: Option<RawCluster>,
    /// The cluster that is followed; left out: none.
    kubernetes: Option<RawKubernetes>,
    /// What is logged besides the agent's own log.
    log: RawLog,
    /// Where programs are attached.
    interface: Vec<RawInterface>,
    /// Services.
    #[schemars(with = "Vec<ServiceDecl>")]
    service: Vec<toml::Table>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawAgent {
    /// The API's Unix socket.
    api_socket: PathBuf,
    /// ADDRESS:PORT of the metrics page and the probes.
    metrics_listen: String,
    /// Is there a page for browsers at /ui of `metrics_listen`?
    ui: bool,
    /// May health checks of type `exec` run programs, as the agent's user? Default: no.
    exec_checks: bool,
    /// On bpffs: maps and links stay here when the agent goes.
    pin_dir: PathBuf,
    /// What the command line added.
    state_file: PathBuf,
    /// Key of consistent hashing, 16 hexadecimal digits, the same on all nodes; without one it is known to everybody.
    hash_seed: Option<String>,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            api_socket: "/run/flowpin/api.sock".into(),
            metrics_listen: "127.0.0.1:9479".into(),
            ui: true,
            exec_checks: false,
            pin_dir: "/sys/fs/bpf/flowpin".into(),
            state_file: "/var/lib/flowpin/state.json".into(),
            hash_seed: None,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawConntrack {
    /// Flows, for each IP version, 1024 to 16777216; default: 32768 for each CPU, 131072 to 1048576.
    max_flows: Option<i64>,
    /// Clients with affinity, 1024 to 16777216.
    max_clients: i64,
}

impl Default for RawConntrack {
    fn default() -> Self {
        Self { max_flows: None, max_clients: limits::DEFAULT_MAX_CLIENTS.into() }
    }
}

/// Packets are worked on by all CPUs that are online, whatever this process may use of them.
pub(super) fn cpus() -> u32 {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.and_then(|n| u32::try_from(n).ok()).unwrap_or(1)
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawSnat {
    /// The node's; none of an IP version: the default route's source address, else an attached interface's first.
    addresses: Vec<String>,
    /// Like `1024-29999`.
    ports: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawInterface {
    /// A name or a glob; followed as interfaces come and go.
    #[serde(rename = "match")]
    pattern: String,
    /// How.
    attach: Attach,
    /// Does what was translated skip the IP stack?
    #[serde(default)]
    fast: Fast,
    /// Where answers of backends are translated.
    #[serde(default)]
    reply: Reply,
    /// What is behind it; default: by TC pods, by XDP the rest of the network.
    role: Option<Role>,
}

/// How far a service that is written as it was is looked for, in services.
const AHEAD: usize = 256;

/// Reads a config file. `None`: every default, no interfaces, no services. What is wrong with one service is in [`Config::services`].
///
/// # Errors
/// It can't be read or is wrong elsewhere; then nothing of it is used.
pub fn load(path: Option<&Path>) -> Result<Config, SourceError> {
    let Some(path) = path else { return parse("", "defaults") };
    parse(&text(path)?, &path.display().to_string())
}

/// The text of a file.
///
/// # Errors
/// It can't be read.
pub fn text(path: &Path) -> Result<String, SourceError> {
    let failed = |error| SourceError::Read { path: path.display().to_string(), error };
    std::fs::read_to_string(path).map_err(failed)
}

/// The same as [`load`], from text; `path` is for messages.
///
/// # Errors
/// As there.
pub fn parse(text: &str, path: &str) -> Result<Config, SourceError> {
    whole(read(text, path, &[])?)
}

/// A config of which everything can be read.
fn whole(mut config: Config) -> Result<Config, SourceError> {
    match config.broken.take().map(Arc::try_unwrap) {
        None => Ok(config),
        Some(Ok(error)) => Err(error),
        Some(Err(shared)) => Err(SourceError::Value { path: String::new(), message: shared.to_string() }),
    }
}

/// What a file that can't be read otherwise says of a key.
pub fn guess(text: &str, key: &str) -> Option<String> {
    let value = |line: &str| {
        let (found, value) = line.split_once('=')?;
        let value = value.trim().strip_prefix(['"', '\''])?;
        let end = value.find(['"', '\''])?;
        (found.trim() == key).then(|| value[..end].to_string())
    };
    text.lines().find_map(value)
}

/// Reads what can be read. `before`: services as they were read last; what is written as it was then isn't looked at again.
///
/// # Errors
/// Something is wrong that isn't about one service.
pub fn read(text: &str, path: &str, before: &[FileService]) -> Result<Config, SourceError> {
    let value = |message: String| SourceError::Value { path: path.into(), message };
    let (head, parts) = split(text);
    let raw: Raw = toml::from_str(&head).map_err(|e| syntax(&head, path, 0, &e))?;
    let listen: Option<SocketAddr> = raw.agent.metrics_listen.parse().ok();
    // At port 0 nobody would find it.
    let metrics_listen = listen.filter(|listen| listen.port() != 0).ok_or_else(|| {
        value(format!(
            "metrics_listen \"{}\" is not ADDRESS:PORT with a port from 1 to 65535; write 127.0.0.1:9479",
            raw.agent.metrics_listen
        ))
    })?;
    let hash_seed = raw.agent.hash_seed.as_deref().map_or(Ok(hash::DEFAULT_SEED), |text| {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or_else(|| {
            value(format!(
                "agent.hash_seed \"{text}\" is not 16 hexadecimal digits; write what `openssl rand -hex 8` prints, the same \
                 on all nodes"
            ))
        })
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
    let mut interfaces = rules(raw.interface, path)?;
    if raw.kubernetes.is_some() && interfaces.is_empty() {
        interfaces = vec![InterfaceRule::found(Role::Uplink), InterfaceRule::found(Role::Pod)];
    }
    let model = |error| SourceError::Model { path: path.into(), error };
    let snat = SnatSpec::parse(&raw.snat.addresses, raw.snat.ports.as_deref()).map_err(model)?;
    let cluster = raw.cluster.map(RawCluster::checked).transpose().map_err(value)?.map(Arc::new);
    let kubernetes = raw.kubernetes.map(RawKubernetes::checked).transpose().map_err(value)?.map(Arc::new);
    let log = raw.log.checked(cluster.as_deref(), kubernetes.as_deref()).map_err(value)?.map(Arc::new);
    if raw.sockets.scope == SocketScope::Off
        && kubernetes.as_ref().is_some_and(|spec| spec.options.node_ports.names_loopback())
    {
        return Err(value(
            "kubernetes.node_port_addresses: processes of the node are led from localhost at their sockets; write \
             scope = \"host\" in [sockets], or leave localhost out"
                .into(),
        ));
    }
    let exec = raw.agent.exec_checks;
    let mut broken = None;
    let inline: Vec<String> = raw.service.into_iter().map(written).collect();
    let inline = inline.iter().map(|text| Part { line: 0, text });
    let mut services = Vec::with_capacity(parts.len());
    let mut known = before.iter();
    for part in inline.chain(parts) {
        // Most are where they were, but for a few that came or went: the search goes on from the last one found, and not far.
        let at = known.clone().take(AHEAD).position(|old| *old.text == *part.text);
        match at.and_then(|at| known.nth(at)).filter(|old| judged_alike(old, exec)) {
            Some(old) => services.push(FileService { line: part.line, ..old.clone() }),
            None => services.push(service(part, path, exec, &mut broken)),
        }
    }
    Ok(Config {
        api_socket: raw.agent.api_socket,
        metrics_listen,
        ui: raw.agent.ui,
        exec_checks: exec,
        pin_dir: raw.agent.pin_dir,
        state_file: raw.agent.state_file,
        max_flows,
        flows_by_default: given.is_none(),
        max_clients,
        hash_seed,
        snat,
        sockets: raw.sockets,
        cluster,
        kubernetes,
        log,
        interfaces,
        services: Arc::new(services),
        head: head.into(),
        broken: broken.map(Arc::new),
    })
}

/// What TOML says no with. `lines`: of the file before this text.
fn syntax(text: &str, path: &str, lines: usize, error: &toml::de::Error) -> SourceError {
    let line = |start: usize| lines + text[..start].matches('\n').count() + 1;
    let place = error.span().map_or(String::new(), |span| format!("line {}: ", line(span.start)));
    let message = error.message().replace('\n', " ");
    SourceError::Syntax { path: path.into(), message: format!("{place}{message}") }
}

fn rules(raw: Vec<RawInterface>, path: &str) -> Result<Vec<InterfaceRule>, SourceError> {
    let mut interfaces: Vec<InterfaceRule> = Vec::new();
    for rule in raw {
        let bad = |why: &str| SourceError::Value {
            path: path.into(),
            message: format!("interface match \"{}\" {why}", rule.pattern),
        };
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
            matcher: Matcher::Named(glob.compile_matcher()),
            attach: rule.attach,
            fast: rule.fast,
            reply: rule.reply,
            role: rule.role,
        });
    }
    Ok(interfaces)
}

/// A part of the file that is one service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    service: [ServiceDecl; 1],
}

/// A service that is written in a line, as a part of a file.
fn written(table: toml::Table) -> String {
    #[derive(Serialize)]
    struct Written {
        service: [toml::Table; 1],
    }
    toml::to_string(&Written { service: [table] }).unwrap_or_default()
}

/// Would it be judged as it was before, if programs may be run or may not (`exec`)?
fn judged_alike(old: &FileService, exec: bool) -> bool {
    match &old.spec {
        Ok(spec) => exec || !spec.runs_programs(),
        Err(why) => !exec || *why != ModelError::ExecOff.to_string(),
    }
}

/// `exec`: may checks run programs?
fn service(part: Part<'_>, path: &str, exec: bool, broken: &mut Option<SourceError>) -> FileService {
    let Part { line, text } = part;
    let unnamed = || match line {
        0 => "without a name".to_string(),
        line => format!("at line {line}"),
    };
    let (name, spec) = match toml::from_str::<One>(text) {
        Ok(One { service: [decl] }) if decl.name.is_empty() => {
            (unnamed(), Err("it has no name; give it one, like name = \"app\"".to_string()))
        }
        Ok(One { service: [decl] }) => {
            let spec = valid(&decl, exec).map(Arc::new).map_err(|e| e.to_string());
            (decl.name, spec)
        }
        Err(error) => {
            // Before the first table below it.
            let own = text.find("\n[").map_or(text, |end| &text[..end]);
            let refused = syntax(text, path, line.saturating_sub(1), &error);
            let message = match &refused {
                SourceError::Syntax { message, .. } => readable(message),
                other => other.to_string(),
            };
            // What isn't TOML may be of more than this service.
            if toml::from_str::<toml::Table>(text).is_err() {
                broken.get_or_insert(refused);
            }
            (guess(own, "name").unwrap_or_else(unnamed), Err(message))
        }
    };
    FileService { name, text: text.into(), line, spec }
}

/// A service of the file, valid by itself.
fn valid(decl: &ServiceDecl, exec: bool) -> Result<ServiceSpec, ModelError> {
    let spec = decl.spec(&decl.name, Origin::File)?;
    spec.validate()?;
    if spec.runs_programs() && !exec {
        return Err(ModelError::ExecOff);
    }
    Ok(spec)
}
