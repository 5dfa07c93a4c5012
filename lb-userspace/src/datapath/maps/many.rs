//! What the maps say of many backends and services, in few system calls.

use lb_common::abi::{BLOCK_SLOTS, BackendCounters, BackendId, DurationHistogram, limits, maps};

use super::Maps;
use crate::datapath::{DatapathError, batch, counts::AllCounts};

impl Maps {
    /// Active connections of all backends in the first so many blocks, as of one moment.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn all_active(&self, blocks: u32) -> Result<AllCounts, DatapathError> {
        self.active.all(blocks)
    }

    /// The same of their clients.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn all_clients(&self, blocks: u32) -> Result<AllCounts, DatapathError> {
        self.clients.all(blocks)
    }

    /// Counters of some backends: one by one, or of all with them if they are many.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters_of(&self, ids: &[BackendId]) -> Result<Vec<BackendCounters>, DatapathError> {
        let blocks = ids.iter().map(|id| id.block() + 1).max().unwrap_or(0);
        if ids.len() <= blocks as usize {
            return Ok(ids.iter().map(|id| self.counters(*id)).collect());
        }
        let all = self.all_counters(blocks)?;
        Ok(ids.iter().map(|id| all.get(id.0 as usize).copied().unwrap_or_default()).collect())
    }

    /// Counters of all backends in the first so many blocks, by id.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn all_counters(&self, blocks: u32) -> Result<Vec<BackendCounters>, DatapathError> {
        let count = blocks.min(limits::MAX_BLOCKS) * BLOCK_SLOTS as u32;
        let mut all = Vec::with_capacity(count as usize);
        batch::read(&self.counters_data, maps::BACKEND_COUNTERS, 0, count, self.cpus, |some| {
            let sum = |copies: &[BackendCounters]| {
                copies.iter().fold(BackendCounters::default(), |s, c| s.plus(*c))
            };
            all.extend(some.chunks(self.cpus).map(sum));
        })?;
        Ok(all)
    }

    /// Connection durations of the first so many services, by id.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn all_durations(&self, services: u32) -> Result<Vec<DurationHistogram>, DatapathError> {
        let mut all = Vec::with_capacity(services as usize);
        let visit = |some: &[DurationHistogram]| all.extend_from_slice(some);
        batch::read(&self.durations_data, maps::DURATIONS, 0, services.min(limits::MAX_SERVICES), 1, visit)?;
        Ok(all)
    }
}
