//! A service as file, state file and API write it: what all three know of it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::config::duration;
use crate::model::{
    AffinitySpec, AlgorithmKind, ForwardKind, Forwarding, Frontend, ModelError, Scope, ServiceSpec,
    StrayKind,
    reach::{parse_addresses, parse_prefixes},
    service::check_name,
};

/// Where a service is, whose clients it takes, how a backend is chosen. Text is checked when it becomes a
/// [`ServiceSpec`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceDecl {
    /// The first address.
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
    /// `5432/tcp`, `80:8080/tcp`.
    pub ports: Vec<String>,
    /// `all` or `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How packets go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardDecl>,
    /// `reset`, `forward` or `pass`; default: by algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray: Option<String>,
    /// Default: `least-connections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityDecl>,
    /// Frontends besides the one that the above make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontends: Vec<FrontendDecl>,
}

/// A frontend besides a service's first one. What it doesn't say is as there, but for `scope`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontendDecl {
    /// Addresses, of either family; `0.0.0.0` and `::`: all of the node's.
    pub addresses: Vec<String>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// `all` (the default) or `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Prefixes of clients; `[]`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Vec<String>>,
    /// How packets go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardDecl>,
}

/// How packets go: `"snat"`, or by where they come from: `{ pod = "nat", elsewhere = "snat" }`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ForwardDecl {
    /// All the same way.
    Word(String),
    /// By source.
    BySource(ForwardBySource),
}

/// See [`ForwardDecl`]. What is left out is `nat`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardBySource {
    /// From pods of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// From anywhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

impl<'de> Deserialize<'de> for ForwardDecl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Word(String),
            BySource(ForwardBySource),
        }
        match Raw::deserialize(deserializer) {
            Ok(Raw::Word(word)) => Ok(Self::Word(word)),
            Ok(Raw::BySource(by)) => Ok(Self::BySource(by)),
            Err(_) => Err(serde::de::Error::custom(
                "forward can't be understood; use \"nat\", \"snat\", \"dsr-l2\" or \"dsr-ipip\", or \
                 { pod = \"nat\", elsewhere = \"snat\" }",
            )),
        }
    }
}

impl ForwardDecl {
    fn spec(&self) -> Result<Forwarding, ModelError> {
        let parse = |word: &Option<String>| word.as_deref().map_or(Ok(ForwardKind::Nat), ForwardKind::parse);
        match self {
            Self::Word(word) => ForwardKind::parse(word).map(Forwarding::all),
            Self::BySource(by) => Ok(Forwarding { pod: parse(&by.pod)?, elsewhere: parse(&by.elsewhere)? }),
        }
    }
}

impl From<Forwarding> for ForwardDecl {
    fn from(forward: Forwarding) -> Self {
        let Forwarding { pod, elsewhere } = forward;
        let word = |kind: ForwardKind| kind.name().to_string();
        if pod == elsewhere {
            return Self::Word(word(pod));
        }
        Self::BySource(ForwardBySource { pod: Some(word(pod)), elsewhere: Some(word(elsewhere)) })
    }
}

/// How clients are bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AffinityDecl {
    /// By the client's address; `false`: not at all.
    pub client_ip: bool,
    /// `3h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Services that share their clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `service` (the default) or `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Bits of an IPv6 address that make a client; default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<i64>,
    /// Open flows of a client beyond which further ones are balanced like any other's; default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<i64>,
}

impl Default for AffinityDecl {
    fn default() -> Self {
        Self { client_ip: true, timeout: None, group: None, by: None, ipv6_prefix: None, bound: None }
    }
}

impl AffinityDecl {
    /// As a service has it; `None`: it has none.
    ///
    /// # Errors
    /// Something of it is out of range.
    pub fn spec(&self) -> Result<Option<AffinitySpec>, ModelError> {
        if !self.client_ip {
            return Ok(None);
        }
        let number = |what, value: Option<i64>, range: std::ops::RangeInclusive<i64>, known| match value {
            Some(value) if !range.contains(&value) => {
                Err(ModelError::NotKnown { what, text: value.to_string(), known })
            }
            other => Ok(other),
        };
        let prefix = number("affinity.ipv6_prefix", self.ipv6_prefix, 1..=128, "1 to 128")?.unwrap_or(128);
        let bound = number("affinity.bound", self.bound, 1..=1_000_000, "1 to 1000000, or leave it out")?;
        if let Some(group) = &self.group {
            check_name(group)?;
        }
        let by_port = match self.by.as_deref() {
            None | Some("service") => false,
            Some("port") => true,
            Some(other) => {
                let known = "service or port";
                return Err(ModelError::NotKnown { what: "affinity.by", text: other.into(), known });
            }
        };
        if let (Some(by), Some(group)) = (&self.by, &self.group) {
            return Err(ModelError::ByAndGroup { by: by.clone(), group: group.clone() });
        }
        let timeout = self.timeout.as_deref();
        Ok(Some(AffinitySpec {
            timeout: timeout.map_or(Ok(AffinitySpec::TIMEOUT), |t| duration("affinity.timeout", t))?,
            group: self.group.clone(),
            by_port,
            ipv6_prefix: u8::try_from(prefix).unwrap_or(128),
            bound: bound.and_then(|b| u32::try_from(b).ok()),
        }))
    }
}

impl ServiceDecl {
    /// What it says, without backends. Not validated as a whole.
    ///
    /// # Errors
    /// Something of it can't be understood.
    pub fn spec(&self, name: &str, from_file: bool) -> Result<ServiceSpec, ModelError> {
        let affinity = self.affinity.as_ref().map(AffinityDecl::spec).transpose()?.flatten();
        Ok(ServiceSpec {
            algorithm: self
                .algorithm
                .as_deref()
                .map_or(Ok(AlgorithmKind::LeastConnections), AlgorithmKind::parse)?,
            stray: self.stray.as_deref().map(StrayKind::parse).transpose()?,
            affinity,
            ..ServiceSpec::new(name, self.spec_frontends()?, from_file)
        })
    }

    fn spec_frontends(&self) -> Result<Vec<Frontend>, ModelError> {
        let first = FrontendDecl {
            addresses: self.vip.iter().chain(&self.vips).cloned().collect(),
            scope: self.scope.clone(),
            source_ranges: Some(self.source_ranges.clone()),
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
        let mut sources = parse_prefixes(decl.source_ranges.as_ref().unwrap_or(&self.source_ranges))?;
        if decl.source_ranges.is_none() {
            // The service's may be of a family that this frontend hasn't.
            let v6 = |prefix: &IpNet| matches!(prefix, IpNet::V6(_));
            let some = !sources.is_empty();
            sources.retain(|prefix| addresses.iter().any(|address| address.is_ipv6() == v6(prefix)));
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
            forward: forward.map_or(Ok(Forwarding::default()), ForwardDecl::spec)?,
        })
    }
}

#[cfg(test)]
mod tests;
