//! Backends that are no longer declared and whose connections have a deadline: noted when they go, in the state file
//! for the next agent, forgotten when their last connection has ended.

use std::sync::Arc;

use super::Owner;
use crate::{
    model::Desired,
    source::runtime::removals::{Removals, departures, follow, forget_ended},
};

impl Owner {
    /// What is noted when `new` is in force instead of `old`. To hand over is to declare nothing, and removes nobody.
    pub(super) fn removals_after(&self, old: &Arc<Desired>, new: &Arc<Desired>) -> Removals {
        let mut removals = self.runtime.removals.clone();
        if !Arc::ptr_eq(old, new) && !self.is_leaving() {
            follow(&mut removals, old, new, self.shared.read().actual());
        }
        removals
    }

    /// Notes them, if they are others than before.
    pub(super) fn note_removals(&mut self, removals: Removals) {
        let mut state = self.shared.write();
        if removals != self.runtime.removals {
            state.unsaved = true;
        } else if departures(&removals) == *state.removals() {
            return;
        }
        state.set_removals(departures(&removals));
        drop(state);
        self.runtime.removals = removals;
    }

    /// Forgets those whose last connection has ended, and saves what has changed.
    pub fn tend_removals(&mut self) {
        let mut removals = self.runtime.removals.clone();
        let ended = forget_ended(&mut removals, self.shared.read().actual());
        if ended {
            self.note_removals(removals);
        }
        self.save_removals();
    }

    /// Saves what is noted and isn't in the state file yet. What the disk refuses is tried again a second later.
    pub(super) fn save_removals(&self) {
        if !self.shared.read().unsaved {
            return;
        }
        let saved = self.runtime.save(&self.config.state_file);
        if let Err(e) = &saved {
            tracing::error!("{e}");
        }
        let mut state = self.shared.write();
        state.unsaved = saved.is_err();
        state.note("removals", saved);
    }
}
