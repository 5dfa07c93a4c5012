//! What the metrics page says of the nodes that share counts.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::MetricType::{self, Counter, Gauge},
};

use super::node::{Labels, counter, family, gauge, real};
use crate::{api::types::ClusterView, cluster::SharingTimes};

/// See the module.
pub(super) fn encode(view: &ClusterView, times: &SharingTimes, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let help = "Nodes that share counts, this one included";
    family(e, "flowpin_cluster_members", help, Gauge, |m| gauge(m, &[], whole(view.members.len())))?;
    let help = "Services whose connections of other nodes aren't known, so that this node counts by itself";
    let isolated = view.services.iter().filter(|service| !service.shared).count();
    family(e, "flowpin_cluster_isolated_services", help, Gauge, |m| gauge(m, &[], whole(isolated)))?;
    let help = "Most connections of a backend for its weight over the mean, of all nodes together";
    family(e, "flowpin_cluster_imbalance", help, Gauge, |m| {
        let known = view.services.iter().filter_map(|service| Some((&service.name, service.imbalance?)));
        known.into_iter().try_for_each(|(name, imbalance)| real(m, &[("service", name)], imbalance))
    })?;
    for (name, help, times) in [
        (
            "flowpin_cluster_age_seconds",
            "Age of what is known of other nodes' connections, looked at once a second for each service",
            &times.age,
        ),
        (
            "flowpin_cluster_report_seconds",
            "Time from a report of new connections until the totals of another node contain it",
            &times.report,
        ),
    ] {
        family(e, name, help, MetricType::Histogram, |m| {
            let labels: &Labels<'_> = &[];
            times.encode(m.encode_family(&labels)?)
        })?;
    }
    for (name, help, [received, sent]) in [
        ("flowpin_cluster_frames", "Messages from and to other nodes", view.frames),
        ("flowpin_cluster_bytes", "Their bytes, without those of TLS", view.bytes),
    ] {
        family(e, name, help, Counter, |m| {
            counter(m, &[("direction", "received")], received)?;
            counter(m, &[("direction", "sent")], sent)
        })?;
    }
    let help = "Connections and messages of other nodes that were refused, by reason";
    family(e, "flowpin_cluster_refused", help, Counter, |m| {
        view.refused.iter().try_for_each(|(reason, count)| counter(m, &[("reason", reason)], *count))
    })
}
