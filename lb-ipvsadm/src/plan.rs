//! What changes come to, beside what is there: steps in Flowpin's words. Nothing is left to be found out half-way that
//! can be known beforehand.

mod draft;

use crate::{Affinity, Change, Place, Refusal, Table, Timeouts, change::Target, settings::Settings};
use flowpin_import::ipvs::{Algorithm, Forward};

use self::draft::Draft;

/// A service to be added, with its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewService {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub at: Place,
    /// How a server is chosen.
    pub algorithm: Algorithm,
    /// Do clients stay with theirs?
    pub affinity: Option<Affinity>,
    /// How packets go; `None`: nothing has been said, since it has no server.
    pub forward: Option<Forward>,
    /// Who serves.
    pub servers: Vec<NewServer>,
}

/// A server to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewServer {
    /// Address, with a port unless it is the one that the client used.
    pub address: String,
    /// Its share; 0: it gets nothing new.
    pub weight: u16,
    /// Most connections; `None`: no limit.
    pub limit: Option<u32>,
}

/// A step: one request to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add a service.
    AddService(NewService),
    /// Change how servers of a service are chosen.
    Choose {
        /// Which.
        service: String,
        /// How one is chosen.
        algorithm: Algorithm,
        /// Do clients stay with theirs?
        affinity: Option<Affinity>,
    },
    /// Change how packets of a service get to its servers.
    Forward {
        /// Which.
        service: String,
        /// How.
        forward: Forward,
        /// How they do now.
        before: Forward,
    },
    /// Change when connections of a service are over.
    Timeouts {
        /// Which.
        service: String,
        /// When; only what is about a protocol that it has.
        timeouts: Timeouts,
    },
    /// Remove a service.
    RemoveService {
        /// Which.
        service: String,
    },
    /// Add a server.
    AddServer {
        /// To which service.
        service: String,
        /// Which.
        server: NewServer,
    },
    /// Change a server.
    EditServer {
        /// Of which service.
        service: String,
        /// Which, as Flowpin names it.
        server: String,
        /// Its share, and most connections; `None`: no limit.
        to: (u16, Option<u32>),
        /// As they are now.
        before: (u16, Option<u32>),
    },
    /// Remove a server.
    RemoveServer {
        /// Of which service.
        service: String,
        /// Which, as Flowpin names it.
        server: String,
    },
}

impl Step {
    /// What takes it back, if anything does without loss.
    pub fn back(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::AddService(new) => Self::RemoveService { service: new.name },
            Self::Forward { service, forward, before } => {
                Self::Forward { service, forward: before, before: forward }
            }
            Self::AddServer { service, server } => Self::RemoveServer { service, server: server.address },
            Self::EditServer { service, server, to, before } => {
                Self::EditServer { service, server, to: before, before: to }
            }
            Self::Choose { .. }
            | Self::Timeouts { .. }
            | Self::RemoveService { .. }
            | Self::RemoveServer { .. } => return None,
        })
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each with the line that asked for it, if it is of a table.
    pub steps: Vec<(Option<usize>, Step)>,
    /// What is different from what was asked for, a sentence each.
    pub notes: Vec<String>,
    /// What was asked for and isn't the command line's to do, a sentence each; the rest is done.
    pub kept: Vec<String>,
}

/// What changes come to, in their order.
///
/// # Errors
/// One of them can't be done; then none is to be.
pub fn plan(table: &Table, changes: &[(Option<usize>, Change)]) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(table);
    for (line, change) in changes {
        draft.line = *line;
        one(&mut draft, change).map_err(|refusal| refusal.at(*line))?;
    }
    Ok(draft.finish())
}

fn one(draft: &mut Draft, change: &Change) -> Result<(), Refusal> {
    match change {
        Change::AddService { at, settings } => draft.add_service(at, settings),
        Change::EditService { at, settings } => draft.edit_service(at, settings),
        Change::RemoveService { at } => draft.remove_service(at),
        Change::AddServer { at, server, forward, weight, limit } => {
            draft.add_server(at, server, *forward, *weight, *limit)
        }
        Change::EditServer { at, server, forward, weight, limit } => {
            draft.edit_server(at, server, *forward, *weight, *limit)
        }
        Change::RemoveServer { at, server } => draft.remove_server(at, server),
        Change::Clear => {
            draft.clear();
            Ok(())
        }
        Change::Timeouts(timeouts) => {
            draft.set_timeouts(timeouts);
            Ok(())
        }
    }
}
