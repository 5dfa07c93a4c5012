//! Durations, as written.

use std::{fmt, time::Duration};

use lb_common::expiry::Timeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

use crate::model::ModelError;

/// A duration: `"15h"`, or a number of seconds, as which it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Time {
    /// Like `15h` or `1m 30s`.
    Text(String),
    /// In seconds.
    Seconds(f64),
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration like \"30s\", \"15m\" or \"3h\", or a number of seconds")
            }
            fn visit_str<E>(self, text: &str) -> Result<Time, E> {
                Ok(Time::Text(text.into()))
            }
            fn visit_i64<E>(self, seconds: i64) -> Result<Time, E> {
                Ok(Time::Seconds(seconds as f64))
            }
            fn visit_u64<E>(self, seconds: u64) -> Result<Time, E> {
                Ok(Time::Seconds(seconds as f64))
            }
            fn visit_f64<E>(self, seconds: f64) -> Result<Time, E> {
                Ok(Time::Seconds(seconds))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl From<Duration> for Time {
    fn from(duration: Duration) -> Self {
        Self::Seconds(duration.as_secs_f64())
    }
}

impl From<&str> for Time {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// As written, or `54000s`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Seconds(seconds) => write!(f, "{seconds}s"),
        }
    }
}

impl Time {
    /// Between a second and the longest that the flow table's stamps can measure. `what`: for the error.
    ///
    /// # Errors
    /// It isn't.
    pub fn duration(&self, what: &'static str) -> Result<Duration, ModelError> {
        self.within(what, Duration::from_millis(Timeouts::MAX_MS), "from 1s to 20days")
    }

    /// Between a second and another; `range` says so.
    ///
    /// # Errors
    /// It isn't.
    pub fn within(
        &self,
        what: &'static str,
        longest: Duration,
        range: &'static str,
    ) -> Result<Duration, ModelError> {
        self.between(what, Duration::from_secs(1), longest, range)
    }

    /// Between two durations; `range` says so.
    ///
    /// # Errors
    /// It isn't.
    pub fn between(
        &self,
        what: &'static str,
        shortest: Duration,
        longest: Duration,
        range: &'static str,
    ) -> Result<Duration, ModelError> {
        let value = match self {
            Self::Text(text) => humantime::parse_duration(text).ok(),
            Self::Seconds(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        };
        value.filter(|value| (shortest..=longest).contains(value)).ok_or_else(|| ModelError::Duration {
            what,
            text: self.to_string(),
            range,
        })
    }
}

/// [`Time::duration`] of what may be left out.
///
/// # Errors
/// As there.
pub fn optional(time: &Option<Time>, what: &'static str) -> Result<Option<Duration>, ModelError> {
    time.as_ref().map(|time| time.duration(what)).transpose()
}
