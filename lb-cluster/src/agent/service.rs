//! One service on one node: what it has, what it has said, and what it knows of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    LINGER, SILENT,
    link::{Heard, Link},
};
use crate::{
    BackendKey, NodeId, ServiceKey,
    frame::{Ask, Frame, Leave, Own, Report, Subscribe, Totals},
};

/// Reports are never closer together.
const REPORT_GAP: Duration = Duration::from_millis(2);
/// What isn't answered is said again: an answer to closes takes 50 ms, one over a slow line 100 more.
const AGAIN: Duration = Duration::from_millis(200);
/// The same, while nothing is heard of the owner. Less than an owner takes to settle.
const AGAIN_IN_SILENCE: Duration = Duration::from_millis(500);
/// Arrivals that may go untold before what is known is worth less than nothing: this many, and one for each two
/// backends. (With two for each backend instead, a herd whose owner dies ends at 1.6 instead of 1.4.)
const STALE: f64 = 8.0;
/// So many arrivals that were to be expected didn't come: by chance that happens once in 50 times.
const DOUBTFUL: f64 = 4.0;
/// How long a report takes, before one has come back.
const USUAL_DELAY: Duration = Duration::from_millis(5);

/// Whose frames they are: the node, and the life of its agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Me {
    pub(super) node: NodeId,
    pub(super) epoch: u64,
    pub(super) service: ServiceKey,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) own: BTreeMap<BackendKey, u32>,
    pub(super) opened: u64,
    pool: u32,
    used: Duration,
    pub(super) owner: Option<NodeId>,
    pub(super) link: Link,
    /// What others had by the word of the owner before, and when it was given up: good until its successor knows as
    /// much.
    past: Option<(BTreeMap<BackendKey, u64>, Duration)>,
    /// Number of the last report, and when it was sent.
    pub(super) seq: u64,
    sent: Option<Duration>,
    /// What has changed since, whether it was opened, and when it is to be said.
    unsent: BTreeSet<BackendKey>,
    opens: bool,
    want: Option<Duration>,
    /// When all of it was asked for.
    asked: Option<Duration>,
    /// The owner's words.
    pub(super) rate: f64,
    gap: Duration,
    /// From a report to the totals that contain it.
    pub(super) delay: Option<Duration>,
    /// What is known was so then.
    as_of: Duration,
}

impl Service {
    /// `seq`: the number after which its reports go on.
    pub(super) fn new(now: Duration, owner: Option<NodeId>, seq: u64) -> Self {
        Self {
            own: BTreeMap::new(),
            opened: 0,
            pool: 0,
            used: now,
            owner,
            link: Link::new(),
            past: None,
            seq,
            sent: None,
            unsent: BTreeSet::new(),
            opens: false,
            want: None,
            asked: None,
            rate: 0.0,
            gap: Duration::ZERO,
            delay: None,
            as_of: now,
        }
    }

    /// The kernel's counts, of backends that may have changed.
    pub(super) fn counted(&mut self, now: Duration, pool: u32, opened: u64, counts: &[(BackendKey, u32)]) {
        let before = std::mem::replace(&mut self.opened, opened);
        self.pool = pool;
        for (backend, open) in counts {
            let before = match open {
                0 => self.own.remove(backend),
                _ => self.own.insert(*backend, *open),
            };
            let before = before.unwrap_or_default();
            if before != *open {
                self.unsent.insert(*backend);
                self.opens |= *open > before;
                self.want(now);
            }
        }
        if !self.own.is_empty() || opened > before {
            self.used = now;
        }
    }

    fn want(&mut self, at: Duration) {
        self.want = Some(self.want.map_or(at, |want| want.min(at)));
    }

    /// Another is the owner from now on. What is to be said to the one before. `heard`: when that one said anything
    /// last.
    pub(super) fn move_to(
        &mut self,
        now: Duration,
        me: Me,
        owner: Option<NodeId>,
        heard: Option<Duration>,
    ) -> Option<(NodeId, Frame)> {
        if owner == self.owner {
            return None;
        }
        if self.link.usable() && self.good_until(heard).is_some_and(|until| now < until) {
            self.past = Some((self.link.all_others(), now));
        }
        let before = std::mem::replace(&mut self.owner, owner);
        self.start_anew();
        before.map(|before| (before, self.leave(me)))
    }

    /// What is said on leaving.
    pub(super) const fn leave(&self, me: Me) -> Frame {
        Frame::Leave(Leave { node: me.node, service: me.service, epoch: me.epoch, seq: self.seq })
    }

    /// What totals led to.
    pub(super) fn hear(&mut self, now: Duration, me: Me, frame: &Totals) -> Heard {
        let first = !self.link.has_totals();
        let heard = self.link.hear(now, (me.node, me.epoch), frame);
        let delay = match heard {
            Heard::Nothing => return heard,
            Heard::Missed => {
                self.asked = None;
                return heard;
            }
            Heard::News { delay } => {
                // The way there and back is what there is until a report has come back.
                let answer = self.asked.filter(|_| first).map(|asked| now.saturating_sub(asked));
                delay.or(answer.filter(|_| self.delay.is_none()))
            }
        };
        if self.link.whole {
            // The owner contains nothing of the node's: unless it is on its way, it has to be said.
            self.want(now + AGAIN);
        } else if self.unsent.is_empty() {
            self.want = None;
        }
        (self.rate, self.gap) = (f64::from(frame.rate), Duration::from_micros(u64::from(frame.gap)));
        if let Some(delay) = delay {
            // As TCP takes the mean of round-trip times (RFC 6298).
            self.delay = Some(self.delay.map_or(delay, |mean| mean * 7 / 8 + delay / 8));
        }
        if self.link.in_step() {
            self.as_of = now;
        }
        if self.link.usable() {
            self.past = None;
        }
        heard
    }

    /// The owner wants to know all of it.
    pub(super) fn asked(&mut self, now: Duration) {
        self.link.whole = true;
        self.want(now);
    }

    /// The owner knows nothing of the node.
    pub(super) fn start_anew(&mut self) {
        self.link.start_anew();
        self.asked = None;
    }

    /// The owner was silent, or has forgotten the node meanwhile: all is to be asked for.
    pub(super) const fn doubt(&mut self) {
        if self.link.has_totals() {
            self.link.doubt();
            self.asked = None;
        }
    }

    /// Others' connections with a backend.
    pub(super) fn others(&self, backend: BackendKey) -> u64 {
        match &self.past {
            Some((past, _)) => past.get(&backend).copied().unwrap_or_default(),
            None => self.link.others(backend),
        }
    }

    /// Others' connections with all backends with which they have any.
    pub(super) fn all_others(&self) -> BTreeMap<BackendKey, u64> {
        self.past.as_ref().map_or_else(|| self.link.all_others(), |(past, _)| past.clone())
    }

    /// Until when what is known of others is worth more than nothing; `None`: it isn't. `heard`: when the owner said
    /// anything last.
    pub(super) fn good_until(&self, heard: Option<Duration>) -> Option<Duration> {
        let arrivals = (f64::from(self.pool) / 2.0).max(STALE) / self.rate.max(f64::MIN_POSITIVE);
        let stale = Duration::try_from_secs_f64(arrivals).unwrap_or(Duration::MAX);
        let stale = self.as_of.saturating_add(self.gap).saturating_add(stale);
        if let Some((_, given_up)) = &self.past {
            return Some(stale.min(*given_up + SILENT));
        }
        if !self.link.usable() {
            return None;
        }
        let out_of_step = if self.link.in_step() { Duration::MAX } else { self.as_of + SILENT };
        Some(stale.min(heard? + SILENT).min(out_of_step))
    }

    /// How old what is known is.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        self.link.has_totals().then(|| now.saturating_sub(self.as_of))
    }

    /// Arrivals that nobody has told of yet, twice as many as are to be expected: those of a round trip, and all
    /// since the owner's last word if it is late. At least 1.
    pub(super) fn under_way(&self, now: Duration) -> f64 {
        let untold = if self.is_late(now) { now.saturating_sub(self.as_of) } else { Duration::ZERO };
        (2.0 * self.rate * (self.delay.unwrap_or(USUAL_DELAY) + untold).as_secs_f64()).max(1.0)
    }

    /// The owner would have told of an arrival by now, if all goes well: that there was none is not to be believed.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        self.expected().is_some_and(|expected| now >= expected)
    }

    fn expected(&self) -> Option<Duration> {
        let wait = Duration::try_from_secs_f64(DOUBTFUL / self.rate.max(f64::MIN_POSITIVE)).ok()?;
        let usual = self.gap + self.delay.unwrap_or(USUAL_DELAY);
        Some(self.as_of + usual + wait).filter(|_| wait < SILENT)
    }

    /// When words are others because the owner's next word is late, next after `now`: whenever another eighth of the
    /// backends may have got a connection.
    fn late(&self, now: Duration) -> Option<Duration> {
        let expected = self.expected()?;
        let step = Duration::try_from_secs_f64(f64::from(self.pool.max(1)) / 8.0 / self.rate).ok()?;
        let step = step.max(REPORT_GAP);
        let Some(late) = now.checked_sub(expected) else { return Some(expected) };
        let steps = late.as_nanos() / step.as_nanos() + 1;
        Some(expected + step * u32::try_from(steps).ok()?)
    }

    /// Nothing of the service is left, and nothing was for long.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.own.is_empty() && now >= self.used + LINGER
    }

    fn again(&self, now: Duration, heard: Option<Duration>) -> Duration {
        let silent = heard.is_none_or(|heard| now >= heard + SILENT);
        let slow = self.delay.unwrap_or_default() * 3;
        if silent { AGAIN_IN_SILENCE } else { AGAIN.max(slow) }
    }

    /// When something is to be said, as far as that is known now.
    pub(super) fn due(&self, now: Duration, heard: Option<Duration>) -> Duration {
        let again = self.again(now, heard);
        let mut due = Duration::MAX;
        if let Some(until) = self.good_until(heard).filter(|until| *until > now) {
            due = until.min(self.late(now).unwrap_or(Duration::MAX));
        }
        if self.own.is_empty() {
            due = due.min(self.used + LINGER);
        }
        if self.owner.is_none() {
            return due;
        }
        if !self.link.in_step() {
            due = due.min(self.asked.map_or(now, |asked| asked + again));
        }
        if self.link.has_totals() || self.asked.is_some() {
            let waiting = self.link.waiting_since().map(|since| since + again);
            let want = self.want.map(|want| self.sent.map_or(want, |sent| want.max(sent + REPORT_GAP)));
            due = [waiting, want].into_iter().flatten().fold(due, Duration::min);
        }
        due
    }

    /// Says to the owner what is due.
    pub(super) fn say(&mut self, now: Duration, me: Me, heard: Option<Duration>, out: &mut Vec<Frame>) {
        let again = self.again(now, heard);
        let (node, service) = (me.node, me.service);
        let ask = !self.link.in_step() && self.asked.is_none_or(|asked| asked + again <= now);
        if ask && self.link.has_totals() {
            self.asked = Some(now);
            out.push(Frame::Ask(Ask { from: node, service }));
        } else if ask {
            self.asked = Some(now);
            out.push(Frame::Subscribe(Subscribe { node, service }));
            self.report(now, me, out);
            return;
        }
        let waiting = self.link.waiting_since().is_some_and(|since| since + again <= now);
        let wanted = self.want.is_some_and(|want| want <= now);
        let spaced = self.sent.is_none_or(|sent| sent + REPORT_GAP <= now);
        if spaced && (waiting || wanted) {
            self.report(now, me, out);
        }
    }

    fn report(&mut self, now: Duration, me: Me, out: &mut Vec<Frame>) {
        let base = self.link.base();
        let mut backends: BTreeSet<_> = std::mem::take(&mut self.unsent);
        backends.extend(self.link.unacknowledged());
        if base == 0 {
            // With those that have none any more: if this one is lost, the next must know of them.
            backends.extend(self.own.keys());
        }
        let open = |backend| self.own.get(backend).copied().unwrap_or_default();
        let counts: Vec<_> = backends.iter().map(|backend| (*backend, open(backend))).collect();
        self.seq += 1;
        let listed = counts.iter().map(|(backend, open)| Own { backend: *backend, open: *open }).collect();
        out.push(Frame::Report(Report {
            node: me.node,
            service: me.service,
            epoch: me.epoch,
            seq: self.seq,
            base,
            pool: self.pool,
            counts: listed,
        }));
        (self.sent, self.want) = (Some(now), None);
        let opens = std::mem::take(&mut self.opens);
        if !self.link.send(now, self.seq, opens, counts) {
            // Nobody answers, or too slowly: all of it from the start.
            self.start_anew();
        }
    }
}
