//! What the metrics page says of the nodes that share counts.

use std::fmt;

use lb_mesh::View;
use prometheus_client::{
    encoding::DescriptorEncoder,
    metrics::MetricType::{Counter, Gauge},
};

use super::node::{Labels, counter, family, gauge};

/// See the module.
pub(super) fn encode(view: &View, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let help = "Nodes that share counts, this one included";
    family(e, "flowpin_cluster_members", help, Gauge, |m| gauge(m, &[], whole(view.members.len())))?;
    let help = "Services whose connections of other nodes aren't known, so that this node counts by itself";
    let isolated = view.services.iter().filter(|service| !service.shared).count();
    family(e, "flowpin_cluster_isolated_services", help, Gauge, |m| gauge(m, &[], whole(isolated)))?;
    let help = "Age of what is known of other nodes' connections, the oldest of all services that are shared";
    let ages = view.services.iter().filter(|service| service.shared).filter_map(|service| service.age);
    let oldest = ages.max().map_or(0.0, |age| age.as_secs_f64());
    family(e, "flowpin_cluster_age_seconds", help, Gauge, |m| {
        let labels: &Labels<'_> = &[];
        m.encode_family(&labels)?.encode_gauge(&oldest)
    })?;
    let (traffic, both) = (view.traffic, |received: u64, sent: u64| [("received", received), ("sent", sent)]);
    for (name, help, figures) in [
        (
            "flowpin_cluster_frames",
            "Messages from and to other nodes",
            both(traffic.frames_in, traffic.frames_out),
        ),
        (
            "flowpin_cluster_bytes",
            "Their bytes, without those of TLS",
            both(traffic.bytes_in, traffic.bytes_out),
        ),
    ] {
        family(e, name, help, Counter, |m| {
            figures.iter().try_for_each(|(way, figure)| counter(m, &[("direction", way)], *figure))
        })?;
    }
    let help = "Connections and messages of other nodes that were refused, by reason";
    family(e, "flowpin_cluster_refused", help, Counter, |m| {
        view.refused.iter().try_for_each(|(reason, count)| counter(m, &[("reason", reason.label())], *count))
    })
}
