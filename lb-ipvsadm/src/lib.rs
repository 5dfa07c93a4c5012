//! ipvsadm's command line and tables, for hands that know them: arguments in, steps and text out.
//!
//! [`Command::parse`] reads arguments, as [`restore::read`] does a table of them. [`plan::plan`] says what a
//! [`Change`] comes to beside the services that are there (a [`Table`], which the caller fills), in steps of Flowpin's.
//! [`print`] and [`save`] write the table as ipvsadm does. What schedulers and ways of forwarding are here is
//! [`flowpin_import::ipvs`]'s to say.
//!
//! Knows nothing of the agent and its API, of time and of files.

mod change;
mod command;
mod options;
pub mod plan;
pub mod print;
mod refusal;
pub mod restore;
pub mod save;
mod settings;
pub mod table;
mod words;

pub use self::{
    change::{Change, Place, Protocol, Target, Timeouts},
    command::{Command, List, What},
    options::{COMMANDS, Fate, OPTIONS},
    refusal::{Refusal, Told},
    settings::{Affinity, Settings},
    table::Table,
};
