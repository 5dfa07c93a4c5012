//! The config file: TOML, unknown keys refused, everything checked before anything is touched.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use lb_common::{abi::limits, expiry::Timeouts};
use serde::Deserialize;

use super::SourceError;
use crate::model::{
    AlgorithmKind, Desired, Fate, Fates, HealthSpec, ModelError, Probe, ServiceSpec, service::make_backend,
};

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
    max_flows: i64,
}

impl Default for RawConntrack {
    fn default() -> Self {
        Self { max_flows: limits::DEFAULT_MAX_FLOWS as i64 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInterface {
    #[serde(rename = "match")]
    pattern: String,
    attach: Attach,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    name: String,
    vip: String,
    ports: Vec<String>,
    algorithm: Option<String>,
    affinity: Option<RawAffinity>,
    timeouts: Option<RawTimeouts>,
    health: Option<RawHealth>,
    slow_start: Option<String>,
    on_removal: Option<String>,
    on_unhealthy: Option<String>,
    on_deadline: Option<String>,
    #[serde(default)]
    backend: Vec<RawBackend>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBackend {
    address: String,
    weight: Option<i64>,
    max_connections: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAffinity {
    client_ip: bool,
    timeout: Option<String>,
    group: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimeouts {
    idle: Option<String>,
    client_request: Option<String>,
    backend_response: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    #[serde(rename = "type")]
    kind: String,
    interval: Option<String>,
    timeout: Option<String>,
    rise: Option<u32>,
    fall: Option<u32>,
    path: Option<String>,
    expect: Option<u16>,
}

/// A duration between a second and the longest that the flow table's stamps can measure.
///
/// # Errors
/// It isn't.
pub fn duration(what: &'static str, text: &str) -> Result<Duration, ModelError> {
    let bad = || ModelError::Duration { what, text: text.into(), range: "from 1s to 20days" };
    let value = humantime::parse_duration(text).map_err(|_| bad())?;
    if value < Duration::from_secs(1) || value > Duration::from_millis(Timeouts::MAX_MS) {
        return Err(bad());
    }
    Ok(value)
}

impl RawHealth {
    /// `None`: no checks.
    fn into_spec(self) -> Result<Option<HealthSpec>, ModelError> {
        let probe = match self.kind.as_str() {
            "tcp" => Probe::Tcp,
            "http" => Probe::Http {
                path: self.path.clone().unwrap_or_else(|| "/".into()),
                expect: self.expect.unwrap_or(200),
            },
            "none" => return Ok(None),
            _ => {
                let known = "tcp, http or none";
                return Err(ModelError::NotKnown { what: "health.type", text: self.kind, known });
            }
        };
        let (rise, fall) = (self.rise.unwrap_or(2), self.fall.unwrap_or(3));
        let http = matches!(probe, Probe::Http { .. });
        let bad_path =
            self.path.as_deref().is_some_and(|p| !p.starts_with('/') || p.contains(char::is_whitespace));
        let bad_status = self.expect.is_some_and(|status| !(100..600).contains(&status));
        if rise == 0
            || fall == 0
            || bad_path
            || bad_status
            || (!http && (self.path.is_some() || self.expect.is_some()))
        {
            return Err(ModelError::NotKnown {
                what: "health setting of type",
                text: self.kind,
                known: "rise and fall from 1; path (/...) and expect (100 to 599) with http only",
            });
        }
        let time = |what, text: Option<String>, default| text.map_or(Ok(default), |t| duration(what, &t));
        Ok(Some(HealthSpec {
            probe,
            interval: time("health.interval", self.interval, Duration::from_secs(2))?,
            timeout: time("health.timeout", self.timeout, Duration::from_secs(1))?,
            rise,
            fall,
        }))
    }
}

impl RawService {
    /// Checks what this version accepts and doesn't act on, and says so.
    fn not_in_force(&self) -> Result<Vec<String>, ModelError> {
        let mut warnings = Vec::new();
        let mut note =
            |key: &str| warnings.push(format!("{key} is accepted and not in force in this version"));
        if let Some(affinity) = &self.affinity {
            affinity.timeout.as_deref().map(|t| duration("affinity.timeout", t)).transpose()?;
            if affinity.client_ip || affinity.group.is_some() {
                note("affinity");
            }
        }
        if let Some(timeouts) = &self.timeouts {
            for (key, value) in [
                ("timeouts.client_request", &timeouts.client_request),
                ("timeouts.backend_response", &timeouts.backend_response),
            ] {
                if let Some(text) = value {
                    duration(key, text)?;
                    note(key);
                }
            }
        }
        Ok(warnings)
    }

    fn into_spec(self) -> Result<ServiceSpec, ModelError> {
        let warnings = self.not_in_force()?;
        let fate = |what, text: Option<&str>| text.map_or(Ok(Fate::Keep), |text| Fate::parse(what, text));
        let fates = Fates {
            removal: fate("on_removal", self.on_removal.as_deref())?,
            unhealthy: fate("on_unhealthy", self.on_unhealthy.as_deref())?,
            deadline: fate("on_deadline", self.on_deadline.as_deref())?,
        };
        let idle = self.timeouts.as_ref().and_then(|t| t.idle.as_deref());
        let mut spec = ServiceSpec {
            vip: self.vip.parse().map_err(|_| ModelError::NotAnAddress { text: self.vip.clone() })?,
            ports: self.ports.iter().map(|p| p.parse()).collect::<Result<_, _>>()?,
            algorithm: self
                .algorithm
                .as_deref()
                .map_or(Ok(AlgorithmKind::LeastConnections), AlgorithmKind::parse)?,
            idle_timeout: idle.map(|t| duration("timeouts.idle", t)).transpose()?,
            health: self.health.map(RawHealth::into_spec).transpose()?.flatten(),
            slow_start: self.slow_start.as_deref().map(|t| duration("slow_start", t)).transpose()?,
            fates,
            backends: BTreeMap::new(),
            from_file: true,
            warnings,
            name: self.name,
        };
        for b in self.backend {
            spec.add(make_backend(&spec.name, &b.address, b.weight, b.max_connections, true)?)?;
        }
        spec.validate()?;
        Ok(spec)
    }
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
    let max_flows = u32::try_from(raw.conntrack.max_flows)
        .ok()
        .filter(|n| (1024..=16_777_216).contains(n))
        .ok_or_else(|| {
        value(format!(
            "conntrack.max_flows {} is out of range; use 1024 to 16777216",
            raw.conntrack.max_flows
        ))
    })?;
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
        });
    }
    let services = raw
        .service
        .into_iter()
        .map(RawService::into_spec)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| SourceError::Model { path: path.into(), error })?;
    Desired::new(services.clone()).map_err(|error| SourceError::Model { path: path.into(), error })?;
    Ok(Config {
        api_socket: raw.agent.api_socket,
        metrics_listen,
        pin_dir: raw.agent.pin_dir,
        state_file: raw.agent.state_file,
        max_flows,
        interfaces,
        services,
    })
}

#[cfg(test)]
mod tests;
