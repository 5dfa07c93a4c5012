//! A service as file, state file, API and command line write it: one declaration for all of them, a file for each part.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

mod affinity;
mod backend;
mod forward;
mod frontend;
pub mod health;
mod password;
pub mod patch;
mod paths;
mod rebalance;
mod removal;
mod statuses;
mod talk;
mod time;
mod timeouts;

pub use self::{
    affinity::AffinityDecl,
    backend::BackendDecl,
    forward::{ForwardBySource, ForwardDecl},
    frontend::FrontendDecl,
    health::HealthDecl,
    rebalance::RebalanceDecl,
    removal::{RemovalDecl, RemovalWithin},
    talk::StepDecl,
    time::Time,
    timeouts::TimeoutsDecl,
};
use crate::model::{
    AlgorithmKind, Forwarding, Frontend, ModelError, Origin, RemovalPolicies, RemovalPolicy, Scope,
    ServiceSpec, StrayKind,
    reach::{parse_addresses, parse_prefixes},
};

/// Where a service is, whose clients it takes, how a backend is chosen, when connections are over. Text is checked
/// when it becomes a [`ServiceSpec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDecl {
    /// Unique: 1 to 253 of a-z A-Z 0-9 . _ - with / or : between parts. Not in the state file, where it is the key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The first address; `0.0.0.0` and `::`: all of the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Further addresses, of either family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<String>,
    /// Addresses of the node's to leave out of `0.0.0.0` and `::`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vip_except: Vec<String>,
    /// Prefixes of clients; none: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<String>,
    /// Prefixes of clients that may not connect, also if `source_ranges` have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_ranges: Vec<String>,
    /// `5432/tcp`, `80:8080/tcp`.
    pub ports: Vec<String>,
    /// `all` (the default) or `local`: clients from elsewhere are given to backends of this node only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How packets go; default `nat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardDecl>,
    /// `reset`, `forward` or `pass`: packets of no known connection; default: by algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray: Option<String>,
    /// `least-connections` (the default), `consistent-hash`, `round-robin` or `weighted-random`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Whether and how clients stay with their backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityDecl>,
    /// When connections are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsDecl>,
    /// How backends are checked; default: they aren't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthDecl>,
    /// Most open connections of the service as a whole, over all its backends and frontends; more are refused. Default:
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_max_connections: Option<i64>,
    /// What healthy backends, without backups, must weigh together, or else they get nothing new; default 1: one is
    /// enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<i64>,
    /// Which connections are moved to backends that have too few; default: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<RebalanceDecl>,
    /// How long a backend that is new, or back, takes to get all its weight; default: it has it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Time>,
    /// `keep` (the default), `drain` or `reset`, or `{ policy = "drain", deadline = "300s" }`: open connections of a
    /// backend that is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_removal: Option<RemovalDecl>,
    /// `keep` (the default) or `reset`: those of a backend that fails its health checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unhealthy: Option<String>,
    /// `keep` (the default) or `reset`: those of a backend whose drain's deadline has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<String>,
    /// Frontends besides the one that the above make. In the config file: `[[service.frontend]]`.
    #[serde(default, alias = "frontend", skip_serializing_if = "Vec::is_empty")]
    pub frontends: Vec<FrontendDecl>,
    /// Backends. In the config file: `[[service.backend]]`; the state file has them beside the services.
    #[serde(default, alias = "backend", skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendDecl>,
}

/// Reads what is written in JSON.
///
/// # Errors
/// It isn't one of those; the sentence says which part of it, and why.
pub fn read<'de, T, D>(json: D) -> Result<T, String>
where
    T: DeserializeOwned,
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(json).map_err(|e| match e.path().iter().next() {
        Some(_) => e.to_string(),
        None => e.into_inner().to_string(),
    })
}

/// A number in its range; `known` says so.
fn number<T: TryFrom<i64>>(
    what: &'static str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
    known: &'static str,
) -> Result<Option<T>, ModelError> {
    let Some(value) = value else { return Ok(None) };
    let fits = T::try_from(value).ok().filter(|_| range.contains(&value));
    fits.map(Some).ok_or_else(|| ModelError::NotKnown { what, text: value.to_string(), known })
}

impl ServiceDecl {
    /// What it says. Not validated as a whole.
    ///
    /// # Errors
    /// Something of it can't be understood.
    pub fn spec(&self, name: &str, origin: Origin) -> Result<ServiceSpec, ModelError> {
        let affinity = self.affinity.as_ref().map(AffinityDecl::spec).transpose()?.flatten();
        if origin != Origin::File && self.health.as_ref().is_some_and(HealthDecl::is_exec) {
            return Err(ModelError::ExecNotOfFile);
        }
        let mut spec = ServiceSpec {
            algorithm: self
                .algorithm
                .as_deref()
                .map_or(Ok(AlgorithmKind::LeastConnections), AlgorithmKind::parse)?,
            stray: self.stray.as_deref().map(StrayKind::parse).transpose()?,
            affinity,
            timeouts: self.timeouts.as_ref().map(TimeoutsDecl::spec).transpose()?.unwrap_or_default(),
            health: self.health.as_ref().map(HealthDecl::spec).transpose()?.flatten(),
            max_connections: number(
                "service_max_connections",
                self.service_max_connections,
                1..=(u32::MAX - 1).into(),
                "1 to 4294967294, or nothing for no limit",
            )?,
            quorum: number("quorum", self.quorum, 1..=1_000_000_000, "1 to 1000000000")?.unwrap_or(1),
            rebalance: self.rebalance.as_ref().map(RebalanceDecl::spec).transpose()?,
            slow_start: time::optional(&self.slow_start, "slow_start")?,
            policies: self.removal_policies()?,
            ..ServiceSpec::new(name, self.spec_frontends()?, origin)
        };
        for backend in &self.backends {
            spec.add_member(backend.member(name, origin)?)?;
        }
        Ok(spec)
    }

    fn removal_policies(&self) -> Result<RemovalPolicies, ModelError> {
        let policy = |what, text: &Option<String>| {
            text.as_deref().map_or(Ok(RemovalPolicy::Usual), |t| RemovalPolicy::parse(what, t))
        };
        let removal = self.on_removal.as_ref().map(RemovalDecl::spec).transpose()?.unwrap_or_default();
        Ok(RemovalPolicies {
            removal: removal.0,
            removal_deadline: removal.1,
            unhealthy: policy("on_unhealthy", &self.on_unhealthy)?,
            deadline: policy("on_deadline", &self.on_deadline)?,
        })
    }

    fn spec_frontends(&self) -> Result<Vec<Frontend>, ModelError> {
        let first = FrontendDecl {
            addresses: self.vip.iter().chain(&self.vips).cloned().collect(),
            scope: self.scope.clone(),
            source_ranges: Some(self.source_ranges.clone()),
            deny_ranges: Some(self.deny_ranges.clone()),
            ..FrontendDecl::default()
        };
        let all = std::iter::once(&first).chain(&self.frontends);
        let mut frontends = all.map(|decl| self.frontend(decl)).collect::<Result<Vec<_>, _>>()?;
        for address in parse_addresses(&self.vip_except)? {
            let of_all = |f: &Frontend| f.is_anywhere_of(address.is_ipv6());
            // One that nobody can leave out is the first's, where it is refused.
            let nobody = !frontends.iter().any(of_all);
            for (i, frontend) in frontends.iter_mut().enumerate() {
                if of_all(frontend) || nobody && i == 0 {
                    frontend.except.insert(address);
                }
            }
        }
        Ok(frontends)
    }

    fn frontend(&self, decl: &FrontendDecl) -> Result<Frontend, ModelError> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in &decl.addresses {
            let address = text.parse().map_err(|_| ModelError::NotAnAddress { text: text.clone() })?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        // The service's may be of a family that this frontend hasn't.
        let of_family = |prefix: &IpNet| {
            let v6 = matches!(prefix, IpNet::V6(_));
            addresses.iter().any(|address| address.is_ipv6() == v6)
        };
        let mut denied = parse_prefixes(decl.deny_ranges.as_ref().unwrap_or(&self.deny_ranges))?;
        if decl.deny_ranges.is_none() {
            denied.retain(of_family);
        }
        let mut sources = parse_prefixes(decl.source_ranges.as_ref().unwrap_or(&self.source_ranges))?;
        if decl.source_ranges.is_none() {
            let some = !sources.is_empty();
            sources.retain(of_family);
            if some && sources.is_empty() {
                return Err(ModelError::NoneInherited { addresses: decl.addresses.join(", ") });
            }
        }
        let ports = decl.ports.as_ref().unwrap_or(&self.ports);
        let forward = decl.forward.as_ref().or(self.forward.as_ref());
        Ok(Frontend {
            addresses,
            except: Default::default(),
            ports: ports.iter().map(|port| port.parse()).collect::<Result<_, _>>()?,
            scope: decl.scope.as_deref().map_or(Ok(Scope::All), Scope::parse)?,
            sources,
            denied,
            forward: forward.map_or(Ok(Forwarding::default()), ForwardDecl::spec)?,
        })
    }
}

/// What a service is declared to be, but for its name and its backends.
impl From<&ServiceSpec> for ServiceDecl {
    fn from(spec: &ServiceSpec) -> Self {
        let mut frontends = spec.frontends.iter().map(FrontendDecl::from);
        let first = frontends.next().unwrap_or_default();
        let mut addresses = first.addresses.into_iter();
        let except: std::collections::BTreeSet<&IpAddr> =
            spec.frontends.iter().flat_map(|f| &f.except).collect();
        let policy = |policy: RemovalPolicy| policy.name().map(String::from);
        let timeouts = TimeoutsDecl::from(&spec.timeouts);
        Self {
            name: String::new(),
            vip: addresses.next(),
            vips: addresses.collect(),
            vip_except: except.iter().map(ToString::to_string).collect(),
            source_ranges: first.source_ranges.unwrap_or_default(),
            deny_ranges: first.deny_ranges.unwrap_or_default(),
            ports: first.ports.unwrap_or_default(),
            scope: first.scope,
            forward: first.forward,
            stray: spec.stray.map(|stray| stray.name().into()),
            algorithm: Some(spec.algorithm.name().into()),
            affinity: spec.affinity.as_ref().map(Into::into),
            timeouts: (timeouts != TimeoutsDecl::default()).then_some(timeouts),
            health: spec.health.as_ref().map(Into::into),
            service_max_connections: spec.max_connections.map(Into::into),
            quorum: (spec.quorum > 1).then(|| spec.quorum.into()),
            rebalance: spec.rebalance.as_ref().map(Into::into),
            slow_start: spec.slow_start.map(Into::into),
            on_removal: RemovalDecl::of(&spec.policies),
            on_unhealthy: policy(spec.policies.unhealthy),
            on_deadline: policy(spec.policies.deadline),
            frontends: frontends.collect(),
            backends: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
