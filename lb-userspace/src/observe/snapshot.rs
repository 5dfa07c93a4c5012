//! All counts of one moment. Whoever shows or sums them up takes one, so that no figure of a page is older than another, and
//! nobody asks the kernel for one backend after the other.

use std::sync::Arc;

use lb_common::abi::{BackendCounters, BackendId};

use crate::{
    conntrack::Census,
    datapath::{DatapathError, Maps, counts::AllCounts},
};

/// See the module.
#[derive(Default)]
pub struct Snapshot {
    active: AllCounts,
    clients: AllCounts,
    counters: Counters,
    census: Arc<Census>,
}

enum Counters {
    /// Of all backends, by id.
    All(Vec<BackendCounters>),
    /// Of those that were asked for.
    Some(Vec<(BackendId, BackendCounters)>),
}

impl Default for Counters {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

/// A backend's counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Open connections.
    pub active: u32,
    /// Clients that are bound to it and have an open flow.
    pub clients: u32,
    /// What came by.
    pub counters: BackendCounters,
    /// Age in milliseconds of its oldest open connection, as of the last census; `None`: it has none.
    pub oldest: Option<u64>,
}

impl Snapshot {
    /// Of all backends in the first so many blocks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take(maps: &Maps, census: Arc<Census>, blocks: u32) -> Result<Self, DatapathError> {
        Ok(Self {
            active: maps.all_active(blocks)?,
            clients: maps.all_clients(blocks)?,
            counters: Counters::All(maps.all_counters(blocks)?),
            census,
        })
    }

    /// Of these backends: for one service or backend.
    pub fn of(maps: &Maps, census: Arc<Census>, ids: &[BackendId]) -> Self {
        Self {
            active: ids.iter().map(|id| (*id, maps.active(*id))).collect(),
            clients: ids.iter().map(|id| (*id, maps.clients(*id))).collect(),
            counters: Counters::Some(ids.iter().map(|id| (*id, maps.counters(*id))).collect()),
            census,
        }
    }

    /// A backend's; `None`: one that has no id yet has none.
    pub fn backend(&self, id: Option<BackendId>) -> Counted {
        let Some(id) = id else { return Counted::default() };
        Counted {
            active: self.active(id),
            clients: self.clients(id),
            counters: self.counters(id),
            oldest: self.oldest(id),
        }
    }

    /// Its open connections.
    pub fn active(&self, id: BackendId) -> u32 {
        self.active.of(id)
    }

    /// Clients that are bound to it and have an open flow.
    pub fn clients(&self, id: BackendId) -> u32 {
        self.clients.of(id)
    }

    /// What came by.
    pub fn counters(&self, id: BackendId) -> BackendCounters {
        let counters = match &self.counters {
            Counters::All(all) => all.get(id.0 as usize).copied(),
            Counters::Some(some) => some.iter().find(|(one, _)| *one == id).map(|(_, counters)| *counters),
        };
        counters.unwrap_or_default()
    }

    /// See [`Counted`].
    pub fn oldest(&self, id: BackendId) -> Option<u64> {
        self.census.oldest.get(&id).copied().filter(|_| self.active(id) > 0)
    }

    /// Of backends that have so many open connections each.
    #[cfg(test)]
    pub fn with_active(active: &[(BackendId, u32)]) -> Self {
        Self { active: active.iter().copied().collect(), ..Self::default() }
    }
}
