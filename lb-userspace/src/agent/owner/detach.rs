//! The way out: new connections are another balancer's, or the stack's, at once; what is open goes on until it ends or
//! its time is over; then the programs leave. The agent stays, and serves nothing until it is told to.
//!
//! Without services a packet that opens a connection passes, and so does one of a connection that isn't known. The flow
//! table is asked before services are: those that it has are translated as before.

use std::{
    mem,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::Owner;
use crate::{
    agent::{changes::check_deadline, seen::Seen},
    api::{
        error::ApiError,
        types::{Detach, DetachedView},
    },
    model::uptime,
    source::runtime::RuntimeDrain,
};

/// About what the status complains meanwhile.
pub(in crate::agent) const PROBLEM: &str = "detached";
/// Walks over the flow table after which nothing of what began before the first is missed.
const WALKS: u64 = 2;
/// The last date that is shown: the year 9999 begins 9998 - 1970 years after the epoch.
const LAST: Duration = Duration::from_secs(253_370_764_800);

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaving {
    /// The walk that was the last when services went.
    since: u64,
    /// The programs are off.
    off: bool,
}

impl Owner {
    /// Are the programs off, and to stay so?
    pub fn is_off(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.off)
    }

    /// Nothing is served while this is so.
    pub(super) fn is_leaving(&self) -> bool {
        self.runtime.detached.is_some()
    }

    /// Refuses what would be in force only later.
    pub(super) fn refuse_detached(&self) -> Result<(), ApiError> {
        match self.is_leaving() {
            true => Err(ApiError::Conflict(
                "the agent is detached and serves nothing; \"flowpin attach\" has it balance again".into(),
            )),
            false => Ok(()),
        }
    }

    /// Begins to leave, or gives it another deadline. In the state file, for the next agent.
    ///
    /// # Errors
    /// Disk or kernel refuse; all is as it was.
    pub fn detach_by(&mut self, detach: Detach) -> Result<DetachedView, ApiError> {
        let deadline = if detach.hand_over { detach.deadline_seconds } else { Some(0) };
        check_deadline(deadline)?;
        self.set_detached(Some(RuntimeDrain::begin(deadline)))?;
        tracing::info!(deadline, "handing over: new connections aren't balanced any more");
        self.begin_leaving();
        self.leave();
        Ok(self.detached())
    }

    /// For an agent that finds that an earlier one was told to.
    pub(super) fn go_on_leaving(&mut self) {
        if let Some(why) = self.why() {
            tracing::warn!(
                "nothing new is balanced, since {why}; \"flowpin attach\" has this agent balance again"
            );
            self.begin_leaving();
        }
    }

    fn begin_leaving(&mut self) {
        let off = self.is_off();
        self.leaving = self.is_leaving().then(|| Leaving { since: self.shared.census().generation, off });
        self.note_detached();
    }

    /// Why it is so.
    fn why(&self) -> Option<String> {
        Some(why(self.runtime.detached.as_ref()?.since, &self.config.state_file))
    }

    /// Takes the programs off when nothing needs them any more, or the time is over.
    pub fn leave(&mut self) {
        let Some(leaving) = self.leaving.filter(|leaving| !leaving.off) else { return };
        let walked = self.shared.census().generation >= leaving.since + WALKS;
        let done = walked && self.translated() == 0;
        if !done && self.left().is_none_or(|left| !left.is_zero()) {
            return self.note_detached();
        }
        let open = self.translated();
        if let Err(e) = self.detach() {
            return tracing::error!("the programs can't be taken off, trying again: {e}");
        }
        self.shared.write().interfaces.clear();
        self.leaving = Some(Leaving { off: true, ..leaving });
        tracing::info!(open, "detached: the programs are off");
        self.note_detached();
    }

    /// Balances again.
    ///
    /// # Errors
    /// Disk or kernel refuse; all is as it was.
    pub fn attach_again(&mut self, seen: &Seen) -> Result<(), ApiError> {
        if !self.is_leaving() {
            return Ok(());
        }
        self.set_detached(None)?;
        self.leaving = None;
        self.note_detached();
        tracing::info!("balancing again");
        self.look(seen);
        Ok(())
    }

    /// Saves that the agent is told to leave, or isn't any more, and brings into force what follows.
    fn set_detached(&mut self, detached: Option<RuntimeDrain>) -> Result<(), ApiError> {
        let before = mem::replace(&mut self.runtime.detached, detached);
        let saved = self.runtime.save(&self.config.state_file).map_err(|e| ApiError::Failed(e.to_string()));
        saved.and_then(|()| self.settle().map_err(ApiError::from)).inspect_err(|_| {
            self.runtime.detached = before;
            // The disk may refuse once more: then the next agent does what this one couldn't, and says so.
            if let Err(e) = self.runtime.save(&self.config.state_file) {
                tracing::error!("{e}");
            }
        })
    }

    /// How it goes.
    pub fn detached(&self) -> DetachedView {
        DetachedView {
            detached: self.is_off(),
            open_connections: if self.is_off() { 0 } else { self.translated() },
            deadline_seconds: self.left().map(|left| left.as_secs_f64()),
        }
    }

    /// Flows in the table, as of the last walk.
    fn translated(&self) -> u64 {
        self.shared.census().translated
    }

    /// How much time it may still take.
    fn left(&self) -> Option<Duration> {
        let (since, deadline) = self.runtime.detached.as_ref()?.by_uptime();
        Some((since + deadline?).saturating_sub(uptime::now()))
    }

    fn note_detached(&self) {
        let said = match (self.leaving, self.why()) {
            (None, _) | (_, None) => Ok(()),
            (Some(Leaving { off: true, .. }), Some(why)) => Err(format!(
                "detached: nothing is balanced, since {why}; \"flowpin attach\" has it balance again"
            )),
            (Some(_), Some(why)) => {
                let left =
                    self.left().map_or_else(String::new, |left| format!(", {} s to go", left.as_secs()));
                Err(format!(
                    "handing over: new connections aren't balanced, {} open ones go on{left}, since {why}; \
                     \"flowpin attach\" takes that back",
                    self.translated()
                ))
            }
        };
        self.shared.write().note(PROBLEM, said);
    }
}

/// Who said so, when (seconds since the Unix epoch), and why a restart changes nothing about it.
fn why(since: f64, state_file: &Path) -> String {
    // What a file says may be beyond what a date can be.
    let at = UNIX_EPOCH + Duration::try_from_secs_f64(since).unwrap_or_default().min(LAST);
    format!(
        "\"flowpin detach\" said so at {}, and {} keeps it over restarts",
        humantime::format_rfc3339_seconds(at),
        state_file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_who_said_so_when_and_where_it_is_kept() {
        let file = Path::new("/var/lib/flowpin/state.json");
        let at = |since| why(since, file);
        let wanted = "\"flowpin detach\" said so at 2026-02-03T04:05:06Z, and /var/lib/flowpin/state.json keeps it over restarts";
        assert_eq!(at(1_770_091_506.25), wanted);
        for nonsense in [f64::NAN, f64::MAX, -1.0, 1e12] {
            assert!(at(nonsense).contains("T00:00:00Z"), "{}", at(nonsense));
        }
    }
}
