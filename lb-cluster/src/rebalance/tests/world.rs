//! A cluster in memory: nodes with idle connections, a network that loses, doubles and delays, and clients that come
//! back, or not.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::super::*;

/// Where clients go whose connections were reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clients {
    /// To the least loaded backend.
    Least,
    /// To where they were.
    Same,
    /// Away.
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub(super) clients: Clients,
    /// Longest that a client needs to come back, milliseconds; less than [`RETURN`] by what frames and totals need.
    pub(super) back: u64,
    /// Frames that are lost, and doubled, of a hundred.
    pub(super) lost: u32,
    pub(super) doubled: u32,
    /// Longest that a frame takes, and that totals are old, milliseconds.
    pub(super) late: u64,
    pub(super) stale: usize,
}

/// One step of time, milliseconds.
pub(super) const STEP: u64 = 100;

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) settings: Settings,
    pub(super) conditions: Conditions,
    pub(super) weights: Vec<u32>,
    /// By node and backend.
    pub(super) open: Vec<Vec<u64>>,
    askers: Vec<Asker>,
    pub(super) grants: Grants,
    /// When, and how many; and the connections at that time.
    pub(super) granted: Vec<(Duration, u64, u64)>,
    pub(super) moved: Vec<(Duration, u64, u64)>,
    quiet_until: Duration,
    asks: BTreeMap<Duration, Vec<(usize, Ask)>>,
    answers: BTreeMap<Duration, Vec<(usize, Answer)>>,
    away: BTreeMap<Duration, Vec<(usize, usize)>>,
    /// What the owner has seen, the latest last.
    seen: VecDeque<Vec<u64>>,
    rng: StdRng,
}

impl World {
    pub(super) fn new(
        settings: Settings,
        conditions: Conditions,
        weights: Vec<u32>,
        open: Vec<Vec<u64>>,
        seed: u64,
    ) -> Self {
        let now = Duration::from_secs(1_000);
        Self {
            now,
            settings,
            conditions,
            askers: vec![Asker::new(1); open.len()],
            weights,
            open,
            grants: Grants::new(now),
            granted: Vec::new(),
            moved: Vec::new(),
            quiet_until: now + NEW_OWNER,
            asks: BTreeMap::new(),
            answers: BTreeMap::new(),
            away: BTreeMap::new(),
            seen: VecDeque::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn totals(&self) -> Vec<u64> {
        (0..self.weights.len()).map(|at| self.open.iter().map(|node| node[at]).sum()).collect()
    }

    fn pool_of(&self, totals: &[u64]) -> Vec<Backend> {
        let backend = |(at, (open, weight)): (usize, (&u64, &u32))| Backend {
            key: BackendKey(at as u64),
            weight: *weight,
            open: *open,
        };
        totals.iter().zip(&self.weights).enumerate().map(backend).collect()
    }

    pub(super) fn pool(&self) -> Vec<Backend> {
        self.pool_of(&self.totals())
    }

    /// As the owner sees it.
    pub(super) fn state(&mut self) -> State {
        let totals = self.seen.front().cloned().unwrap_or_else(|| self.totals());
        let pool = self.pool_of(&totals);
        self.grants.look(self.now, &self.settings, &pool)
    }

    /// All nodes learn of a change at once, and the owner.
    pub(super) fn changed(&mut self) {
        self.grants.changed(self.now);
        self.quiet_until = self.quiet_until.max(self.now + QUIET);
        self.askers.iter_mut().for_each(Asker::changed);
    }

    pub(super) fn restart_owner(&mut self) {
        self.grants = Grants::new(self.now);
        self.quiet_until = self.now + NEW_OWNER;
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(STEP);
            self.step();
        }
    }

    fn step(&mut self) {
        self.seen.push_back(self.totals());
        while self.seen.len() > self.conditions.stale + 1 {
            self.seen.pop_front();
        }
        self.come_back();
        let view = self.pool_of(&self.seen[0]);
        for node in 0..self.open.len() {
            let idle = (0..).map(BackendKey).zip(self.open[node].iter().copied()).collect::<Vec<_>>();
            if let Some(ask) = self.askers[node].ask(self.now, &idle, &view) {
                for at in self.deliveries() {
                    self.asks.entry(at).or_default().push((node, ask.clone()));
                }
            }
        }
        while let Some(due) = self.asks.first_entry().filter(|due| *due.key() <= self.now) {
            for (node, ask) in due.remove() {
                let answer = self.grants.ask(self.now, &self.settings, &view, &ask);
                let connections = answer.grants.iter().map(|it| it.connections).sum();
                assert!(connections == 0 || self.now >= self.quiet_until, "granted in quiet");
                self.granted.push((self.now, connections, view.iter().map(|it| it.open).sum()));
                for at in self.deliveries() {
                    self.answers.entry(at).or_default().push((node, answer.clone()));
                }
            }
        }
        while let Some(due) = self.answers.first_entry().filter(|due| *due.key() <= self.now) {
            for (node, answer) in due.remove() {
                for it in self.askers[node].answered(self.now, &answer) {
                    self.reset(node, it);
                }
            }
        }
    }

    /// When copies of a frame arrive.
    fn deliveries(&mut self) -> Vec<Duration> {
        let copies = match self.rng.random_range(0..100) {
            at if at < self.conditions.lost => 0,
            at if at < self.conditions.lost + self.conditions.doubled => 2,
            _ => 1,
        };
        let late = self.conditions.late;
        (0..copies).map(|_| self.now + Duration::from_millis(self.rng.random_range(0..=late))).collect()
    }

    fn reset(&mut self, node: usize, it: Move) {
        let at = it.backend.0 as usize;
        let connections = it.connections.min(self.open[node][at]);
        self.open[node][at] -= connections;
        for _ in 0..connections {
            let back = self.now + Duration::from_millis(self.rng.random_range(0..=self.conditions.back));
            self.away.entry(back).or_default().push((node, at));
        }
        let all = self.totals().iter().sum::<u64>() + self.under_way();
        self.moved.push((self.now, connections, all));
        let taking: u128 = (0..self.weights.len())
            .filter(|at| self.weights[*at] != 0)
            .map(|at| u128::from(self.totals()[at]))
            .sum::<u128>()
            + u128::from(self.under_way());
        let weights: u128 = self.weights.iter().map(|weight| u128::from(*weight)).sum();
        let fair = (taking * u128::from(self.weights[at])).div_ceil(weights) as u64;
        assert!(self.totals()[at] >= fair, "{} of {fair} left with backend {at}", self.totals()[at]);
    }

    /// Reset, and coming back.
    fn under_way(&self) -> u64 {
        if self.conditions.clients == Clients::Never {
            return 0;
        }
        self.away.values().map(|away| away.len() as u64).sum()
    }

    fn come_back(&mut self) {
        while let Some(due) = self.away.first_entry().filter(|due| *due.key() <= self.now) {
            for (node, was) in due.remove() {
                let to = match self.conditions.clients {
                    Clients::Same => was,
                    Clients::Never => continue,
                    Clients::Least => self.least(),
                };
                self.open[node][to] += 1;
            }
        }
    }

    /// As the kernel picks: where one more makes the least load.
    fn least(&self) -> usize {
        let totals = self.totals();
        let taking = (0..self.weights.len()).filter(|at| self.weights[*at] != 0);
        taking
            .min_by(|a, b| {
                let load = |one: usize, other: usize| totals[one] * u64::from(self.weights[other]);
                load(*a, *b).cmp(&load(*b, *a))
            })
            .unwrap()
    }
}
