//! Connections that are moved so that backends that were added get their share.

use std::time::Duration;

use lb_cluster::rebalance::{Budget, Settings};

/// How a service is rebalanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebalanceSpec {
    /// Most connections that are moved, over all nodes.
    pub budget: Budget,
    /// How long a connection has been silent in both directions before it may be moved.
    pub idle: Duration,
    /// The fullest backend's load over the mean from which it begins, in hundredths; 100 and more.
    pub above: u32,
}

impl RebalanceSpec {
    /// How long connections are silent, unless somebody says otherwise.
    pub const IDLE: Duration = Duration::from_secs(30);
    /// From when on, unless somebody says otherwise.
    pub const ABOVE: u32 = 120;

    /// As who hands out connections wants them.
    ///
    /// # Panics
    /// `above` is less than 100, which no declaration leads to.
    pub fn settings(&self) -> Settings {
        Settings::new(self.budget, f64::from(self.above) / 100.0).expect("1 or more")
    }
}
