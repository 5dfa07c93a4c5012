//! A service's own timeouts.

use std::time::Duration;

use lb_common::expiry::Timeouts;

/// What a service declares; `None`: the default, or no such timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutSpec {
    /// Open and silent in both directions. UDP too, unless it has its own.
    pub idle: Option<Duration>,
    /// Open, and the client has never sent anything.
    pub client_request: Option<Duration>,
    /// The client has sent something since the backend last did.
    pub backend_response: Option<Duration>,
    /// Open, whatever it does.
    pub max_age: Option<Duration>,
    /// Not open yet.
    pub half_open: Option<Duration>,
    /// Closed by one side, and silent.
    pub half_closed: Option<Duration>,
    /// UDP, silent in both directions.
    pub udp: Option<Duration>,
}

impl TimeoutSpec {
    /// As the sweeper goes by them.
    pub fn limits(&self) -> Timeouts {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let or = |own: Option<Duration>, default| own.map_or(default, millis);
        let default = Timeouts::DEFAULT;
        Timeouts {
            half_open: or(self.half_open, default.half_open),
            idle: or(self.idle, default.idle),
            half_closed: or(self.half_closed, default.half_closed),
            closed: default.closed,
            udp: or(self.udp.or(self.idle), default.udp),
            client_request: self.client_request.map(millis),
            backend_response: self.backend_response.map(millis),
            max_age: self.max_age.map(millis),
        }
    }

    /// Those that only TCP can reach, by name.
    pub fn only_tcp(&self) -> impl Iterator<Item = &'static str> {
        [
            ("client_request", self.client_request),
            ("backend_response", self.backend_response),
            ("max_age", self.max_age),
            ("half_open", self.half_open),
            ("half_closed", self.half_closed),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|_| name))
    }
}
