//! The JSON of the API, shared by server and client. Names are fixed by scripts that read them.

use std::{collections::BTreeSet, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod add;
mod detach;
mod event;
mod explain;
mod kubernetes;
mod rejected;

pub use crate::cluster::{
    everywhere::{Deed, EverywhereView, NodeBackendView, Task},
    rebalancing::RebalanceView,
    views::{ClusterView, CountView, MemberView, SharedView, UnreachableView},
};
pub use add::{
    AffinityDecl, BackendDecl, Drain, ForwardBySource, ForwardDecl, FrontendDecl, HealthDecl, Patch,
    ServiceDecl, StepDecl, Time, TimeoutsDecl,
};
pub use detach::{Detach, DetachedView};
pub use event::{EventQuery, EventView};
pub use explain::{Candidate, ExplainQuery, ExplainView};
pub use kubernetes::{EndpointView, EndpointsView, KubernetesView, NoteView};
pub use rejected::RejectedView;

/// A service with its backends and counters.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// The first address of the first frontend; `0.0.0.0` or `::`: all of the node's addresses.
    pub vip: IpAddr,
    /// Addresses of the node's that are left out of all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vip_except: BTreeSet<IpAddr>,
    /// Whose connections the first frontend takes; left out: everybody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<String>,
    /// Whose connections it doesn't, also if `source_ranges` have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_ranges: Vec<String>,
    /// Of the first frontend: `5432/tcp`, `8001-8003/tcp`, `80:8080/tcp`.
    pub ports: Vec<String>,
    /// Where the service is reached, and how.
    #[serde(default)]
    pub frontends: Vec<FrontendView>,
    /// `reset`, `forward` or `pass`.
    #[serde(default)]
    pub stray: String,
    /// `least-connections`, `consistent-hash`, `round-robin` or `weighted-random`.
    pub algorithm: String,
    /// `file` or `cli`.
    pub origin: String,
    /// Open connections of all its backends, those of removed ones among them: what `service_max_connections` limits.
    #[serde(default)]
    pub active_connections: u64,
    /// Most open connections of a backend in use, for its weight, over the mean of all in use; 1 is even. `null`: there are none.
    #[serde(default)]
    pub imbalance: Option<f64>,
    /// Declared without effect, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// While its quorum isn't met: what is missing, and what becomes of new clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_of_quorum: Option<String>,
    /// What is declared of it and refused, one sentence each; what is shown is the last good version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<String>,
    /// What is declared, in the form in which it may be: all but name and backends. Durations are in seconds.
    #[serde(default)]
    pub declared: ServiceDecl,
    /// Backends.
    pub backends: Vec<BackendView>,
}

/// Where a service is reached, by whom, and how packets go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct FrontendView {
    /// Addresses; `0.0.0.0` and `::`: all of the node's.
    pub addresses: Vec<IpAddr>,
    /// `5432/tcp`, `8001-8003/tcp`, `80:8080/tcp`.
    pub ports: Vec<String>,
    /// `all` or `local`: which backends connections from elsewhere may go to.
    pub scope: String,
    /// Whose connections are taken; empty: everybody's.
    pub source_ranges: Vec<String>,
    /// Whose connections aren't, also if `source_ranges` have them.
    #[serde(default)]
    pub deny_ranges: Vec<String>,
    /// A word, or words by where connections come from.
    pub forward: ForwardDecl,
}

/// A backend with its counters.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct BackendView {
    /// `10.0.1.11:5432`, or without port.
    pub address: String,
    /// The name of the host whose address this is; left out: it is declared by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// 0: it gets nothing new.
    pub weight: u16,
    /// `null`: no limit.
    pub max_connections: Option<u32>,
    /// Is it one of this node's: declared so, or with an address of the node's own?
    #[serde(default)]
    pub local: bool,
    /// Does it get new connections only while no other backend takes any?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// `active`, `draining`, `drained`.
    pub state: String,
    /// Health check's word; `true` where none is configured.
    pub healthy: bool,
    /// Is `healthy` only assumed, since no check of it has come out yet?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
    /// Do clients ask it, and nothing comes back by this node?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_way: bool,
    /// Health checks that failed since the agent started.
    #[serde(default)]
    pub health_check_failures: u64,
    /// Why the last of them failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_health_check_failure: Option<String>,
    /// `file` or `cli`.
    pub origin: String,
    /// Pins that count.
    pub active_connections: u64,
    /// With affinity: clients that are bound to the backend and have an open flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Pins ever.
    pub total_connections: u64,
    /// Client to backend.
    pub packets_in: u64,
    /// Client to backend.
    pub bytes_in: u64,
    /// Backend to client.
    pub packets_out: u64,
    /// Backend to client.
    pub bytes_out: u64,
    /// Age of the oldest connection that counts, as of the last look; none: there are no connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<f64>,
    /// While draining: open connections when the drain began; left out: the agent has been started since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_from: Option<u64>,
    /// While draining: seconds since the drain began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<f64>,
    /// While draining: seconds until the deadline (negative: past it), if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline_seconds: Option<f64>,
}

/// One pinned flow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct ConnectionView {
    /// Name.
    pub service: String,
    /// `192.0.2.7:40000`, `[2001:db8::7]:40000`.
    pub client: String,
    /// VIP and port.
    pub vip: String,
    /// Backend's name, as in [`BackendView::address`]; with the real target port if the backend names none.
    pub backend: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `syn-sent`, `established`, `closing`, `closed`; `unconfirmed`: of a connection whose begin wasn't seen, and which
    /// its backend hasn't acknowledged yet; UDP: `active`.
    pub state: String,
    /// Since the pin was made.
    pub age_seconds: f64,
    /// Since the last packet of either direction.
    pub idle_seconds: f64,
    /// Client to backend.
    pub packets_in: u64,
    /// Client to backend.
    pub bytes_in: u64,
    /// Backend to client.
    pub packets_out: u64,
    /// Backend to client.
    pub bytes_out: u64,
}

/// Which connections to list; all that are given must match.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Service name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Backend: address, or address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Client: address, or address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// State.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// `GET /v1/connections`: a [`ConnectionFilter`], and how much of it in which order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionQuery {
    /// Service name.
    pub service: Option<String>,
    /// Backend: address, or address and port.
    pub backend: Option<String>,
    /// Client: address, or address and port.
    pub client: Option<String>,
    /// State.
    pub state: Option<String>,
    /// The greatest first: `age`, `idle` or `bytes`.
    pub sort: Option<String>,
    /// So many at most.
    pub limit: Option<u64>,
}

impl ConnectionQuery {
    /// Which connections.
    pub fn filter(&self) -> ConnectionFilter {
        let (service, backend) = (self.service.clone(), self.backend.clone());
        ConnectionFilter { service, backend, client: self.client.clone(), state: self.state.clone() }
    }
}

/// `POST /v1/connections/close`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConnectionClose {
    /// Which; something must be named.
    pub filter: ConnectionFilter,
    /// Only those that have been silent for so long in both directions, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// Connections a second; default 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

/// What closing came to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct Closed {
    /// Connections that were open and no longer are.
    pub closed: u64,
    /// What wasn't as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct StatusView {
    /// `ok`, or `degraded`: something in `problems`.
    pub state: String,
    /// Version of the agent.
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    /// Since the agent started.
    pub uptime_seconds: f64,
    /// Where it should be attached, and whether it is.
    pub interfaces: Vec<InterfaceView>,
    /// Services.
    pub services: u64,
    /// Backends.
    pub backends: u64,
    /// Flows in the table (counted or lingering), as of the last sweep.
    pub conntrack_entries: u64,
    /// `conntrack.max_flows`.
    pub conntrack_capacity: u64,
    /// Clients in the affinity table, as of the last look.
    #[serde(default)]
    pub affinity_entries: u64,
    /// `conntrack.max_clients`.
    #[serde(default)]
    pub affinity_capacity: u64,
    /// Active connections by the counters less those found in the table at the last recount. 0 unless there is a bug.
    pub accounting_drift: i64,
    /// Walks over the flow tables since start.
    pub sweeps: u64,
    /// Plans applied since start.
    pub generation: u64,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// What rules of the host's own get in the way of; not part of `state`.
    #[serde(default)]
    pub warnings: Vec<WarningView>,
    /// What is declared and not in force; each is among `problems` too.
    #[serde(default)]
    pub rejected: Vec<RejectedView>,
    /// The Kubernetes cluster that is followed, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesView>,
    /// Since the agent was told to detach: how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detached: Option<DetachedView>,
}

/// Something of the host's that keeps packets from arriving.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct WarningView {
    /// What it is about: `rp_filter`, `netfilter`, `route`, `sockets`, `quorum`.
    pub about: String,
    /// What it keeps from working.
    pub text: String,
    /// What would help.
    pub remedy: String,
}

/// An interface that the configuration matches.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct InterfaceView {
    /// Name.
    pub name: String,
    /// Kernel's index.
    pub index: u32,
    /// `xdp` or `tc`, as configured.
    pub attach: String,
    /// Is what was translated sent on past the IP stack?
    pub fast: bool,
    /// Are answers of backends translated where they come in by it, and not where they leave?
    #[serde(default)]
    pub reply_on_arrival: bool,
    /// Is what goes out by it handed to its other end at once?
    #[serde(default)]
    pub peer: bool,
    /// `xdp-native`, `xdp-generic`, `tcx`, `clsact`; `null`: not attached.
    pub mode: Option<String>,
    /// Why not, if not.
    pub error: Option<String>,
}

/// `GET /v1/stats`: the node's totals beside the services.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct StatsView {
    /// As in `service list`.
    pub services: Vec<ServiceView>,
    /// Refusals and drops by reason, zeros included.
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// Body of every answer that is not 2xx.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct ErrorView {
    /// One line: what is wrong, with what value, what would be right.
    pub error: String,
}
