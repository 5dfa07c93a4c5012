//! What is said of an object: an Event, and a metric.

use std::{fmt, sync::Arc};

use crate::model::readable::readable;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An annotation of ours that isn't known, or whose value isn't.
    InvalidAnnotation,
    /// A protocol that can't be balanced.
    UnsupportedProtocol,
    /// An address, prefix or port that can't be one.
    InvalidAddress,
    /// Another Service has the address and port.
    Conflict,
    /// It can't be served as a whole.
    Refused,
}

impl Reason {
    /// As in Events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::InvalidAddress => "InvalidAddress",
            Self::Conflict => "AddressConflict",
            Self::Refused => "Refused",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Note {
    /// `Service`, `EndpointSlice` or `Namespace`.
    pub kind: &'static str,
    /// `namespace/name`
    pub object: Arc<str>,
    /// Why.
    pub reason: Reason,
    /// What is wrong, with what value, what would be right; one line.
    pub text: String,
}

impl Note {
    /// Of an object of this kind.
    pub fn new(kind: &'static str, object: &Arc<str>, reason: Reason, text: &str) -> Self {
        Self { kind, object: object.clone(), reason, text: readable(text) }
    }

    /// Of a Service.
    pub fn service(object: &Arc<str>, reason: Reason, text: String) -> Self {
        Self::new("Service", object, reason, &text)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.kind, self.object, self.reason.name(), self.text)
    }
}
