//! Requests to the API server, counted under the names that Kubernetes' own programs give them
//! (k8s.io/component-base/metrics/prometheus/restclient/metrics.go).

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::Counter, family::Family, histogram::Histogram},
};

type Labels = Vec<(&'static str, String)>;

/// Seconds; upper ends.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// See the module.
#[derive(Clone, Debug)]
pub struct Requests {
    answers: Family<Labels, Counter>,
    took: Family<Labels, Histogram>,
}

impl Default for Requests {
    fn default() -> Self {
        let took = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        Self { answers: Family::default(), took }
    }
}

impl Requests {
    /// One was answered, or broke off (`code`: none), after so long; a watch when its answer has begun.
    pub fn ended(&self, host: &str, method: &str, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "<error>".into(), |code| code.to_string());
        let of = |first: (&'static str, String)| vec![first, ("host", host.into())];
        let mut answer = of(("code", code));
        answer.push(("method", method.into()));
        self.answers.get_or_create(&answer).inc();
        self.took.get_or_create(&of(("verb", method.into()))).observe(took.as_secs_f64());
    }

    /// Writes them.
    ///
    /// # Errors
    /// What is written to refuses.
    pub fn encode(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests to the API server, by status; <error>: it couldn't be reached, or broke off";
        self.answers.encode(e.encode_descriptor(
            "rest_client_requests",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let (name, help) =
            ("rest_client_request_duration_seconds", "Time until the API server's answer begins");
        self.took.encode(e.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }
}
