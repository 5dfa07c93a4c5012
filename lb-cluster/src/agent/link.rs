//! What an owner has told of a service, and which of the node's own connections are part of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    BackendKey, NodeId,
    frame::{Ack, Totals},
};

/// Reports that the owner hasn't acknowledged yet, at most. Beyond, all begins anew.
const UNACKNOWLEDGED: usize = 256;

/// A report on its way.
#[derive(Clone, Debug)]
struct Sent {
    seq: u64,
    at: Duration,
    /// There were new connections in it, so that the owner tells at once.
    opened: bool,
    whole: bool,
    counts: Vec<(BackendKey, u32)>,
}

/// What totals led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// What is known is newer now. `delay`: of a report with new connections, until it came back.
    News { delay: Option<Duration> },
    /// It was known, or nothing can be done with it yet.
    Nothing,
    /// Something was missed: all of it is to be asked for.
    Missed,
}

/// The state of things with one owner.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The owner's life; 0: it hasn't said anything.
    epoch: u64,
    /// Number of the totals that are known.
    seq: Option<u64>,
    /// Nothing was missed since.
    in_step: bool,
    settling: bool,
    totals: BTreeMap<BackendKey, u64>,
    /// What of them is the node's own; `None`: what an earlier life of the agent's has reported, which nobody knows
    /// any more.
    contained: Option<BTreeMap<BackendKey, u32>>,
    /// The report that they contain; 0: none.
    acked: u64,
    sent: VecDeque<Sent>,
    /// The owner lacks what reports could add to.
    pub(super) whole: bool,
    /// Totals that were less than the node's own part of them: there are none, unless an owner is at fault.
    pub(super) contradictions: u64,
}

impl Link {
    pub(super) const fn new() -> Self {
        Self {
            epoch: 0,
            seq: None,
            in_step: false,
            settling: false,
            totals: BTreeMap::new(),
            contained: Some(BTreeMap::new()),
            acked: 0,
            sent: VecDeque::new(),
            whole: true,
            contradictions: 0,
        }
    }

    /// Something may have been missed.
    pub(super) const fn doubt(&mut self) {
        self.in_step = false;
    }

    /// Nothing is known, and nothing was said.
    pub(super) fn start_anew(&mut self) {
        *self = Self { contradictions: self.contradictions, ..Self::new() };
    }

    /// Does the node know what others have?
    pub(super) const fn usable(&self) -> bool {
        self.seq.is_some() && self.contained.is_some() && !self.settling
    }

    pub(super) const fn in_step(&self) -> bool {
        self.in_step
    }

    pub(super) const fn has_totals(&self) -> bool {
        self.seq.is_some()
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A backend's connections with other nodes.
    pub(super) fn others(&self, backend: BackendKey) -> u64 {
        let total = self.totals.get(&backend).copied().unwrap_or_default();
        total.saturating_sub(u64::from(self.contained(backend)))
    }

    /// All of them that aren't 0.
    pub(super) fn all_others(&self) -> BTreeMap<BackendKey, u64> {
        let others = self.totals.keys().map(|backend| (*backend, self.others(*backend)));
        others.filter(|(_, open)| *open != 0).collect()
    }

    fn contained(&self, backend: BackendKey) -> u32 {
        self.contained.as_ref().and_then(|contained| contained.get(&backend).copied()).unwrap_or_default()
    }

    /// What the next report adds to; 0: nothing.
    pub(super) const fn base(&self) -> u64 {
        if self.whole { 0 } else { self.acked }
    }

    /// Backends of reports that aren't acknowledged.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = BackendKey> {
        self.sent.iter().flat_map(|sent| sent.counts.iter().map(|(backend, _)| *backend))
    }

    /// When the last report was sent that isn't acknowledged.
    pub(super) fn waiting_since(&self) -> Option<Duration> {
        self.sent.back().map(|sent| sent.at)
    }

    /// A report is sent. False: too many are on their way.
    pub(super) fn send(
        &mut self,
        at: Duration,
        seq: u64,
        opened: bool,
        counts: Vec<(BackendKey, u32)>,
    ) -> bool {
        self.sent.push_back(Sent { seq, at, opened, whole: self.base() == 0, counts });
        self.sent.len() <= UNACKNOWLEDGED
    }

    /// Totals have come, of this life of the owner's or an earlier one: of a later one, all begins anew before.
    pub(super) fn hear(&mut self, now: Duration, me: (NodeId, u64), frame: &Totals) -> Heard {
        if frame.epoch < self.epoch {
            return Heard::Nothing;
        }
        self.epoch = frame.epoch;
        let late = match self.seq {
            None => !frame.whole,
            Some(seq) if frame.whole && !self.in_step => frame.seq < seq,
            Some(seq) => frame.seq <= seq,
        };
        if late {
            return Heard::Nothing;
        }
        if !frame.whole && self.seq.is_some_and(|seq| frame.seq != seq + 1) {
            let missed = std::mem::replace(&mut self.in_step, false);
            return if missed { Heard::Missed } else { Heard::Nothing };
        }
        if frame.whole {
            self.totals.clear();
            self.in_step = true;
        }
        self.seq = Some(frame.seq);
        self.settling = frame.settling;
        for count in &frame.counts {
            if count.open == 0 {
                self.totals.remove(&count.backend);
            } else {
                self.totals.insert(count.backend, count.open);
            }
        }
        let ack = frame.acks.binary_search_by_key(&me.0, |ack| ack.node).ok();
        let delay = ack.and_then(|at| self.acknowledge(now, me.1, &frame.acks[at]));
        self.check(frame);
        Heard::News { delay }
    }

    /// The totals contain this report from now on. How long it took, if it had new connections.
    fn acknowledge(&mut self, now: Duration, epoch: u64, ack: &Ack) -> Option<Duration> {
        if ack.epoch == 0 {
            (self.contained, self.acked, self.whole) = (Some(BTreeMap::new()), 0, true);
            return None;
        }
        if (ack.epoch, ack.seq) == (epoch, self.acked) && self.contained.is_some() {
            return None;
        }
        let known = self.sent.iter().position(|sent| (epoch, sent.seq) == (ack.epoch, ack.seq));
        let Some(last) = known else {
            (self.contained, self.acked, self.whole) = (None, 0, true);
            return None;
        };
        let mut delay = None;
        for sent in self.sent.drain(..=last) {
            let contained = self.contained.get_or_insert_default();
            if sent.whole {
                contained.clear();
            }
            contained.extend(sent.counts);
            delay = sent.opened.then(|| now.saturating_sub(sent.at));
        }
        if let Some(contained) = &mut self.contained {
            contained.retain(|_, open| *open != 0);
        }
        (self.acked, self.whole) = (ack.seq, false);
        delay
    }

    /// Looks whether the node's own part is within the totals that were told.
    fn check(&mut self, frame: &Totals) {
        let told: BTreeSet<_> = frame.counts.iter().map(|count| count.backend).collect();
        let own: Vec<_> = match &self.contained {
            Some(contained) if frame.whole => contained.keys().copied().collect(),
            _ => told.into_iter().collect(),
        };
        let total = |backend| self.totals.get(backend).copied().unwrap_or_default();
        let wrong = own.iter().filter(|it| total(it) < u64::from(self.contained(**it))).count();
        self.contradictions += wrong as u64;
    }
}
