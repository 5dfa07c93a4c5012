//! What is asked for: services, backends, drains.

use serde::{Deserialize, Serialize};

/// `POST /v1/services`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ServiceAdd {
    /// Name.
    pub name: String,
    /// VIP, as text: the server reports what is wrong with it.
    pub vip: String,
    /// Addresses of the node's to leave out, likewise, if the VIP is all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vip_except: Vec<String>,
    /// Prefixes of clients; none: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<String>,
    /// `5432/tcp`.
    pub ports: Vec<String>,
    /// Default: `least-connections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityAdd>,
}

/// Affinity as given on the command line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AffinityAdd {
    /// By client address.
    pub client_ip: bool,
    /// `3h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Bits of an IPv6 address that make a client; default 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<i64>,
    /// Open flows of a client beyond which further ones are balanced like any other's; default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<i64>,
}

/// `POST /v1/services/{name}/backends`. Adding a backend that the command line added before changes its weight and limit.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BackendAdd {
    /// `10.0.1.11:5432`, `[fd00::11]:5432`, or without port.
    pub address: String,
    /// Default 1. Wider than the valid range, so that the server can name a bad value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
}

/// `POST /v1/services/{name}/backends/{address}/drain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}
