//! How long what nodes tell each other takes.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Times, as histograms in seconds.
#[derive(Clone, Debug)]
pub struct SharingTimes {
    /// How old what was known of others was, once a second for each service.
    pub age: Histogram,
    /// From a report of new connections until another node's totals contained it.
    pub report: Histogram,
}

impl Default for SharingTimes {
    /// Nothing yet.
    fn default() -> Self {
        let report = [0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 250.0, 1_000.0];
        Self {
            age: Histogram::new(exponential_buckets(0.001, 2.0, 12)),
            report: Histogram::new(report.map(|ms: f64| ms / 1_000.0)),
        }
    }
}
