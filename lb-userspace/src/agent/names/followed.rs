//! Hosts that are followed: when each is looked up next, and which go first. Those that answer have places of their own,
//! so that those that don't, each of which takes as long as servers may, never keep them waiting.

use std::{collections::HashMap, sync::Arc};

use rand::RngExt as _;
use tokio::time::Instant;

use super::{Told, wanted};
use crate::model::Desired;

/// Look-ups under way at once of hosts that answered last, and of the others.
const AT_ONCE: [usize; 2] = [64, 128];

/// A host that is followed.
struct Followed {
    /// IP versions of the services that have it.
    wanted: [bool; 2],
    /// When it is looked up next; `None`: that is under way.
    due: Option<Instant>,
    /// How many times in a row there was a problem.
    failures: u32,
    /// Did it answer the last time? At first: are addresses of it known?
    answers: bool,
}

/// All of them.
#[derive(Default)]
pub struct Hosts {
    hosts: HashMap<Arc<str>, Followed>,
    /// Look-ups under way, by whether their hosts answered the time before.
    under_way: [usize; 2],
}

/// A look-up that is to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct LookUp {
    /// Of which host.
    pub host: Arc<str>,
    /// IP versions.
    pub wanted: [bool; 2],
    /// Whose place it takes.
    answered: bool,
}

impl Hosts {
    /// Is this one of them?
    pub fn has(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// How many times in a row there was a problem with one.
    pub fn failures(&self, host: &str) -> u32 {
        self.hosts.get(host).map_or(0, |followed| followed.failures)
    }

    /// Those that services have by now. One that is new, or of which more is wanted, is due at once. `knows`: its
    /// addresses are known.
    pub fn follow(&mut self, desired: &Desired, knows: impl Fn(&str) -> bool, now: Instant) {
        let wanted = wanted(desired.services().values().map(Arc::as_ref));
        self.hosts.retain(|host, _| wanted.contains_key(host));
        for (host, wanted) in wanted {
            let followed = self.hosts.entry(host.clone()).or_insert_with(|| Followed {
                wanted,
                due: Some(now),
                failures: 0,
                answers: knows(host),
            });
            if followed.wanted != wanted {
                followed.wanted = wanted;
                followed.due = followed.due.map(|_| now);
            }
        }
    }

    /// Look-ups that are due, the longest due first, as many as there are places for. Who never failed goes before who
    /// did.
    pub fn due(&mut self, now: Instant) -> Vec<LookUp> {
        let mut due: Vec<(u32, Instant, &Arc<str>)> = Vec::new();
        for (host, followed) in &self.hosts {
            due.extend(followed.due.filter(|due| *due <= now).map(|at| (followed.failures, at, host)));
        }
        due.sort_unstable();
        let due: Vec<Arc<str>> = due.into_iter().map(|(.., host)| host.clone()).collect();
        let mut start = Vec::new();
        for host in due {
            let Some(followed) = self.hosts.get_mut(&host) else { continue };
            let lane = usize::from(!followed.answers);
            if self.under_way[lane] < AT_ONCE[lane] {
                self.under_way[lane] += 1;
                followed.due = None;
                start.push(LookUp { wanted: followed.wanted, answered: followed.answers, host });
            }
        }
        start
    }

    /// One is done, and came out like this.
    pub fn done(&mut self, look_up: &LookUp, told: &Told, now: Instant) {
        self.under_way[usize::from(!look_up.answered)] -= 1;
        let Some(followed) = self.hosts.get_mut(&look_up.host) else { return };
        followed.answers = !told.failed;
        followed.failures = if told.failed { followed.failures.saturating_add(1) } else { 0 };
        // Not all at the same moment that have failed together.
        let later = if told.failed { rand::rng().random_range(1.0..1.25) } else { 1.0 };
        let more = followed.wanted != look_up.wanted;
        followed.due = Some(if more { now } else { now + told.again.mul_f64(later) });
    }
}

#[cfg(test)]
mod tests;
