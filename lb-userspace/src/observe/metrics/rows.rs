//! What the metrics page says of services and backends: taken at one moment, so that it can be written without holding anybody
//! up.

use std::fmt::Write as _;

use lb_common::abi::{BackendCounters, DurationHistogram};

use super::super::{
    now::{self, Now},
    snapshot::Snapshot,
};
use crate::{agent::shared::State, model::ServiceSpec};

/// See the module.
#[derive(Debug, Default)]
pub struct Rows {
    /// The labels of all, one after the other.
    text: String,
    /// Services, in order.
    pub services: Vec<ServiceRow>,
    /// Their backends, in order.
    pub backends: Vec<BackendRow>,
}

/// Where labels are in the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels(u32, u32);

/// A service.
#[derive(Debug, Default)]
pub struct ServiceRow {
    /// `service="app"`
    pub labels: Labels,
    /// See [`now::imbalance`].
    pub imbalance: Option<f64>,
}

/// A backend.
#[derive(Debug, Default)]
pub struct BackendRow {
    /// `service="app",backend="10.0.0.1:80"`
    pub labels: Labels,
    /// `active`, `draining`, `drained`.
    pub state: &'static str,
    /// Health check's word.
    pub healthy: bool,
    /// Health checks that failed.
    pub failures: u64,
    /// Open connections.
    pub active: u32,
    /// With affinity: clients bound to it.
    pub clients: Option<u32>,
    /// What came by.
    pub counters: BackendCounters,
    /// Seconds that its oldest connection has been open.
    pub oldest: Option<f64>,
    /// Seconds until its drain's deadline.
    pub left: Option<f64>,
}

/// Durations of one service's connections.
#[derive(Debug)]
pub struct DurationRow {
    /// `service="app"`
    pub labels: String,
    /// They.
    pub histogram: DurationHistogram,
}

impl DurationRow {
    /// Of a service by this name.
    pub fn new(service: &str, histogram: DurationHistogram) -> Self {
        let mut labels = String::new();
        label(&mut labels, "service", service);
        Self { labels, histogram }
    }
}

impl Rows {
    /// A service, and its backends.
    pub fn add(&mut self, spec: &ServiceSpec, state: &State, snapshot: &Snapshot) {
        let backends: Vec<Now<'_>> = now::backends(spec, state, snapshot).collect();
        self.add_service(&spec.name, now::imbalance(&backends));
        for now in backends {
            let (oldest, Now { name, state, healthy, failures, counted, clients, left, .. }) =
                (now.oldest(), now);
            let (active, counters) = (counted.active, counted.counters);
            let labels = Labels::default();
            let row =
                BackendRow { labels, state, healthy, failures, active, clients, counters, oldest, left };
            self.add_backend(&spec.name, name, row);
        }
    }

    /// A service.
    pub fn add_service(&mut self, name: &str, imbalance: Option<f64>) {
        let labels = self.labels(&[("service", name)]);
        self.services.push(ServiceRow { labels, imbalance });
    }

    /// A backend, with the labels that are due to it.
    pub fn add_backend(&mut self, service: &str, name: &str, row: BackendRow) {
        let labels = self.labels(&[("service", service), ("backend", name)]);
        self.backends.push(BackendRow { labels, ..row });
    }

    fn labels(&mut self, labels: &[(&str, &str)]) -> Labels {
        let start = self.text.len();
        for (i, (name, value)) in labels.iter().enumerate() {
            if i > 0 {
                self.text.push(',');
            }
            label(&mut self.text, name, value);
        }
        // Names of 10,000 services and 262,144 backends are far less than 4 GiB.
        Labels(start as u32, self.text.len() as u32)
    }

    /// Labels as text.
    pub fn text(&self, labels: Labels) -> &str {
        self.text.get(labels.0 as usize..labels.1 as usize).unwrap_or_default()
    }
}

/// `name="value"`, with what the format wants escaped.
pub fn label(text: &mut String, name: &str, value: &str) {
    // Writing to a string can't fail.
    let _ = write!(text, "{name}=\"");
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut rows = Rows::default();
        rows.add_service("a\"b\\c\nd", None);
        assert_eq!(rows.text(rows.services[0].labels), r#"service="a\"b\\c\nd""#);
        rows.add_backend("s", "10.0.0.1:80", BackendRow::default());
        assert_eq!(rows.text(rows.backends[0].labels), r#"service="s",backend="10.0.0.1:80""#);
    }
}
