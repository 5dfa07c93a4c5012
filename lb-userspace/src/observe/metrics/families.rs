//! What the page says of each backend and each service: a line here is a metric.

use lb_common::abi::{DURATION_BUCKETS, DurationHistogram};

use super::{BackendRow, Family, Lines, ServiceRow};
use crate::datapath::Clock;

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";
/// What counters' names end with.
const TOTAL: &str = "_total";
/// Which way.
const IN: &str = ",direction=\"in\"";
const OUT: &str = ",direction=\"out\"";

const fn gauge<T>(name: &'static str, help: &'static str, write: fn(&T, &mut Lines<'_>)) -> Family<T> {
    Family { name, help, kind: GAUGE, write }
}

const fn counter<T>(name: &'static str, help: &'static str, write: fn(&T, &mut Lines<'_>)) -> Family<T> {
    Family { name, help, kind: COUNTER, write }
}

/// Of backends.
pub const BACKENDS: [Family<BackendRow>; 10] = [
    gauge("flowpin_backend_active_connections", "Open connections pinned to the backend", |row, lines| {
        lines.whole("", "", row.active.into());
    }),
    gauge(
        "flowpin_backend_oldest_connection_seconds",
        "Age of the oldest open connection, as of the last sweep",
        |row, lines| row.oldest.into_iter().for_each(|age| lines.real("", "", age)),
    ),
    gauge(
        "flowpin_backend_drain_deadline_seconds",
        "Seconds until a draining backend's deadline; negative when it has passed",
        |row, lines| row.left.into_iter().for_each(|left| lines.real("", "", left)),
    ),
    counter("flowpin_backend_connections", "Connections pinned to the backend so far", |row, lines| {
        lines.whole(TOTAL, "", row.counters.connections);
    }),
    counter(
        "flowpin_backend_bytes",
        "Bytes through the backend's connections, IP headers included",
        |row, lines| {
            lines.whole(TOTAL, IN, row.counters.bytes_in);
            lines.whole(TOTAL, OUT, row.counters.bytes_out);
        },
    ),
    counter("flowpin_backend_packets", "Packets through the backend's connections", |row, lines| {
        lines.whole(TOTAL, IN, row.counters.packets_in);
        lines.whole(TOTAL, OUT, row.counters.packets_out);
    }),
    gauge("flowpin_backend_healthy", "1 if the backend passes its health check or has none", |row, lines| {
        lines.whole("", "", row.healthy.into())
    }),
    gauge("flowpin_backend_state", "1 for the state that the backend is in", |row, lines| {
        lines.whole("", ",state=\"active\"", (row.state == "active").into());
        lines.whole("", ",state=\"draining\"", (row.state == "draining").into());
        lines.whole("", ",state=\"drained\"", (row.state == "drained").into());
    }),
    counter("flowpin_backend_health_check_failures", "Failed health checks", |row, lines| {
        lines.whole(TOTAL, "", row.failures);
    }),
    gauge("flowpin_backend_clients", "Clients bound to the backend that have a connection", |row, lines| {
        row.clients.into_iter().for_each(|clients| lines.whole("", "", clients.into()))
    }),
];

/// Of services.
pub const SERVICES: [Family<ServiceRow>; 1] = [gauge(
    "flowpin_service_imbalance",
    "Most open connections of a backend in use, for its weight, over the mean of all in use; 1 is even",
    |row, lines| row.imbalance.into_iter().for_each(|ratio| lines.real("", "", ratio)),
)];

/// How long connections were open.
pub const fn durations() -> Family<DurationHistogram> {
    Family {
        name: "flowpin_connection_duration_seconds",
        help: "How long connections were open",
        kind: "histogram",
        write: |_, _| {},
    }
}

/// Upper bounds of the buckets, as labels; they go first, as clients of Prometheus write them.
const BOUNDS: [&str; DURATION_BUCKETS] = [
    "le=\"0.064\",",
    "le=\"0.128\",",
    "le=\"0.256\",",
    "le=\"0.512\",",
    "le=\"1.024\",",
    "le=\"2.048\",",
    "le=\"4.096\",",
    "le=\"8.192\",",
    "le=\"16.384\",",
    "le=\"32.768\",",
    "le=\"65.536\",",
    "le=\"131.072\",",
    "le=\"262.144\",",
    "le=\"524.288\",",
    "le=\"1048.576\",",
    "le=\"2097.152\",",
    "le=\"4194.304\",",
    "le=\"8388.608\",",
    "le=\"16777.216\",",
    "le=\"33554.432\",",
    "le=\"67108.864\",",
    "le=\"134217.728\",",
    "le=\"+Inf\",",
];

/// A service's histogram: each bucket counts what the ones before do as well.
pub fn write_durations(lines: &mut Lines<'_>, histogram: &DurationHistogram, clock: Clock) {
    lines.real("_sum", "", clock.seconds(histogram.sum_jiffies));
    lines.whole("_count", "", histogram.buckets.iter().sum());
    let mut so_far = 0;
    for (bound, count) in BOUNDS.into_iter().zip(histogram.buckets) {
        so_far += count;
        lines.bucket(bound, so_far);
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::counters::DURATION_TICK_MS;

    use super::*;

    #[test]
    fn bounds_are_those_of_the_buckets() {
        for (i, bound) in BOUNDS[..DURATION_BUCKETS - 1].iter().enumerate() {
            let wanted = (DURATION_TICK_MS << i) as f64 / 1000.0;
            assert_eq!(*bound, format!("le=\"{wanted}\","));
        }
    }
}
