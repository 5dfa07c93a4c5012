//! When flows are over, as written.

use std::time::Duration;

use lb_common::expiry::Timeouts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time::{Time, optional};
use crate::model::{ModelError, TimeoutSpec};

/// A service's own timeouts; what is left out is the default, or no such timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsDecl {
    /// Open and silent in both directions. UDP too, unless it has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Time>,
    /// Open, and the client has never sent anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_request: Option<Time>,
    /// The client has sent something since the backend last did; up to 30 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_response: Option<Time>,
    /// Open, whatever it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Time>,
    /// Not open yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open: Option<Time>,
    /// Closed by one side, and silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_closed: Option<Time>,
    /// UDP, silent in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<Time>,
}

impl TimeoutsDecl {
    /// As a service has them.
    ///
    /// # Errors
    /// One is out of range.
    pub fn spec(&self) -> Result<TimeoutSpec, ModelError> {
        let longest = Duration::from_millis(Timeouts::MAX_RESPONSE_MS);
        let response = |t: &Time| t.within("timeouts.backend_response", longest, "from 1s to 30min");
        Ok(TimeoutSpec {
            idle: optional(&self.idle, "timeouts.idle")?,
            client_request: optional(&self.client_request, "timeouts.client_request")?,
            backend_response: self.backend_response.as_ref().map(response).transpose()?,
            max_age: optional(&self.max_age, "timeouts.max_age")?,
            half_open: optional(&self.half_open, "timeouts.half_open")?,
            half_closed: optional(&self.half_closed, "timeouts.half_closed")?,
            udp: optional(&self.udp, "timeouts.udp")?,
        })
    }
}

/// What is declared.
impl From<&TimeoutSpec> for TimeoutsDecl {
    fn from(spec: &TimeoutSpec) -> Self {
        let TimeoutSpec { idle, client_request, backend_response, max_age, half_open, half_closed, udp } =
            *spec;
        Self {
            idle: idle.map(Into::into),
            client_request: client_request.map(Into::into),
            backend_response: backend_response.map(Into::into),
            max_age: max_age.map(Into::into),
            half_open: half_open.map(Into::into),
            half_closed: half_closed.map(Into::into),
            udp: udp.map(Into::into),
        }
    }
}
