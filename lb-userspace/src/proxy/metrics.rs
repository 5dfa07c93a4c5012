//! Metrics under kube-proxy's names, for dashboards and alerts that know these.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        MetricType,
        histogram::{Histogram, exponential_buckets},
    },
};

use super::{ClusterState, Requests};
use crate::observe::metrics::node::{counter, family, gauge, real, real_counter};

/// See the module.
#[derive(Debug)]
pub struct ProxyMetrics {
    /// Of every change; of all of the cluster at once; of what has changed.
    sync: [Histogram; 3],
    programming: Histogram,
    /// Answers of /livez, /healthz: 503, 200.
    probes: [[AtomicU64; 2]; 2],
    /// EndpointSlices, Services: events.
    events: [AtomicU64; 2],
    /// When was a change told of, and in force, last: seconds since the Unix epoch.
    last: Mutex<[f64; 2]>,
    /// To the API server.
    pub requests: Requests,
}

/// Their names, in their order.
const SYNC: [(&str, &str); 3] = [
    ("kubeproxy_sync_proxy_rules_duration_seconds", "Time that a change takes to be in force"),
    ("kubeproxy_sync_full_proxy_rules_duration_seconds", "The same of all of the cluster at once"),
    ("kubeproxy_sync_partial_proxy_rules_duration_seconds", "The same of what has changed"),
];

impl Default for ProxyMetrics {
    fn default() -> Self {
        let sync = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let whole = (1..60).map(f64::from);
        let fives = (60..120).step_by(5).map(f64::from);
        let halves = (120..=300).step_by(30).map(f64::from);
        let programming = [0.25, 0.5].into_iter().chain(whole).chain(fives).chain(halves);
        Self {
            sync: [sync(), sync(), sync()],
            programming: Histogram::new(programming),
            probes: Default::default(),
            events: Default::default(),
            last: Mutex::default(),
            requests: Requests::default(),
        }
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl ProxyMetrics {
    /// A probe was answered.
    pub fn probed(&self, healthz: bool, good: bool) {
        self.probes[usize::from(healthz)][usize::from(good)].fetch_add(1, Ordering::Relaxed);
    }

    /// A change was told of: by so many events of EndpointSlices and of Services.
    pub fn told(&self, [slices, services]: [u64; 2]) {
        self.events[0].fetch_add(slices, Ordering::Relaxed);
        self.events[1].fetch_add(services, Ordering::Relaxed);
        self.last.lock().unwrap_or_else(PoisonError::into_inner)[0] = seconds(SystemTime::now());
    }

    /// It is in force. `whole`: all of the cluster; `triggers`: when it happened, in milliseconds since the Unix epoch.
    pub fn in_force(&self, whole: bool, took: Duration, triggers: &[u64]) {
        self.sync[0].observe(took.as_secs_f64());
        self.sync[if whole { 1 } else { 2 }].observe(took.as_secs_f64());
        let now = seconds(SystemTime::now());
        for trigger in triggers {
            self.programming.observe((now - Duration::from_millis(*trigger).as_secs_f64()).max(0.0));
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner)[1] = now;
    }

    /// Writes them.
    ///
    /// # Errors
    /// What is written to refuses.
    pub fn encode(
        &self,
        e: &mut DescriptorEncoder<'_>,
        cluster: &ClusterState,
        families: &[&str],
    ) -> fmt::Result {
        use MetricType::{Counter, Gauge};
        for ((name, help), histogram) in SYNC.into_iter().zip(&self.sync) {
            family(e, name, help, MetricType::Histogram, |m| {
                families
                    .iter()
                    .try_for_each(|family| histogram.encode(m.encode_family(&[("ip_family", *family)])?))
            })?;
        }
        let help = "Time from a change of endpoints in the cluster to its being in force here";
        family(e, "kubeproxy_network_programming_duration_seconds", help, MetricType::Histogram, |m| {
            families
                .iter()
                .try_for_each(|family| self.programming.encode(m.encode_family(&[("ip_family", *family)])?))
        })?;
        let [queued, applied] = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, help, value) in [
            (
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change was told of last",
                queued,
            ),
            (
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When a change came into force last",
                applied,
            ),
        ] {
            family(e, name, help, Gauge, |m| {
                families.iter().try_for_each(|family| real(m, &[("ip_family", family)], value))
            })?;
        }
        let pending = i64::from(cluster.waits_since.is_some());
        let count = |i: usize| i64::try_from(self.events[i].load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "Is a change waiting?", pending),
            ("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices", count(0)),
            ("kubeproxy_sync_proxy_rules_service_changes_pending", "Is a change waiting?", pending),
            ("kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services", count(1)),
        ] {
            family(e, name, help, Gauge, |m| gauge(m, &[], value))?;
        }
        let help = "Ports that drop clients for want of an endpoint on this node";
        family(e, "kubeproxy_sync_proxy_rules_no_local_endpoints_total", help, Gauge, |m| {
            ["internal", "external"].iter().zip(cluster.without_local).try_for_each(|(policy, ports)| {
                gauge(m, &[("traffic_policy", policy)], i64::try_from(ports).unwrap_or(i64::MAX))
            })
        })?;
        for (name, of) in [("kubeproxy_proxy_livez", 0), ("kubeproxy_proxy_healthz", 1)] {
            family(e, name, "Answers, by status", Counter, |m| {
                ["503", "200"].iter().zip(&self.probes[of]).try_for_each(|(code, count)| {
                    counter(m, &[("code", code)], count.load(Ordering::Relaxed))
                })
            })?;
        }
        self.requests.encode(e)?;
        process(e)
    }
}

/// What the process uses (proc(5)), under the names that all programs have.
fn process(e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (stat, memory) = (read("stat"), read("statm"));
    let field = |text: &str, at: usize| text.split_whitespace().nth(at).and_then(|f| f.parse::<f64>().ok());
    let of = |name| nix::unistd::sysconf(name).ok().flatten().map_or(1.0, |n| n as f64);
    let times = stat.rsplit(')').next().unwrap_or_default();
    let ticks = [11, 12].into_iter().filter_map(|at| field(times, at)).sum::<f64>();
    let resident = field(&memory, 1).unwrap_or(0.0) * of(nix::unistd::SysconfVar::PAGE_SIZE);
    let cpu = ticks / of(nix::unistd::SysconfVar::CLK_TCK);
    let help = "Memory of the agent that is resident";
    family(e, "process_resident_memory_bytes", help, MetricType::Gauge, |m| real(m, &[], resident))?;
    family(e, "process_cpu_seconds", "CPU time of the agent", MetricType::Counter, |m| real_counter(m, cpu))
}
