//! API objects, as much of them as a service proxy reads. All else is skipped while it is read: managed fields, most
//! labels and annotations, and what a pod's endpoint refers to.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// Annotations of ours begin with it.
pub const PREFIX: &str = "service.flowpin.io/";
/// When what an EndpointSlice tells of happened (RFC 3339).
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// `metadata`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Empty for what has none.
    pub namespace: String,
    /// Unique in its namespace.
    pub name: String,
    /// Of this object, as opposed to another that had its name before.
    pub uid: String,
    /// Which version of it; the server's business.
    pub resource_version: String,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub creation_timestamp: String,
    /// Being deleted since.
    #[serde(deserialize_with = "or_default")]
    pub deletion_timestamp: String,
    /// Those that are read.
    #[serde(deserialize_with = "or_default")]
    pub labels: Labels,
    /// Those that are read.
    #[serde(deserialize_with = "or_default")]
    pub annotations: Annotations,
}

impl Meta {
    /// `namespace/name`, or `name`.
    pub fn key(&self) -> String {
        if self.namespace.is_empty() {
            return self.name.clone();
        }
        format!("{}/{}", self.namespace, self.name)
    }

    /// When it was created, in seconds since the Unix epoch; 0: nobody knows.
    pub fn created(&self) -> u64 {
        let at = humantime::parse_rfc3339(&self.creation_timestamp).ok();
        at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
    }
}

/// Labels that mean something to a service proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// Whose slice it is.
    #[serde(rename = "kubernetes.io/service-name")]
    pub service: String,
    /// Where the node is.
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub zone: String,
}

/// Annotations that mean something to us, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(pub Vec<(String, String)>);

impl Annotations {
    /// One of them.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ours;
        impl<'de> Visitor<'de> for Ours {
            type Value = Annotations;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut ours = Vec::new();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if key.starts_with(PREFIX) || key == TRIGGER_TIME {
                        ours.push((key.into_owned(), map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                ours.sort_unstable();
                Ok(Annotations(ours))
            }
        }
        deserializer.deserialize_map(Ours)
    }
}

/// `v1` Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub metadata: Meta,
    /// What it is to be.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
    /// What was made of it.
    #[serde(deserialize_with = "or_default")]
    pub status: ServiceStatus,
}

/// `spec` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's, and documented there")]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub ip_families: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    pub external_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
    pub session_affinity: String,
    #[serde(deserialize_with = "or_default")]
    pub session_affinity_config: AffinityConfig,
    pub external_traffic_policy: String,
    #[serde(deserialize_with = "or_default")]
    pub internal_traffic_policy: String,
    #[serde(deserialize_with = "or_default")]
    pub load_balancer_source_ranges: Vec<String>,
    pub health_check_node_port: i32,
}

/// A port of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's, and documented there")]
pub struct ServicePort {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub node_port: i32,
}

/// `spec.sessionAffinityConfig`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AffinityConfig {
    /// With `sessionAffinity: ClientIP`.
    #[serde(rename = "clientIP", deserialize_with = "or_default")]
    pub client_ip: ClientIpConfig,
}

/// `spec.sessionAffinityConfig.clientIP`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// How long a client stays with its backend.
    pub timeout_seconds: Option<i32>,
}

/// `status` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What its load balancer says.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Where it is reached.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<Ingress>,
}

/// Where a load balancer is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Empty if it has a name only.
    pub ip: String,
    /// `VIP` (or nothing): packets come with this address. `Proxy`: with another one.
    pub ip_mode: Option<String>,
}

/// `discovery.k8s.io/v1` EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Its name.
    pub metadata: Meta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Of all its endpoints.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
    /// Its endpoints.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the API's, and documented there")]
pub struct EndpointPort {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<i32>,
}

/// An endpoint of an EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are the API's, and documented there")]
pub struct Endpoint {
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Conditions,
    pub node_name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub hints: Hints,
}

/// `conditions` of an endpoint
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the API's, and documented there")]
pub struct Conditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// `hints` of an endpoint
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Zones whose clients are to use it.
    #[serde(deserialize_with = "or_default")]
    pub for_zones: Vec<Name>,
    /// Nodes whose clients are to use it.
    #[serde(deserialize_with = "or_default")]
    pub for_nodes: Vec<Name>,
}

/// The name of a zone or node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Name {
    /// See there.
    pub name: String,
}

/// `v1` Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub metadata: Meta,
    /// What it is to be.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// What it is.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// `spec` of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// What keeps pods off it.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
}

/// A taint of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Which one.
    pub key: String,
}

/// `status` of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Where it is reached.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<NodeAddress>,
}

/// An address of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// `networking.k8s.io/v1` ServiceCIDR
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceCidr {
    /// Its name.
    pub metadata: Meta,
    /// What it is to be.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceCidrSpec,
}

/// `spec` of a ServiceCIDR
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// Prefixes from which cluster addresses are taken.
    #[serde(deserialize_with = "or_default")]
    pub cidrs: Vec<String>,
}

/// `v1` Namespace
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its name and annotations.
    pub metadata: Meta,
}

/// `null` is what a list or object is that has nothing in it.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
