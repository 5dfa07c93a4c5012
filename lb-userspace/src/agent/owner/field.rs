//! The ground that plans are applied to: the maps, and their mirror that readers see.

use crate::{
    agent::shared::Shared,
    datapath::{DatapathError, Maps, maps::Applied},
    reconcile::{Actual, Ground, Plan},
};

/// See the module.
pub struct Field<'a> {
    /// The kernel's.
    pub maps: &'a mut Maps,
    /// With the mirror.
    pub shared: &'a Shared,
}

impl Ground for Field<'_> {
    type Error = DatapathError;

    fn look<R>(&self, see: impl FnOnce(&Actual) -> R) -> R {
        see(self.shared.read().actual())
    }

    /// A table that the kernel refused is noted for its service, and nothing else waits for it.
    fn apply(&mut self, plan: Plan) -> Result<(), DatapathError> {
        let Applied { done, tables, result } = self.maps.apply(&plan.steps);
        let mut state = self.shared.write();
        let mut refused = tables.into_iter().peekable();
        for (at, step) in plan.steps[..done].iter().enumerate() {
            match refused.next_if(|(refused, _)| *refused == at) {
                Some((_, error)) => state.note_table(step, Err(error)),
                None => {
                    state.actual_mut().apply(step);
                    state.note_table(step, Ok(()));
                }
            }
        }
        state.generation += 1;
        result
    }
}
