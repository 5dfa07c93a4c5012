//! One service's counts, of all nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::pace::{Herd, Load, MAX_GAP, Pace};
use crate::{
    BackendKey, NodeId,
    frame::{Ack, Leave, MAX_BACKENDS, Report, Total},
};

/// Connections that close may wait: nobody chooses worse for not knowing at once.
const CLOSES_WAIT: Duration = Duration::from_millis(50);
/// So long if they are many, as when a backend restarts. In a stream they are told with those that come.
const MANY_CLOSES_WAIT: Duration = Duration::from_millis(10);
/// In a stream of connections each total tells of two or more: so long the first waits for the second. Half of them are
/// known at once, for half of the messages.
const FIRST_WAITS: Duration = Duration::from_millis(15);
/// When totals are told once more though nothing has changed: whoever missed the last ones sees that a number is
/// missing.
const REPEATS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(30)];

/// What a report led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Applied {
    /// It is in the totals.
    Yes,
    /// It was already, or a later one is.
    Before,
    /// It adds to one that isn't known.
    Gap,
    /// The node would have connections with more backends than a service has; all that it said is forgotten.
    TooMany(usize),
}

/// What a node has said last.
#[derive(Clone, Debug)]
struct Last {
    epoch: u64,
    seq: u64,
    open: BTreeMap<BackendKey, u32>,
}

/// What is to be told at a moment.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    pub(super) seq: u64,
    pub(super) counts: Vec<Total>,
    pub(super) acks: Vec<Ack>,
}

/// The counts of one service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    nodes: BTreeMap<NodeId, Last>,
    subscribers: BTreeSet<NodeId>,
    totals: BTreeMap<BackendKey, u64>,
    /// All of the totals together.
    open: u64,
    pool: u32,
    pace: Pace,
    herd: Herd,
    /// Until then there may be nodes that haven't been heard of.
    pub(super) settled: Duration,
    /// Number of what was told last, and when.
    pub(super) seq: u64,
    told: Option<Duration>,
    /// Since then: connections that have opened and closed, and what else has changed.
    opened: u64,
    closed: u64,
    changed: BTreeSet<BackendKey>,
    acked: BTreeSet<NodeId>,
    /// Who wants all of it.
    wanting: BTreeSet<NodeId>,
    /// When it is to be told: at the latest, but for the gap.
    wanted: Option<Duration>,
    repeats: usize,
}

impl Service {
    pub(super) fn new(seq: u64, settled: Duration) -> Self {
        Self {
            nodes: BTreeMap::new(),
            subscribers: BTreeSet::new(),
            totals: BTreeMap::new(),
            open: 0,
            pool: 0,
            pace: Pace::default(),
            herd: Herd::default(),
            settled,
            seq,
            told: None,
            opened: 0,
            closed: 0,
            changed: BTreeSet::new(),
            acked: BTreeSet::new(),
            wanting: BTreeSet::new(),
            wanted: None,
            repeats: 0,
        }
    }

    pub(super) const fn subscribers(&self) -> &BTreeSet<NodeId> {
        &self.subscribers
    }

    pub(super) const fn totals(&self) -> &BTreeMap<BackendKey, u64> {
        &self.totals
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.nodes.is_empty()
    }

    pub(super) fn rate(&self, now: Duration) -> f64 {
        self.pace.rate(now)
    }

    pub(super) fn gap(&self, now: Duration, budget: f64) -> Duration {
        let (subscribers, backends, open) = (self.subscribers.len(), self.pool, self.open);
        let (rate, stream) = (self.pace.rate(now), self.herd.is_stream(now));
        Load { subscribers, budget, backends, open, rate, stream }.gap()
    }

    /// A node subscribes, or has missed something: it gets everything.
    pub(super) fn subscribe(&mut self, now: Duration, node: NodeId) {
        self.subscribers.insert(node);
        self.wanting.insert(node);
        self.want(now);
    }

    /// A node reports, and so wants to hear.
    pub(super) fn report(&mut self, now: Duration, report: &Report) -> Applied {
        if self.subscribers.insert(report.node) {
            self.wanting.insert(report.node);
            self.want(now);
        }
        let last = self.nodes.get(&report.node);
        match last {
            Some(last) if (report.epoch, report.seq) <= (last.epoch, last.seq) => {
                // What was told of it may have been lost.
                self.acked.insert(report.node);
                self.want(now + CLOSES_WAIT);
                return Applied::Before;
            }
            Some(last) if report.base != 0 && (report.epoch != last.epoch || report.base > last.seq) => {
                return Applied::Gap;
            }
            None if report.base != 0 => return Applied::Gap,
            _ => {}
        }
        let (known, mut open) = match self.nodes.remove(&report.node) {
            Some(last) => (true, last.open),
            None => (false, BTreeMap::new()),
        };
        let mut opened = 0u64;
        if report.base == 0 {
            let listed: BTreeSet<_> = report.counts.iter().map(|count| count.backend).collect();
            let gone: Vec<_> = open.keys().copied().filter(|backend| !listed.contains(backend)).collect();
            for backend in gone {
                self.count(&mut open, backend, 0);
            }
        }
        for count in &report.counts {
            opened += u64::from(self.count(&mut open, count.backend, count.open));
        }
        if opened != 0 {
            // A node subscribes to a service with its first flow; what it has besides was there before.
            self.pace.opened(now, if known { opened } else { 1 });
        }
        let backends = open.len();
        self.pool = report.pool;
        self.acked.insert(report.node);
        self.nodes.insert(report.node, Last { epoch: report.epoch, seq: report.seq, open });
        self.opened += opened;
        let (stream, many) = (self.herd.is_stream(now), self.closed * 4 > u64::from(report.pool));
        self.want(match opened {
            0 if many && !stream => now + MANY_CLOSES_WAIT,
            0 => now + CLOSES_WAIT,
            _ if stream && self.opened == 1 => now + FIRST_WAITS,
            _ => now,
        });
        if backends > MAX_BACKENDS {
            self.forget(now, report.node);
            return Applied::TooMany(backends);
        }
        Applied::Yes
    }

    /// A node has so many connections with a backend now. By how many that is more.
    fn count(&mut self, open: &mut BTreeMap<BackendKey, u32>, backend: BackendKey, now: u32) -> u32 {
        let before =
            if now == 0 { open.remove(&backend) } else { open.insert(backend, now) }.unwrap_or_default();
        if before != now {
            let total = self.totals.entry(backend).or_default();
            // In this order: what was added before is part of both.
            *total = *total + u64::from(now) - u64::from(before);
            self.open = self.open + u64::from(now) - u64::from(before);
        }
        // Also of one that has come and gone meanwhile: with the total goes what of it is the node's.
        self.changed.insert(backend);
        self.closed += u64::from(before.saturating_sub(now));
        now.saturating_sub(before)
    }

    /// A node doesn't want to hear any more, unless it has reported since.
    pub(super) fn leave(&mut self, now: Duration, leave: &Leave) -> bool {
        let later = |last: &Last| (last.epoch, last.seq) > (leave.epoch, leave.seq);
        if self.nodes.get(&leave.node).is_some_and(later) {
            return false;
        }
        self.forget(now, leave.node);
        true
    }

    /// A node is gone, and its connections with it.
    pub(super) fn forget(&mut self, now: Duration, node: NodeId) {
        self.subscribers.remove(&node);
        self.wanting.remove(&node);
        let Some(last) = self.nodes.remove(&node) else { return };
        let mut open = last.open;
        for backend in open.keys().copied().collect::<Vec<_>>() {
            self.count(&mut open, backend, 0);
        }
        self.acked.insert(node);
        self.want(now + CLOSES_WAIT);
    }

    fn want(&mut self, at: Duration) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// When something is to be told.
    pub(super) fn due(&self, now: Duration, budget: f64) -> Duration {
        let Some(told) = self.told else { return self.wanted.unwrap_or(now) };
        let gap = self.gap(told, budget);
        let repeat = told + self.repeat(told, gap);
        let settled = if told < self.settled { self.settled } else { Duration::MAX };
        let wanted = self.wanted.map_or(Duration::MAX, |wanted| wanted.max(told + gap));
        wanted.min(repeat).min(settled)
    }

    /// When the same is told once more. In a herd when three arrivals that were to be expected haven't come: before
    /// agents doubt that there were none.
    fn repeat(&self, told: Duration, gap: Duration) -> Duration {
        let untold = f64::from(self.pool.clamp(1, 3)) / self.pace.rate(told).max(f64::MIN_POSITIVE);
        let herd = Duration::try_from_secs_f64(untold).unwrap_or(MAX_GAP);
        if herd < MAX_GAP { gap + herd } else { REPEATS[self.repeats.min(REPEATS.len() - 1)].max(gap) }
    }

    /// What has changed, under a new number; `None`: nothing has, and somebody who wants all of it is the only one
    /// who is to be told. Then who those are.
    pub(super) fn tell(&mut self, now: Duration) -> (Option<Told>, BTreeSet<NodeId>) {
        let wanting = std::mem::take(&mut self.wanting);
        let news = !self.changed.is_empty() || !self.acked.is_empty();
        (self.wanted, self.opened, self.closed) = (None, 0, 0);
        if !news && !wanting.is_empty() {
            self.told = self.told.or(Some(now));
            return (None, wanting);
        }
        self.seq += 1;
        self.told = Some(now);
        if news {
            self.herd.told(now);
        }
        self.repeats = if news { 0 } else { self.repeats + 1 };
        let counts =
            std::mem::take(&mut self.changed).into_iter().map(|backend| self.total(backend)).collect();
        self.totals.retain(|_, open| *open != 0);
        let acks = std::mem::take(&mut self.acked).into_iter().map(|node| self.ack(node)).collect();
        (Some(Told { seq: self.seq, counts, acks }), wanting)
    }

    /// All of it, for one node, as it was told last.
    pub(super) fn whole(&self, node: NodeId) -> Told {
        let counts = self.totals.keys().map(|backend| self.total(*backend)).collect();
        Told { seq: self.seq, counts, acks: vec![self.ack(node)] }
    }

    fn total(&self, backend: BackendKey) -> Total {
        Total { backend, open: self.totals.get(&backend).copied().unwrap_or_default() }
    }

    fn ack(&self, node: NodeId) -> Ack {
        let (epoch, seq) = self.nodes.get(&node).map_or((0, 0), |last| (last.epoch, last.seq));
        Ack { node, epoch, seq }
    }
}
