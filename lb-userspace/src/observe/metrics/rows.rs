//! What the metrics page says of services and backends, but for what is counted: kept while nothing changes, so that a scrape
//! has only to read the counts.

use std::{ops::Range, time::Duration};

use lb_common::abi::{BackendCounters, BackendId, ServiceId};

use super::super::{
    now::{self, Known},
    snapshot::Snapshot,
};
use crate::{agent::shared::State, model::BackendSpec};

/// See the module.
#[derive(Debug, Default)]
pub struct Rows {
    /// The labels of all, one after the other.
    text: String,
    /// Services, in order.
    pub services: Vec<ServiceRow>,
    /// Their backends, in order.
    pub backends: Vec<BackendRow>,
    /// Services that are in force, in the order of their ids.
    pub in_force: Vec<(ServiceId, Labels)>,
}

/// Where labels are in the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels(u32, u32);

/// A service.
#[derive(Debug)]
pub struct ServiceRow {
    /// `service="app"`
    pub labels: Labels,
    /// Is its quorum met? `None`: it has none.
    pub quorum: Option<bool>,
    /// Its backends' rows.
    backends: Range<usize>,
}

/// A backend.
#[derive(Debug, Default)]
pub struct BackendRow {
    /// `service="app",backend="10.0.0.1:80"`
    pub labels: Labels,
    /// `None`: it isn't in force.
    pub id: Option<BackendId>,
    /// For its share.
    pub weight: u16,
    /// Is it declared? If not, it is of interest while it has connections.
    pub declared: bool,
    /// May it take new connections, as far as the operator is concerned?
    pub takes_new: bool,
    /// Health check's word.
    pub healthy: bool,
    /// Does nothing come back from it?
    pub one_way: bool,
    /// Has its service affinity?
    pub affinity: bool,
    /// Health checks that failed.
    pub failures: u64,
    /// By `model::uptime`, its drain's deadline.
    pub deadline: Option<Duration>,
}

/// A backend's row, with what is counted.
#[derive(Clone, Copy)]
pub struct Backend<'a> {
    /// The row.
    pub row: &'a BackendRow,
    /// The counts.
    pub snapshot: &'a Snapshot,
}

impl Backend<'_> {
    /// Open connections.
    pub fn active(&self) -> u32 {
        self.row.id.map_or(0, |id| self.snapshot.active(id))
    }

    /// What it is to connections.
    pub fn state(&self) -> now::State {
        now::State::new(self.row.takes_new, self.row.declared, self.active())
    }

    /// With affinity: clients bound to it.
    pub fn clients(&self) -> Option<u32> {
        self.row.affinity.then(|| self.row.id.map_or(0, |id| self.snapshot.clients(id)))
    }

    /// What came by.
    pub fn counters(&self) -> BackendCounters {
        self.row.id.map_or_else(BackendCounters::default, |id| self.snapshot.counters(id))
    }

    /// Seconds that its oldest connection has been open.
    pub fn oldest(&self) -> Option<f64> {
        Some(self.snapshot.oldest(self.row.id?)? as f64 / 1000.0)
    }

    /// Does the page say anything of it?
    pub fn is_shown(&self) -> bool {
        self.row.declared || self.active() > 0
    }
}

/// A service's row, with its backends and what is counted.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// All rows.
    pub rows: &'a Rows,
    /// Which one.
    pub row: &'a ServiceRow,
    /// The counts.
    pub snapshot: &'a Snapshot,
}

impl Service<'_> {
    /// See [`now::imbalance`].
    pub fn imbalance(&self) -> Option<f64> {
        let backends = self.rows.backends[self.row.backends.clone()].iter();
        let in_use = backends.filter(|row| row.takes_new && row.healthy);
        now::imbalance(in_use.map(|row| (Backend { row, snapshot: self.snapshot }.active(), row.weight)))
    }
}

impl Rows {
    /// Of all that is declared and in force.
    pub fn new(state: &State) -> Self {
        let mut rows = Self::default();
        for spec in state.desired.services().values() {
            rows.add(&spec.name, now::known(spec, state), spec.affinity.is_some());
            let met = || state.known().short_of_quorum(spec).is_none();
            if let Some(row) = rows.services.last_mut() {
                row.quorum = (spec.quorum > 1).then(met);
            }
        }
        for (id, service) in state.actual().services() {
            let labels = rows.labels(&[("service", &service.name)]);
            rows.in_force.push((*id, labels));
        }
        rows
    }

    /// A service, and its backends.
    pub fn add<'a>(&mut self, service: &str, backends: impl Iterator<Item = Known<'a>>, affinity: bool) {
        let from = self.backends.len();
        for known in backends {
            let labels = self.labels(&[("service", service), ("backend", known.name)]);
            self.backends.push(BackendRow {
                labels,
                id: known.id,
                weight: known.spec.map_or(1, BackendSpec::share),
                declared: known.spec.is_some(),
                takes_new: known.takes_new(),
                healthy: known.healthy,
                one_way: known.one_way,
                affinity,
                failures: known.failures,
                deadline: known.deadline(),
            });
        }
        let labels = self.labels(&[("service", service)]);
        self.services.push(ServiceRow { labels, quorum: None, backends: from..self.backends.len() });
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
    text.push_str(name);
    text.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | b'\n')) {
        text.push_str(&rest[..at]);
        text.push_str(match rest.as_bytes()[at] {
            b'"' => "\\\"",
            b'\n' => "\\n",
            _ => "\\\\",
        });
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut rows = Rows::default();
        let backend = Known {
            name: "10.0.0.1:80",
            spec: None,
            id: None,
            healthy: true,
            one_way: false,
            failures: 0,
            why: None,
            from: None,
            removed: None,
        };
        rows.add("a\"b\\c\nd", [backend].into_iter(), false);
        assert_eq!(rows.text(rows.services[0].labels), r#"service="a\"b\\c\nd""#);
        assert_eq!(rows.text(rows.backends[0].labels), r#"service="a\"b\\c\nd",backend="10.0.0.1:80""#);
    }
}
