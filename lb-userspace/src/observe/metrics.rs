//! The metrics page. Names are fixed by dashboards that use them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use lb_common::{
    abi::{DURATION_BUCKETS, DurationHistogram, Reason, counters::DURATION_TICK_MS},
    expiry::Timeout,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, histogram::Histogram},
    registry::Registry,
};

use crate::{
    api::types::{RejectedView, ServiceView},
    datapath::Clock,
};

/// All that the page shows, read at one time.
pub struct Page {
    /// Services with counters.
    pub services: Vec<ServiceView>,
    /// Durations by service name.
    pub durations: Vec<(String, DurationHistogram)>,
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
    /// Kernel time.
    pub clock: Clock,
    /// Time from a change to its being in force.
    pub reconcile: Histogram,
    /// `uname -r`.
    pub kernel: String,
    /// What is declared and not in force.
    pub rejected: Vec<RejectedView>,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("services", &self.services.len()).finish_non_exhaustive()
    }
}

/// The page as text.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn render(page: Page) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// Exemplars have none.
type NoLabels = Vec<(String, String)>;
type Labels<'a> = [(&'static str, &'a str)];

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    write(&mut encoder.encode_descriptor(name, help, None, kind)?)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: i64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_gauge(&value)
}

fn counter(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, value: u64) -> fmt::Result {
    metric.encode_family(&labels)?.encode_counter::<NoLabels, _, u64>(&value, None)
}

impl Page {
    fn backends(&self) -> impl Iterator<Item = (&str, &crate::api::types::BackendView)> {
        self.services.iter().flat_map(|s| s.backends.iter().map(|b| (s.name.as_str(), b)))
    }

    fn durations(&self, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        for (service, histogram) in &self.durations {
            let buckets: Vec<(f64, u64)> = histogram
                .buckets
                .iter()
                .enumerate()
                .map(|(i, count)| {
                    let last = i == DURATION_BUCKETS - 1;
                    let bound = if last { f64::MAX } else { (DURATION_TICK_MS << i) as f64 / 1000.0 };
                    (bound, *count)
                })
                .collect();
            let sum = self.clock.seconds(histogram.sum_jiffies);
            let count = histogram.buckets.iter().sum();
            let labels: &Labels<'_> = &[("service", service)];
            metric.encode_family(&labels)?.encode_histogram::<NoLabels>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        use MetricType::{Counter, Gauge};
        let e = &mut encoder;
        family(
            e,
            "flowpin_backend_active_connections",
            "Open connections pinned to the backend",
            Gauge,
            |m| {
                self.backends().try_for_each(|(s, b)| {
                    let active = i64::try_from(b.active_connections).unwrap_or(i64::MAX);
                    gauge(m, &[("service", s), ("backend", &b.address)], active)
                })
            },
        )?;
        let help = "Most open connections of a backend in use, for its weight, over the mean of all in use; 1 is even";
        family(e, "flowpin_service_imbalance", help, Gauge, |m| {
            self.services.iter().filter_map(|s| Some((s, s.imbalance?))).try_for_each(|(s, ratio)| {
                let labels: &Labels<'_> = &[("service", &s.name)];
                m.encode_family(&labels)?.encode_gauge(&ratio)
            })
        })?;
        let help = "Age of the oldest open connection, as of the last sweep";
        family(e, "flowpin_backend_oldest_connection_seconds", help, Gauge, |m| {
            self.backends().filter_map(|(s, b)| Some((s, b, b.oldest_seconds?))).try_for_each(
                |(s, b, age)| {
                    let labels: &Labels<'_> = &[("service", s), ("backend", &b.address)];
                    m.encode_family(&labels)?.encode_gauge(&age)
                },
            )
        })?;
        let help = "Seconds until a draining backend's deadline; negative when it has passed";
        family(e, "flowpin_backend_drain_deadline_seconds", help, Gauge, |m| {
            let draining = self.backends().filter_map(|(s, b)| Some((s, b, b.drain_deadline_seconds?)));
            draining.into_iter().try_for_each(|(s, b, left)| {
                let labels: &Labels<'_> = &[("service", s), ("backend", &b.address)];
                m.encode_family(&labels)?.encode_gauge(&left)
            })
        })?;
        family(e, "flowpin_backend_connections", "Connections pinned to the backend so far", Counter, |m| {
            self.backends().try_for_each(|(s, b)| {
                counter(m, &[("service", s), ("backend", &b.address)], b.total_connections)
            })
        })?;
        family(
            e,
            "flowpin_backend_bytes",
            "Bytes through the backend's connections, IP headers included",
            Counter,
            |m| {
                self.backends().try_for_each(|(s, b)| {
                    counter(m, &[("service", s), ("backend", &b.address), ("direction", "in")], b.bytes_in)?;
                    counter(m, &[("service", s), ("backend", &b.address), ("direction", "out")], b.bytes_out)
                })
            },
        )?;
        family(e, "flowpin_backend_packets", "Packets through the backend's connections", Counter, |m| {
            self.backends().try_for_each(|(s, b)| {
                counter(m, &[("service", s), ("backend", &b.address), ("direction", "in")], b.packets_in)?;
                counter(m, &[("service", s), ("backend", &b.address), ("direction", "out")], b.packets_out)
            })
        })?;
        family(
            e,
            "flowpin_backend_healthy",
            "1 if the backend passes its health check or has none",
            Gauge,
            |m| {
                self.backends().try_for_each(|(s, b)| {
                    gauge(m, &[("service", s), ("backend", &b.address)], i64::from(b.healthy))
                })
            },
        )?;
        family(e, "flowpin_backend_state", "1 for the state that the backend is in", Gauge, |m| {
            self.backends().try_for_each(|(s, b)| {
                ["active", "draining", "drained"].into_iter().try_for_each(|state| {
                    let labels: &Labels<'_> = &[("service", s), ("backend", &b.address), ("state", state)];
                    gauge(m, labels, i64::from(b.state == state))
                })
            })
        })?;
        family(e, "flowpin_backend_health_check_failures", "Failed health checks", Counter, |m| {
            self.backends().try_for_each(|(s, b)| {
                counter(m, &[("service", s), ("backend", &b.address)], b.health_check_failures)
            })
        })?;
        let help = "How long connections were open";
        family(e, "flowpin_connection_duration_seconds", help, MetricType::Histogram, |m| self.durations(m))?;
        family(
            e,
            "flowpin_conntrack_entries",
            "Flows in the flow tables, as of the last sweep",
            Gauge,
            |m| gauge(m, &[], i64::try_from(self.entries).unwrap_or(i64::MAX)),
        )?;
        family(e, "flowpin_conntrack_capacity", "Flows that each flow table has room for", Gauge, |m| {
            gauge(m, &[], i64::try_from(self.capacity).unwrap_or(i64::MAX))
        })?;
        let (bound, room) = self.clients;
        family(e, "flowpin_affinity_entries", "Clients in the affinity table", Gauge, |m| {
            gauge(m, &[], i64::try_from(bound).unwrap_or(i64::MAX))
        })?;
        family(e, "flowpin_affinity_capacity", "Clients that the affinity table has room for", Gauge, |m| {
            gauge(m, &[], i64::try_from(room).unwrap_or(i64::MAX))
        })?;
        family(
            e,
            "flowpin_backend_clients",
            "Clients bound to the backend that have a connection",
            Gauge,
            |m| {
                self.backends().filter_map(|(s, b)| Some((s, b, b.clients?))).try_for_each(
                    |(s, b, clients)| {
                        let clients = i64::try_from(clients).unwrap_or(i64::MAX);
                        gauge(m, &[("service", s), ("backend", &b.address)], clients)
                    },
                )
            },
        )?;
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
        let help = "1 for a service whose declaration, or that of some of its backends, is refused; see flowpin status";
        family(e, "flowpin_service_rejected", help, Gauge, |m| {
            let names: BTreeSet<(&str, &str)> =
                self.rejected.iter().map(|r| (r.service.as_str(), r.origin.as_str())).collect();
            names
                .into_iter()
                .try_for_each(|(service, origin)| gauge(m, &[("service", service), ("origin", origin)], 1))
        })?;
        let help = "Time from a change to its being in force";
        family(e, "flowpin_reconcile_duration_seconds", help, MetricType::Histogram, |m| {
            let labels: &Labels<'_> = &[];
            self.reconcile.encode(m.encode_family(&labels)?)
        })?;
        family(e, "flowpin_build_info", "Version and kernel", Gauge, |m| {
            gauge(m, &[("version", env!("CARGO_PKG_VERSION")), ("kernel", &self.kernel)], 1)
        })
    }
}
