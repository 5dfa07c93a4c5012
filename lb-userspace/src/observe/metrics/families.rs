//! What the page says of each backend and each service: a line here is a metric.

use lb_common::abi::{DURATION_BUCKETS, DurationHistogram};

use super::{Backend, Family, Lines, PLAIN, Service, Tail};
use crate::{
    datapath::Clock,
    observe::now::{self, State},
};

/// Which way.
const IN: Tail = Tail::new(",direction=\"in\"} ");
const OUT: Tail = Tail::new(",direction=\"out\"} ");
/// Which state.
const ACTIVE: Tail = Tail::new(",state=\"active\"} ");
const DRAINING: Tail = Tail::new(",state=\"draining\"} ");
const DRAINED: Tail = Tail::new(",state=\"drained\"} ");

const fn gauge<W: Copy>(name: &'static str, help: &'static str, write: W) -> Family<W> {
    Family { name, suffix: "", help, kind: "gauge", write }
}

const fn counter<W: Copy>(name: &'static str, help: &'static str, write: W) -> Family<W> {
    Family { name, suffix: "_total", help, kind: "counter", write }
}

/// Says something of a backend.
pub type WriteBackend = fn(&Backend<'_>, &mut Lines<'_>);
/// Says something of a service.
pub type WriteService = fn(&Service<'_>, &mut Lines<'_>);

/// Of backends.
pub const BACKENDS: [Family<WriteBackend>; 11] = [
    gauge(
        "flowpin_backend_active_connections",
        "Open connections pinned to the backend",
        |backend, lines| {
            lines.whole(&PLAIN, backend.active().into());
        },
    ),
    gauge(
        "flowpin_backend_oldest_connection_seconds",
        "Age of the oldest open connection, as of the last sweep",
        |backend, lines| backend.oldest().into_iter().for_each(|age| lines.real(&PLAIN, age)),
    ),
    gauge(
        "flowpin_backend_drain_deadline_seconds",
        "Seconds until a draining backend's deadline; negative when it has passed",
        |backend, lines| backend.row.deadline.into_iter().for_each(|at| lines.real(&PLAIN, now::left(at))),
    ),
    counter("flowpin_backend_connections", "Connections pinned to the backend so far", |backend, lines| {
        lines.whole(&PLAIN, backend.counters().connections);
    }),
    counter(
        "flowpin_backend_bytes",
        "Bytes through the backend's connections, IP headers included",
        |backend, lines| {
            let counters = backend.counters();
            lines.whole(&IN, counters.bytes_in);
            lines.whole(&OUT, counters.bytes_out);
        },
    ),
    counter("flowpin_backend_packets", "Packets through the backend's connections", |backend, lines| {
        let counters = backend.counters();
        lines.whole(&IN, counters.packets_in);
        lines.whole(&OUT, counters.packets_out);
    }),
    gauge(
        "flowpin_backend_healthy",
        "1 if the backend passes its health check or has none",
        |backend, lines| lines.whole(&PLAIN, backend.row.healthy.into()),
    ),
    gauge(
        "flowpin_backend_one_way",
        "1 if clients ask the backend and nothing comes back by this node",
        |backend, lines| lines.whole(&PLAIN, backend.row.one_way.into()),
    ),
    gauge("flowpin_backend_state", "1 for the state that the backend is in", |backend, lines| {
        let state = backend.state();
        for (tail, of) in [(&ACTIVE, State::Active), (&DRAINING, State::Draining), (&DRAINED, State::Drained)]
        {
            lines.whole(tail, (of == state).into());
        }
    }),
    counter("flowpin_backend_health_check_failures", "Failed health checks", |backend, lines| {
        lines.whole(&PLAIN, backend.row.failures);
    }),
    gauge(
        "flowpin_backend_clients",
        "Clients bound to the backend that have a connection",
        |backend, lines| {
            backend.clients().into_iter().for_each(|clients| lines.whole(&PLAIN, clients.into()))
        },
    ),
];

/// Of services.
pub const SERVICES: [Family<WriteService>; 2] = [
    gauge(
        "flowpin_service_imbalance",
        "Most open connections of a backend in use, for its weight, over the mean of all in use; 1 is even",
        |service, lines| service.imbalance().into_iter().for_each(|ratio| lines.real(&PLAIN, ratio)),
    ),
    gauge(
        "flowpin_service_quorum_met",
        "Of services with a quorum: 1 while their healthy backends weigh as much together, 0 while they are down",
        |service, lines| service.row.quorum.into_iter().for_each(|met| lines.whole(&PLAIN, met.into())),
    ),
];

/// How long connections were open. Its lines are [`write_durations`]'s.
pub const DURATIONS: Family<()> = Family {
    name: "flowpin_connection_duration_seconds",
    suffix: "",
    help: "How long connections were open",
    kind: "histogram",
    write: (),
};

/// Upper bounds of the buckets, as labels.
const BOUNDS: [Tail; DURATION_BUCKETS] = [
    Tail::new(",le=\"0.064\"} "),
    Tail::new(",le=\"0.128\"} "),
    Tail::new(",le=\"0.256\"} "),
    Tail::new(",le=\"0.512\"} "),
    Tail::new(",le=\"1.024\"} "),
    Tail::new(",le=\"2.048\"} "),
    Tail::new(",le=\"4.096\"} "),
    Tail::new(",le=\"8.192\"} "),
    Tail::new(",le=\"16.384\"} "),
    Tail::new(",le=\"32.768\"} "),
    Tail::new(",le=\"65.536\"} "),
    Tail::new(",le=\"131.072\"} "),
    Tail::new(",le=\"262.144\"} "),
    Tail::new(",le=\"524.288\"} "),
    Tail::new(",le=\"1048.576\"} "),
    Tail::new(",le=\"2097.152\"} "),
    Tail::new(",le=\"4194.304\"} "),
    Tail::new(",le=\"8388.608\"} "),
    Tail::new(",le=\"16777.216\"} "),
    Tail::new(",le=\"33554.432\"} "),
    Tail::new(",le=\"67108.864\"} "),
    Tail::new(",le=\"134217.728\"} "),
    Tail::new(",le=\"+Inf\"} "),
];

/// A service's histogram: each bucket counts what the ones before do as well.
pub fn write_durations(lines: &mut Lines<'_>, labels: &str, histogram: &DurationHistogram, clock: Clock) {
    lines.about("flowpin_connection_duration_seconds_sum{", labels);
    lines.real(&PLAIN, clock.seconds(histogram.sum_jiffies));
    lines.about("flowpin_connection_duration_seconds_count{", labels);
    lines.whole(&PLAIN, histogram.buckets.iter().sum());
    lines.about("flowpin_connection_duration_seconds_bucket{", labels);
    let mut so_far = 0;
    for (bound, count) in BOUNDS.iter().zip(histogram.buckets) {
        so_far += count;
        lines.whole(bound, so_far);
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::counters::DURATION_TICK_MS;

    use super::*;

    #[test]
    fn names_are_the_family_s() {
        let mut out = Vec::new();
        let histogram = DurationHistogram::default();
        write_durations(&mut Lines::new(&mut out), "", &histogram, Clock::at(250));
        let text = String::from_utf8(out).expect("text");
        assert!(text.lines().all(|line| line.starts_with(DURATIONS.name)), "{text}");
    }

    #[test]
    fn bounds_are_those_of_the_buckets() {
        for (i, bound) in BOUNDS[..DURATION_BUCKETS - 1].iter().enumerate() {
            let wanted = format!(",le=\"{}\"}} ", (DURATION_TICK_MS << i) as f64 / 1000.0);
            assert_eq!(&bound.padded[..bound.len], wanted.as_bytes());
        }
    }
}
