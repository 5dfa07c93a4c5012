//! The owner's side: how many connections nodes may move now.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    Answer, Ask, Backend, FUTILE, GRANT_EXPIRES, Move, NEW_OWNER, QUIET, RETURN, Settings, pace::Pace,
    shares::Shares,
};
use crate::BackendKey;

/// How rebalancing of a service stands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum State {
    /// No backend has more than one above its fair part.
    Even,
    /// Not even, but not so much that it would begin.
    Waiting {
        /// The load of the fullest backend over the mean, by weight.
        ratio: f64,
    },
    /// Something has changed, or the owner is new: nothing is granted for a while.
    Quiet {
        /// When that is over.
        until: Duration,
    },
    /// It goes on until all is even.
    Moving {
        /// Connections granted since it began.
        granted: u64,
        /// How many are still above fair, the sum over backends.
        above_fair: u64,
    },
    /// What was moved hasn't helped: clients don't come back, or to where they were.
    Futile {
        /// When it is tried again, unless something changes before.
        until: Duration,
    },
}

/// What the owner of a service knows of its rebalancing, and hands out.
#[derive(Clone, Debug)]
pub struct Grants {
    now: Duration,
    quiet_until: Duration,
    futile_until: Option<Duration>,
    pace: Pace,
    pending: BTreeMap<BackendKey, Pending>,
    run: Option<Run>,
}

/// Granted, and not yet to be seen in the totals.
#[derive(Clone, Debug)]
struct Pending {
    /// The total as it was seen last.
    open: u64,
    /// When, and how many.
    grants: VecDeque<(Duration, u64)>,
}

/// Connections are being moved.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    granted: u64,
    mark: Option<Mark>,
}

/// What things were like when it was last seen whether it helps.
#[derive(Clone, Copy, Debug)]
struct Mark {
    above_fair: u64,
    total: u64,
    granted: u64,
}

impl Mark {
    const fn new(shares: &Shares) -> Self {
        Self { above_fair: shares.above_fair, total: shares.total, granted: 0 }
    }

    /// So many connections too many are on another backend now. Those that are gone haven't helped: without them the
    /// fair parts are less, and what is above them is no less. `latest`: granted within [`RETURN`]; of those that are
    /// gone so many may come back, which is no help yet, but no harm either.
    fn helped(&self, shares: &Shares, pool: &[Backend], latest: u64) -> i128 {
        let gone = self.total.saturating_sub(shares.total);
        let above_fair = shares.above(pool, gone.min(latest));
        i128::from(self.above_fair) - i128::from(above_fair) - i128::from(gone)
    }
}

impl Pending {
    /// The total is this now. As many as it has fallen by are taken for moved, the oldest first; what is too old
    /// wasn't used. `false`: nothing is pending any more.
    fn settle(&mut self, now: Duration, open: u64) -> bool {
        let mut fallen = self.open.saturating_sub(open);
        self.open = open;
        while let Some((at, connections)) = self.grants.front_mut() {
            let settled = if *at + GRANT_EXPIRES <= now { *connections } else { fallen.min(*connections) };
            fallen = fallen.saturating_sub(settled);
            *connections -= settled;
            if *connections != 0 {
                break;
            }
            self.grants.pop_front();
        }
        !self.grants.is_empty()
    }

    fn connections(&self) -> u64 {
        self.grants.iter().map(|(_, connections)| connections).sum()
    }
}

/// A backend from which some are wanted; the fullest is the greatest.
#[derive(PartialEq, Eq)]
struct Source {
    open: u64,
    weight: u32,
    key: BackendKey,
    movable: u64,
}

impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        let load = |one: &Self, other: &Self| u128::from(one.open) * u128::from(other.weight);
        load(self, other).cmp(&load(other, self)).then(other.key.cmp(&self.key))
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Grants {
    /// Of one that owns the service from now on. Nothing is granted for [`NEW_OWNER`].
    pub const fn new(now: Duration) -> Self {
        Self {
            now,
            quiet_until: now.saturating_add(NEW_OWNER),
            futile_until: None,
            pace: Pace::new(now),
            pending: BTreeMap::new(),
            run: None,
        }
    }

    /// The pool or a weight has changed, or the health or a drain of a backend. Nothing is granted for [`QUIET`]; what
    /// was futile may help now.
    pub fn changed(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.quiet_until = self.quiet_until.max(self.now + QUIET);
        self.futile_until = None;
        if let Some(run) = &mut self.run {
            run.mark = None;
        }
    }

    /// Begin although it isn't above the threshold, and although it was futile: the operator wants it. All the other
    /// rules stay.
    pub fn begin(&mut self) {
        self.futile_until = None;
        self.run.get_or_insert_default();
    }

    /// How it stands. `pool`: each backend once. A clock that is set back stands still until it is as late as before.
    pub fn look(&mut self, now: Duration, settings: &Settings, pool: &[Backend]) -> State {
        self.step(now, settings, pool, &Shares::of(pool))
    }

    /// A node asks how many it may move now. `pool`: each backend once. From the fullest backends first, by weight.
    pub fn ask(&mut self, now: Duration, settings: &Settings, pool: &[Backend], ask: &Ask) -> Answer {
        let shares = Shares::of(pool);
        let state = self.step(now, settings, pool, &shares);
        let grants = match state {
            State::Moving { .. } => self.hand_out(settings, pool, &shares, &ask.wants),
            State::Even | State::Waiting { .. } | State::Quiet { .. } | State::Futile { .. } => Vec::new(),
        };
        Answer { number: ask.number, grants }
    }

    fn step(&mut self, now: Duration, settings: &Settings, pool: &[Backend], shares: &Shares) -> State {
        self.now = self.now.max(now);
        let now = self.now;
        self.pace.advance(now, settings.budget, shares.all);
        let open: BTreeMap<_, _> = if self.pending.is_empty() {
            BTreeMap::new()
        } else {
            pool.iter().map(|backend| (backend.key, backend.open)).collect()
        };
        self.pending.retain(|key, pending| open.get(key).is_some_and(|open| pending.settle(now, *open)));
        if shares.even {
            self.run = None;
            return State::Even;
        }
        if now < self.quiet_until {
            return State::Quiet { until: self.quiet_until };
        }
        match self.futile_until {
            Some(until) if now < until => return State::Futile { until },
            _ => self.futile_until = None,
        }
        if self.run.is_none() && shares.ratio <= settings.above() {
            return State::Waiting { ratio: shares.ratio };
        }
        let run = self.run.get_or_insert_default();
        let mark = run.mark.get_or_insert(Mark::new(shares));
        // Whether the latest have helped can't be seen yet. What was granted is taken for moved: only nodes know
        // better.
        let latest = self.pace.granted_within(RETURN);
        let seen = mark.granted.saturating_sub(latest);
        if seen >= round(shares) {
            if mark.helped(shares, pool, latest) * 2 < i128::from(seen) {
                let until = now + FUTILE;
                (self.futile_until, self.run) = (Some(until), None);
                return State::Futile { until };
            }
            *mark = Mark::new(shares);
        }
        State::Moving { granted: run.granted, above_fair: shares.above_fair }
    }

    fn hand_out(
        &mut self,
        settings: &Settings,
        pool: &[Backend],
        shares: &Shares,
        wants: &[Move],
    ) -> Vec<Move> {
        let Some(Run { mark: Some(mark), .. }) = self.run else { return Vec::new() };
        let unseen = (2 * round(shares)).saturating_sub(mark.granted);
        let mut left = self.pace.allowed(settings.budget, shares.all).min(unseen);
        if left == 0 {
            return Vec::new();
        }
        let under_way = self.pace.granted_within(RETURN);
        let mut wanted: BTreeMap<BackendKey, u64> = BTreeMap::new();
        for want in wants {
            let all = wanted.entry(want.backend).or_default();
            *all = all.saturating_add(want.connections);
        }
        let source = |backend: &Backend| {
            let wanted = *wanted.get(&backend.key).filter(|_| backend.weight != 0)?;
            let open = backend.open.saturating_sub(self.pending_of(backend.key));
            let movable = wanted.min(open.saturating_sub(shares.fair(backend.weight, under_way)));
            (movable != 0).then_some(Source { open, weight: backend.weight, key: backend.key, movable })
        };
        let mut sources: BinaryHeap<_> = pool.iter().filter_map(source).collect();
        let mut granted: BTreeMap<BackendKey, u64> = BTreeMap::new();
        while left != 0
            && let Some(fullest) = sources.pop()
        {
            left -= 1;
            *granted.entry(fullest.key).or_default() += 1;
            if fullest.movable > 1 {
                sources.push(Source { open: fullest.open - 1, movable: fullest.movable - 1, ..fullest });
            }
        }
        for backend in pool {
            if let Some(connections) = granted.get(&backend.key) {
                self.note(backend, *connections);
            }
        }
        granted.into_iter().map(|(backend, connections)| Move { backend, connections }).collect()
    }

    fn note(&mut self, backend: &Backend, connections: u64) {
        self.pace.grant(connections);
        let new = || Pending { open: backend.open, grants: VecDeque::new() };
        self.pending.entry(backend.key).or_insert_with(new).grants.push_back((self.now, connections));
        if let Some(run) = &mut self.run {
            run.granted += connections;
            if let Some(mark) = &mut run.mark {
                mark.granted += connections;
            }
        }
    }

    fn pending_of(&self, backend: BackendKey) -> u64 {
        self.pending.get(&backend).map_or(0, Pending::connections)
    }
}

/// After so many moved connections it is seen whether it helps: enough that chance doesn't matter. Twice as many may
/// be granted before that, so that a large budget waits for what its clients do, and a small one doesn't.
fn round(shares: &Shares) -> u64 {
    shares.total.div_ceil(20).max(10)
}

#[cfg(test)]
mod tests;
