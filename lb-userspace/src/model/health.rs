//! How a service's backends are checked, and what is known of them besides what is declared.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_probes::{Conversation, MySql, Postgres, Redis};

use super::Protocol;

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// That it accepts a connection.
    Tcp,
    /// That it answers a GET, of each path.
    Http {
        /// By TLS. Whoever answers will do: the check is of the backend's health, not of its identity.
        tls: bool,
        /// Paths, as in the request line, in the order in which they are asked for; at least one.
        paths: Vec<String>,
        /// The host asked for (`Host`, and TLS' server name); `None`: the address.
        host: Option<String>,
        /// The statuses that are good.
        expect: Vec<RangeInclusive<u16>>,
    },
    /// That it says SERVING by gRPC's health checking protocol, in clear text.
    Grpc {
        /// The service asked about; empty: the server as a whole.
        service: String,
    },
    /// That it answers a datagram, or doesn't refuse an empty one.
    Udp {
        /// What is sent; empty: no answer is waited for.
        send: String,
    },
    /// That it answers a conversation as is expected.
    Talk(Conversation),
    /// That it answers as Redis, and has its role.
    Redis(Redis),
    /// That it takes logins as PostgreSQL, and has its role.
    Postgres(Postgres),
    /// That it takes logins as MySQL.
    MySql(MySql),
    /// That a program on this node ends with status 0. Only the config file can say so.
    Exec {
        /// The program's path and its arguments, with `{address}` and `{port}` for the backend's.
        command: Vec<String>,
    },
}

impl Probe {
    /// What it is asked by, the first that the service has.
    pub const fn protocols(&self) -> &'static [Protocol] {
        match self {
            Self::Udp { .. } => &[Protocol::Udp],
            Self::Tcp | Self::Http { .. } | Self::Grpc { .. } => &[Protocol::Tcp],
            Self::Talk(_) | Self::Redis(_) | Self::Postgres(_) | Self::MySql(_) => &[Protocol::Tcp],
            Self::Exec { .. } => &[Protocol::Tcp, Protocol::Udp],
        }
    }
}

/// Statuses of HTTP as they are written: `200`, `200-399`, or `200,404`.
pub fn statuses(ranges: &[RangeInclusive<u16>]) -> String {
    let written = |range: &RangeInclusive<u16>| {
        let (first, last) = (range.start(), range.end());
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(written).collect::<Vec<_>>().join(",")
}

/// How backends are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSpec {
    /// What is asked.
    pub probe: Probe,
    /// Where; `None`: at the backend's own port.
    pub port: Option<u16>,
    /// From the end of a check to the beginning of the next one, give or take a tenth.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good checks in a row that bring a backend back.
    pub rise: u32,
    /// Bad checks in a row that take it out.
    pub fall: u32,
    /// Do refused and unanswered connections of clients take it out as well?
    pub passive: bool,
    /// If less than so many of a hundred backends are healthy, all are used. 0: never.
    pub panic: u8,
}

/// What is known of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthState {
    /// Health check's word; true where there is none.
    pub healthy: bool,
    /// An earlier agent gave it nothing, and why isn't known: it may be that it was healthy, and its service short of
    /// its quorum. Until a check has its say it is taken for unhealthy, and its connections stay.
    pub assumed: bool,
    /// Since when it has been taking new flows again, while it is given only a part of its weight.
    pub ramp: Option<Instant>,
}

impl Default for HealthState {
    fn default() -> Self {
        Self { healthy: true, assumed: false, ramp: None }
    }
}

/// Weights are multiplied by this while any backend of a service is in its slow start, so that a weight of 1 has parts.
const PARTS: u32 = 100;

/// What is known of backends, by service and name. Who isn't in it is healthy and has all its weight. A copy costs little.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthStates {
    by_service: HashMap<String, Arc<HashMap<String, HealthState>>>,
}

impl HealthStates {
    /// Of one backend.
    pub fn of(&self, service: &str, backend: &str) -> HealthState {
        self.by_service.get(service).and_then(|s| s.get(backend)).copied().unwrap_or_default()
    }

    /// Of one backend, to be changed.
    pub fn entry(&mut self, service: &str, backend: &str) -> &mut HealthState {
        Arc::make_mut(self.by_service.entry(service.into()).or_default()).entry(backend.into()).or_default()
    }

    /// Forgets who is no longer `declared`.
    pub fn keep(&mut self, declared: impl Fn(&str, &str) -> bool) {
        self.by_service.retain(|service, backends| {
            if backends.keys().any(|backend| !declared(service, backend)) {
                Arc::make_mut(backends).retain(|backend, _| declared(service, backend));
            }
            !backends.is_empty()
        });
    }

    /// The same of one service.
    pub fn keep_of(&mut self, service: &str, declared: impl Fn(&str) -> bool) {
        let Some(backends) = self.by_service.get_mut(service) else { return };
        Arc::make_mut(backends).retain(|backend, _| declared(backend));
        if backends.is_empty() {
            self.by_service.remove(service);
        }
    }

    /// Is any backend in its slow start?
    pub fn any_ramping(&self) -> bool {
        self.by_service.values().any(|backends| any_ramps(backends))
    }

    /// Services that have backends in their slow start.
    pub fn ramping(&self) -> Vec<String> {
        self.by_service
            .iter()
            .filter(|(_, backends)| any_ramps(backends))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Ends the slow starts of a service that are over.
    pub fn end_ramps(&mut self, service: &str, slow_start: Option<Duration>, now: Instant) {
        let Some(backends) = self.by_service.get_mut(service) else { return };
        for state in Arc::make_mut(backends).values_mut() {
            if state.ramp.is_some_and(|since| part(since, slow_start, now) >= PARTS) {
                state.ramp = None;
            }
        }
    }

    /// What is known of the backends of one service now. `slow_start`: the service's.
    pub fn of_service(&self, service: &str, slow_start: Option<Duration>, now: Instant) -> ServiceHealth<'_> {
        let known = self.by_service.get(service).map(Arc::as_ref);
        ServiceHealth { known, ramps: known.is_some_and(any_ramps), slow_start, now }
    }
}

/// See [`HealthStates::of_service`].
#[derive(Clone, Copy)]
pub struct ServiceHealth<'a> {
    known: Option<&'a HashMap<String, HealthState>>,
    /// Is any of its backends in its slow start?
    ramps: bool,
    slow_start: Option<Duration>,
    now: Instant,
}

impl ServiceHealth<'_> {
    /// Is a backend healthy?
    pub fn is_healthy(&self, backend: &str) -> bool {
        self.of(backend).healthy
    }

    /// The weight in force of a backend that would have `weight`. `panic`: whether it is healthy doesn't matter.
    pub fn weight(&self, backend: &str, weight: u32, panic: bool) -> u32 {
        let state = self.of(backend);
        if !state.healthy && !panic {
            return 0;
        }
        if !self.ramps {
            return weight;
        }
        weight * state.ramp.map_or(PARTS, |since| part(since, self.slow_start, self.now))
    }

    fn of(&self, backend: &str) -> HealthState {
        self.known.and_then(|known| known.get(backend)).copied().unwrap_or_default()
    }
}

/// Is any of a service's backends in its slow start?
fn any_ramps(backends: &HashMap<String, HealthState>) -> bool {
    backends.values().any(|state| state.ramp.is_some())
}

/// How many parts of its weight a backend has: as many as of its slow start have gone by, at least one.
fn part(since: Instant, slow_start: Option<Duration>, now: Instant) -> u32 {
    let whole = slow_start.unwrap_or_default().as_millis().max(1);
    let gone = now.saturating_duration_since(since).as_millis();
    u32::try_from(gone * u128::from(PARTS) / whole).unwrap_or(PARTS).clamp(1, PARTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slow_start_only_grows_and_ends_at_the_weight(weight in 1u32..65_536, seconds in 1u64..3_600) {
            let (start, whole) = (Instant::now(), Duration::from_secs(seconds));
            let mut health = HealthStates::default();
            health.entry("s", "new").ramp = Some(start);
            let at = |s: &HealthStates, backend: &str, gone| {
                s.of_service("s", Some(whole), start + gone).weight(backend, weight, false)
            };
            let mut last = 0;
            for percent in 0..=100u32 {
                let now = at(&health, "new", whole * percent / 100);
                prop_assert!(now >= last && now > 0 && now <= at(&health, "old", Duration::ZERO));
                last = now;
            }
            prop_assert_eq!(last, at(&health, "old", whole));
            health.end_ramps("s", Some(whole), start + whole);
            prop_assert_eq!(at(&health, "new", whole), weight);
        }
    }

    #[test]
    fn an_unhealthy_backend_weighs_nothing() {
        let mut health = HealthStates::default();
        health.entry("s", "b").healthy = false;
        let weight = |health: &HealthStates, backend: &str, panic| {
            health.of_service("s", None, Instant::now()).weight(backend, 7, panic)
        };
        assert_eq!(weight(&health, "b", false), 0);
        assert_eq!(weight(&health, "b", true), 7);
        assert_eq!(weight(&health, "other", false), 7);
        health.keep(|_, _| false);
        assert_eq!(weight(&health, "b", false), 7);
    }
}
