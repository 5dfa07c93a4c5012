//! What is asked for by the command line: of one service, whole or not at all.

use std::time::Instant;

use super::{Owner, Stopped};
use crate::{
    api::error::ApiError,
    reconcile::Input,
    source::{Runtime, Sources},
};

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refused) => Self::Invalid(refused.to_string()),
            Stopped::Failed(failure) => Self::Failed(failure.error),
        }
    }
}

impl Owner {
    /// Changes what the command line said of one service. All or nothing.
    ///
    /// # Errors
    /// The result isn't valid, or disk or kernel refuse.
    pub fn change(&mut self, service: &str, mut runtime: Runtime) -> Result<(), ApiError> {
        self.refuse_detached()?;
        let start = Instant::now();
        let mut notes = Vec::new();
        let sources = Sources { runtime: &runtime, ..self.sources() };
        let mut declared = sources.one(service, &mut notes);
        if let Some(declared) = &mut declared {
            self.mark(declared);
        }
        let file = self.config.state_file.clone();
        let mut took = None;
        // In force first: the disk takes longer than all the rest. Who asked hears of it when both is done; should the agent die
        // between the two, the next one goes back to what was saved.
        let entered =
            self.enter(Input::Asked { name: service, declared: declared.as_ref() }, |field, removals| {
                took = Some(start.elapsed());
                if let Some(error) = refused_table(field.shared, service, declared.as_ref()) {
                    return Err(error);
                }
                runtime.removals.clone_from(removals);
                runtime.save(&file).map_err(|e| e.to_string())
            });
        if let Err(stopped) = entered {
            self.shared.write().tables.remove(service);
            return Err(stopped.into());
        }
        self.runtime = runtime;
        self.shared.write().unsaved = false;
        if let Some(took) = took {
            self.shared.reconcile.observe(took.as_secs_f64());
        }
        self.try_rejected();
        Ok(())
    }
}

/// Why a service lacks the table that it is to have.
fn refused_table(
    shared: &crate::agent::shared::Shared,
    service: &str,
    declared: Option<&crate::reconcile::Declared>,
) -> Option<String> {
    let spec = declared?.spec.as_ref().ok()?;
    shared.read().tables.get(service).filter(|_| spec.algorithm.has_table()).cloned()
}
