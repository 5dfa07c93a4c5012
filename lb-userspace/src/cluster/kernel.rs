//! The kernel, as the mesh knows it: what others have is written for each backend.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use lb_cluster::{
    ServiceKey,
    agent::{Pool, Words},
};

use super::pools::Pools;
use crate::{agent::shared::Shared, datapath::others::Others};

/// See the module.
pub struct Writer {
    /// Where backends lie.
    pub pools: Arc<RwLock<Pools>>,
    /// What is written.
    pub others: Arc<Others>,
    /// Own counts, and the time.
    pub shared: Arc<Shared>,
}

impl lb_mesh::Kernel for Writer {
    fn write(&mut self, service: ServiceKey, words: &dyn Fn(&Pool, &[u32]) -> Words) {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let Some(service) = pools.get(service) else { return };
        let own: Vec<u32> =
            service.backends.iter().map(|backend| self.shared.maps.active(backend.id)).collect();
        let words = words(&service.pool(), &own);
        for (backend, word) in service.backends.iter().zip(words.words) {
            self.others.write(backend.id, word);
        }
    }

    fn extend(&mut self, valid_for: Duration) {
        let clock = self.shared.clock;
        let jiffies = valid_for.as_millis() as u64 * u64::from(clock.hz) / 1_000;
        self.others.extend(clock.now() + jiffies);
    }

    fn reported(&mut self, took: Duration) {
        self.shared.sharing_times.report.observe(took.as_secs_f64());
    }
}
