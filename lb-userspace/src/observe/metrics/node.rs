//! What the metrics page says of the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use lb_common::{abi::Reason, expiry::Timeout};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, histogram::Histogram},
    registry::Registry,
};

use super::sharing;
use crate::{
    api::types::{ClusterView, RejectedView},
    cluster::SharingTimes,
    connection_log::Totals,
    proxy::{ClusterState, ProxyMetrics},
};

/// See the module.
#[derive(Clone, Default)]
pub struct Node {
    /// Refusals by reason.
    pub reasons: Vec<(Reason, u64)>,
    /// Flows in the tables.
    pub entries: u64,
    /// `conntrack.max_flows`.
    pub capacity: u64,
    /// Clients in the affinity table, and for how many it has room.
    pub clients: (u64, u64),
    /// Flows that ran into a timeout.
    pub timed_out: BTreeMap<(String, Timeout), u64>,
    /// See `conntrack::census`.
    pub drift: i64,
    /// Time from a change to its being in force.
    pub reconcile: Option<Histogram>,
    /// `uname -r`.
    pub kernel: String,
    /// What became of records of the connection log, if there is one.
    pub connection_log: Option<Totals>,
    /// How often each task of the agent was started again.
    pub restarts: BTreeMap<&'static str, u64>,
    /// What is declared and not in force.
    pub rejected: Vec<RejectedView>,
    /// The nodes that share counts, if this one does, and how old what is known of them was.
    pub sharing: Option<(Arc<ClusterView>, SharingTimes)>,
    /// The cluster that is followed, if any.
    pub cluster: Option<Cluster>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// Exemplars have none.
type NoLabels = Vec<(String, String)>;
pub(crate) type Labels<'a> = [(&'static str, &'a str)];

pub(crate) fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    write(&mut encoder.encode_descriptor(name, help, None, kind)?)
}

pub(crate) fn gauge(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: i64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_gauge(&value)
}

pub(crate) fn counter(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_counter::<NoLabels, _, u64>(&value, None)
}

pub(crate) fn real(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: f64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_gauge(&value)
}

pub(crate) fn real_counter(metric: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    metric.encode_counter::<NoLabels, _, u64>(&value, None)
}

/// What is said of the cluster that is followed.
#[derive(Clone)]
pub struct Cluster {
    /// What is known of it.
    pub state: ClusterState,
    /// Counts since the agent started.
    pub metrics: Arc<ProxyMetrics>,
    /// IP versions that the node has.
    pub families: Vec<&'static str>,
}

impl Cluster {
    fn encode(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        use MetricType::Gauge;
        let state = &self.state;
        let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let help = "Has the API server told of all there is since the agent started?";
        family(e, "flowpin_kubernetes_synced", help, Gauge, |m| gauge(m, &[], state.status.synced.into()))?;
        let help = "Kubernetes Services that are followed";
        family(e, "flowpin_kubernetes_services", help, Gauge, |m| gauge(m, &[], whole(state.services)))?;
        let help = "1 for a kind of which the API server doesn't tell now; see flowpin status";
        family(e, "flowpin_kubernetes_unseen", help, Gauge, |m| {
            state.status.unseen.keys().try_for_each(|kind| gauge(m, &[("kind", kind)], 1))
        })?;
        let help = "Objects of which something is wrong, by what; see flowpin status";
        family(e, "flowpin_kubernetes_notes", help, Gauge, |m| {
            let mut counts = BTreeMap::<&str, usize>::new();
            state.notes.iter().for_each(|note| *counts.entry(note.reason.name()).or_default() += 1);
            counts.into_iter().try_for_each(|(reason, count)| gauge(m, &[("reason", reason)], whole(count)))
        })?;
        self.metrics.encode(e, state, &self.families)
    }
}

impl Node {
    /// As the last piece of the page.
    pub fn render(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        // It is written to memory, which doesn't refuse.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        use MetricType::{Counter, Gauge};
        let e = &mut encoder;
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (bound, room) = self.clients;
        for (name, help, value) in [
            ("flowpin_conntrack_entries", "Flows in the flow tables, as of the last sweep", self.entries),
            ("flowpin_conntrack_capacity", "Flows that each flow table has room for", self.capacity),
            ("flowpin_affinity_entries", "Clients in the affinity table", bound),
            ("flowpin_affinity_capacity", "Clients that the affinity table has room for", room),
        ] {
            family(e, name, help, Gauge, |m| gauge(m, &[], whole(value)))?;
        }
        family(e, "flowpin_timeouts", "Flows that ran into a timeout, by timeout", Counter, |m| {
            self.timed_out.iter().try_for_each(|((service, timeout), count)| {
                counter(m, &[("service", service), ("timeout", timeout.name())], *count)
            })
        })?;
        family(e, "flowpin_drops", "Packets refused or dropped, by reason", Counter, |m| {
            self.reasons
                .iter()
                .try_for_each(|(reason, count)| counter(m, &[("reason", reason.name())], *count))
        })?;
        let help =
            "Active connections by the counters less those in the flow tables; 0 unless there is a bug";
        family(e, "flowpin_accounting_drift", help, Gauge, |m| gauge(m, &[], self.drift))?;
        let help = "How often a task of the agent ended before it was told to, and was started again";
        family(e, "flowpin_task_restarts", help, Counter, |m| {
            self.restarts.iter().try_for_each(|(task, count)| counter(m, &[("task", task)], *count))
        })?;
        if let Some(Totals { written, lost }) = self.connection_log {
            let help =
                "Connections that have ended since the agent started, by whether they have a line in the log";
            family(e, "flowpin_connection_log_records", help, Counter, |m| {
                counter(m, &[("result", "written")], written)?;
                counter(m, &[("result", "lost")], lost)
            })?;
        }
        let help = "1 for a service whose declaration, or that of some of its backends, is refused; see flowpin status";
        family(e, "flowpin_service_rejected", help, Gauge, |m| {
            let names: BTreeSet<(&str, &str)> =
                self.rejected.iter().map(|r| (r.service.as_str(), r.origin.as_str())).collect();
            names
                .into_iter()
                .try_for_each(|(service, origin)| gauge(m, &[("service", service), ("origin", origin)], 1))
        })?;
        self.cluster.iter().try_for_each(|cluster| cluster.encode(e))?;
        self.sharing.iter().try_for_each(|(view, times)| sharing::encode(view, times, e))?;
        let help = "Time from a change to its being in force";
        family(e, "flowpin_reconcile_duration_seconds", help, MetricType::Histogram, |m| {
            let labels: &Labels<'_> = &[];
            self.reconcile.iter().try_for_each(|reconcile| reconcile.encode(m.encode_family(&labels)?))
        })?;
        family(e, "flowpin_build_info", "Version and kernel", Gauge, |m| {
            gauge(m, &[("version", env!("CARGO_PKG_VERSION")), ("kernel", &self.kernel)], 1)
        })
    }
}
