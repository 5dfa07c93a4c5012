//! All services in a few words each, and their totals: enough to find, to order and to add up, at 10,000 services too.

use std::{sync::Arc, time::Duration};

use lb_common::abi::{DURATION_BUCKETS, DurationHistogram, counters::DURATION_TICK_MS};
use serde::Serialize;

use super::{now, snapshot::Snapshot};
use crate::{
    agent::shared::State,
    api::types::{BackendView, ServiceView},
    datapath::Clock,
    model::{BackendSpec, ServiceSpec},
};

/// Backends that are named in [`Overview::attention`] at most.
const NAMED: usize = 50;

/// See the module.
#[derive(Debug, Default)]
pub struct Overview {
    /// All, by name.
    pub services: Vec<Entry>,
    /// All of them together.
    pub totals: Totals,
    /// Backends that take no new connections though they are declared: drained by somebody, or unhealthy. The first of them.
    pub attention: Vec<Attention>,
    /// How long connections were open.
    pub durations: Durations,
    /// CPU time that it took.
    pub cost: Duration,
}

/// A service.
#[derive(Debug)]
pub struct Entry {
    /// Name.
    pub name: Arc<str>,
    /// What a search looks at, in lower case: name, VIPs, ports, backends.
    pub text: String,
    /// Open connections.
    pub active: u64,
    /// Connections so far.
    pub total: u64,
    /// See [`now::imbalance`].
    pub imbalance: Option<f64>,
    /// Backends that fail their health check.
    pub unhealthy: u64,
    /// Backends that are draining or drained.
    pub drained: u64,
}

/// Of all services, or of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Services.
    pub services: u64,
    /// Backends.
    pub backends: u64,
    /// Those that fail their health check.
    pub unhealthy: u64,
    /// Those that somebody drains and that have connections.
    pub draining: u64,
    /// Those that somebody drained and that have none.
    pub drained: u64,
    /// Open connections.
    pub active_connections: u64,
    /// Connections so far.
    pub total_connections: u64,
    /// Client to backend.
    pub bytes_in: u64,
    /// Backend to client.
    pub bytes_out: u64,
}

/// A backend that somebody may want to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// Name.
    pub service: Arc<str>,
    /// Name.
    pub address: String,
    /// `active`, `draining`, `drained`.
    pub state: String,
    /// Health check's word.
    pub healthy: bool,
    /// Why the last health check that failed did.
    pub last_health_check_failure: Option<String>,
    /// Open connections.
    pub active_connections: u64,
    /// While draining: open connections when the drain began, if the agent was there then.
    pub drain_from: Option<u64>,
    /// While draining: seconds since the drain began.
    pub drain_seconds: Option<f64>,
    /// While draining: seconds until the deadline, if there is one.
    pub drain_deadline_seconds: Option<f64>,
}

impl Overview {
    /// Of all that is declared.
    pub fn new(state: &State, snapshot: &Snapshot) -> Self {
        let mut overview = Self::default();
        for spec in state.desired.services().values() {
            overview.add(spec, state, snapshot);
        }
        overview
    }

    fn add(&mut self, spec: &ServiceSpec, state: &State, snapshot: &Snapshot) {
        let mut entry = Entry::new(&spec.name);
        for frontend in &spec.frontends {
            frontend.addresses.iter().for_each(|address| entry.say(address));
            frontend.ports.iter().for_each(|port| entry.say(port));
        }
        let mut in_use = Vec::with_capacity(spec.backends.len());
        let mut totals = Totals::default();
        for now in now::backends(spec, state, snapshot) {
            entry.say(now.name);
            let counters = now.counted.counters;
            let moved = (counters.bytes_in, counters.bytes_out);
            totals.count(now.state, now.healthy, now.counted.active.into(), counters.connections, moved);
            if now.state == "active" && now.healthy {
                in_use.push((now.counted.active, now.spec.map_or(1, BackendSpec::share)));
            } else if self.attention.len() < NAMED {
                self.attention.push(Attention {
                    service: entry.name.clone(),
                    address: now.name.into(),
                    state: now.state.into(),
                    healthy: now.healthy,
                    last_health_check_failure: now.why.map(String::from),
                    active_connections: now.counted.active.into(),
                    drain_from: now.from,
                    drain_seconds: now.drained,
                    drain_deadline_seconds: now.left,
                });
            }
        }
        entry.imbalance = now::imbalance(in_use.into_iter());
        self.put(entry, &totals);
    }

    fn put(&mut self, mut entry: Entry, totals: &Totals) {
        entry.active = totals.active_connections;
        entry.total = totals.total_connections;
        entry.unhealthy = totals.unhealthy;
        entry.drained = totals.draining + totals.drained;
        self.totals.add(totals);
        self.services.push(entry);
    }
}

impl Entry {
    fn new(name: &str) -> Self {
        let text = name.to_lowercase();
        Self { name: name.into(), text, active: 0, total: 0, imbalance: None, unhealthy: 0, drained: 0 }
    }

    /// Has a search find it by this too.
    fn say(&mut self, what: impl std::fmt::Display) {
        use std::fmt::Write as _;
        // A String takes it all.
        let _ = write!(self.text, " {what}");
    }
}

impl Totals {
    /// Of a service's backends.
    pub fn of(backends: &[BackendView]) -> Self {
        let mut totals = Self::default();
        for b in backends {
            let moved = (b.bytes_in, b.bytes_out);
            totals.count(&b.state, b.healthy, b.active_connections, b.total_connections, moved);
        }
        Self { services: 1, ..totals }
    }

    fn count(&mut self, state: &str, healthy: bool, active: u64, total: u64, (sent, back): (u64, u64)) {
        self.services = 1;
        self.backends += 1;
        self.unhealthy += u64::from(!healthy);
        self.draining += u64::from(state == "draining");
        self.drained += u64::from(state == "drained");
        self.active_connections += active;
        self.total_connections += total;
        self.bytes_in += sent;
        self.bytes_out += back;
    }

    /// Adds another service's.
    pub fn add(&mut self, other: &Self) {
        self.services += 1;
        self.backends += other.backends;
        self.unhealthy += other.unhealthy;
        self.draining += other.draining;
        self.drained += other.drained;
        self.active_connections += other.active_connections;
        self.total_connections += other.total_connections;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// How long connections were open, of those that are over.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Durations {
    /// Sum of all, in seconds.
    pub sum_seconds: f64,
    /// How many.
    pub count: u64,
    /// By length: bucket `i` has those below 2^i × 0.064 s, the last one all longer ones.
    pub buckets: [u64; DURATION_BUCKETS],
    /// Half of them were shorter than this, in seconds: the bound of a bucket. `None`: there are none, or it is beyond all bounds.
    pub p50_seconds: Option<f64>,
    /// 99 % of them were.
    pub p99_seconds: Option<f64>,
}

impl Durations {
    /// Adds a service's.
    pub fn add(&mut self, histogram: &DurationHistogram, clock: Clock) {
        self.sum_seconds += clock.seconds(histogram.sum_jiffies);
        for (sum, count) in self.buckets.iter_mut().zip(histogram.buckets) {
            *sum += count;
        }
        self.count = self.buckets.iter().sum();
        (self.p50_seconds, self.p99_seconds) = (self.below(0.5), self.below(0.99));
    }

    /// The bound below which such a part is.
    fn below(&self, part: f64) -> Option<f64> {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut so_far = 0;
        let bucket = self.buckets.iter().position(|count| {
            so_far += count;
            so_far >= wanted && wanted > 0
        })?;
        (bucket < DURATION_BUCKETS - 1).then(|| (DURATION_TICK_MS << bucket) as f64 / 1000.0)
    }
}

/// Some services, with counts of one moment.
#[derive(Debug)]
pub struct Shown {
    /// Those that are there, in the order in which they were asked for.
    pub services: Vec<ServiceView>,
    /// If one was asked for: how long its connections were open.
    pub durations: Durations,
    /// CPU time that it took.
    pub cost: Duration,
}

/// CPU time that this thread has had.
pub fn cpu_time() -> Duration {
    // The kernel has this clock for every thread.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let mut durations = Durations::default();
        durations.add(&DurationHistogram::default(), Clock::at(250));
        assert_eq!((durations.count, durations.p50_seconds), (0, None));
        let mut histogram = DurationHistogram { sum_jiffies: 500, ..Default::default() };
        (histogram.buckets[0], histogram.buckets[4]) = (50, 49);
        durations.add(&histogram, Clock::at(250));
        assert_eq!((durations.sum_seconds, durations.count), (2.0, 99));
        assert_eq!((durations.p50_seconds, durations.p99_seconds), (Some(0.064), Some(1.024)));
        let mut longest = DurationHistogram::default();
        longest.buckets[DURATION_BUCKETS - 1] = 900;
        durations.add(&longest, Clock::at(250));
        assert_eq!(durations.p50_seconds, None, "the last bucket has no bound");
    }
}
