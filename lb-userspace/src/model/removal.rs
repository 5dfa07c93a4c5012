//! What becomes of open connections of backends that are not to be used any more.

use std::{collections::BTreeMap, time::Duration};

use super::ModelError;

/// What becomes of a backend's open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RemovalPolicy {
    /// Nobody has said: connections stay until they end by themselves. UDP flows, of which nothing is lost by it, go to another backend if there is
    /// one that takes them.
    #[default]
    Usual,
    /// They stay until they end by themselves, UDP flows too.
    Keep,
    /// They stay, and the operator sees how many are left.
    Drain,
    /// Both ends are reset.
    Reset,
}

impl RemovalPolicy {
    /// As in config, CLI and JSON; `None`: it isn't said there.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::Keep => Some("keep"),
            Self::Drain => Some("drain"),
            Self::Reset => Some("reset"),
        }
    }

    /// From its name; `what` is for the error. `drain` is for a removal only: elsewhere the backend is shown anyway.
    ///
    /// # Errors
    /// There are only three.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, ModelError> {
        match text {
            "keep" => Ok(Self::Keep),
            "drain" if what == "on_removal" => Ok(Self::Drain),
            "reset" => Ok(Self::Reset),
            _ => Err(ModelError::NotKnown {
                what,
                text: text.into(),
                known: if what == "on_removal" { "keep, drain or reset" } else { "keep or reset" },
            }),
        }
    }
}

/// The same, by occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RemovalPolicies {
    /// The backend is no longer declared.
    pub removal: RemovalPolicy,
    /// How long they may go on then; `None`: until they end.
    pub removal_deadline: Option<Duration>,
    /// It fails its health checks.
    pub unhealthy: RemovalPolicy,
    /// Its drain's deadline has passed.
    pub deadline: RemovalPolicy,
}

/// A backend that is no longer declared and whose connections have a deadline, by [`uptime`](super::uptime).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// When it was removed.
    pub since: Duration,
    /// When what is left is reset.
    pub end: Duration,
}

/// Those of all services, by service and name.
pub type Departures = BTreeMap<String, BTreeMap<String, Departure>>;
