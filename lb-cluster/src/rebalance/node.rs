//! The node's side: what it could move, when it asks, and which answers count.

use std::time::Duration;

use super::{ANSWER_GOOD_FOR, Answer, Ask, Backend, Move, Settings, WINDOW, shares::Shares};
use crate::BackendKey;

/// A node never asks more often.
pub const ASK_GAP: Duration = Duration::from_secs(1);
/// Where it is granted nothing, it asks less and less often, down to this.
pub const MAX_ASK_GAP: Duration = Duration::from_secs(8);

/// How many connections a node could move: its idle ones, at most what the backend has above fair. `idle`: each
/// backend once. Nothing, if no backend has more than one above fair.
pub fn wants(idle: &[(BackendKey, u64)], pool: &[Backend]) -> Vec<Move> {
    let shares = Shares::of(pool);
    if shares.even {
        return Vec::new();
    }
    let above = |key: BackendKey| {
        let backend = pool.iter().find(|backend| backend.key == key && backend.weight != 0);
        backend.map_or(0, |backend| backend.open.saturating_sub(shares.fair(backend.weight, 0)))
    };
    let moves =
        |(key, idle): &(BackendKey, u64)| Move { backend: *key, connections: (*idle).min(above(*key)) };
    idle.iter().filter(|(_, idle)| *idle != 0).map(moves).filter(|it| it.connections != 0).collect()
}

/// What rebalancing would do.
#[derive(Clone, PartialEq, Debug)]
pub struct Estimate {
    /// What would be moved.
    pub moves: Vec<Move>,
    /// All of it.
    pub connections: u64,
    /// How long that takes at this budget, once it has begun.
    pub takes: Duration,
    /// The load of the fullest backend over the mean, by weight.
    pub ratio: f64,
    /// It would begin by itself: the ratio is above what is set.
    pub begins: bool,
}

/// A dry run: what would be moved now, if all of these stay idle and clients come back. `idle`: connections of all
/// nodes that could be moved, each backend once.
pub fn estimate(settings: &Settings, idle: &[(BackendKey, u64)], pool: &[Backend]) -> Estimate {
    let shares = Shares::of(pool);
    let moves = wants(idle, pool);
    let connections = moves.iter().map(|it| it.connections).sum::<u64>();
    // A window's grants, rounded down as they are; or less than one.
    let part = shares.all as f64 * f64::from(settings.budget.thousandths()) / f64::from(super::Budget::WHOLE);
    let window = if part < 1.0 { part } else { part.floor() };
    let windows = if connections == 0 { 0.0 } else { connections as f64 / window };
    let takes = Duration::try_from_secs_f64(windows * WINDOW.as_secs_f64()).unwrap_or(Duration::MAX);
    let begins = !shares.even && shares.ratio > settings.above();
    Estimate { moves, connections, takes, ratio: shares.ratio, begins }
}

/// When a node asks for one service, and which answers it uses.
#[derive(Clone, Debug)]
pub struct Asker {
    number: u64,
    due: Duration,
    gap: Duration,
    /// What isn't answered yet.
    asked: Option<(Duration, Ask)>,
}

impl Asker {
    /// It has asked nothing. `number`: of its first ask, greater than those of the agent's last life: microseconds of
    /// the wall clock.
    pub const fn new(number: u64) -> Self {
        Self { number, due: Duration::ZERO, gap: ASK_GAP, asked: None }
    }

    /// May it ask already? Only then need it be known what is idle.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    /// What is to be asked now, if anything. `idle`: the node's own idle connections, each backend once. At most once
    /// in [`ASK_GAP`]; twice as long after each ask that nothing was granted for, up to [`MAX_ASK_GAP`].
    pub fn ask(&mut self, now: Duration, idle: &[(BackendKey, u64)], pool: &[Backend]) -> Option<Ask> {
        if !self.is_due(now) {
            return None;
        }
        let wants = wants(idle, pool);
        if wants.is_empty() {
            self.gap = ASK_GAP;
            return None;
        }
        let ask = Ask { number: self.number, wants };
        self.number += 1;
        self.due = now + self.gap;
        self.gap = MAX_ASK_GAP.min(self.gap * 2);
        self.asked = Some((now, ask.clone()));
        Some(ask)
    }

    /// The owner's answer has come: so many connections are to be reset, until [`ANSWER_GOOD_FOR`] after the ask,
    /// those that are still idle. Nothing, if it is too late, or not the answer to the last ask, or its second copy.
    /// Never more than was asked for.
    pub fn answered(&mut self, now: Duration, answer: &Answer) -> Vec<Move> {
        let Some((at, ask)) = self.asked.take_if(|(_, ask)| ask.number == answer.number) else {
            return Vec::new();
        };
        // A clock that was set back doesn't say how late it is.
        if now.checked_sub(at).is_none_or(|age| age >= ANSWER_GOOD_FOR) {
            return Vec::new();
        }
        let granted = |want: Move| {
            let grant = answer.grants.iter().find(|grant| grant.backend == want.backend)?;
            let connections = want.connections.min(grant.connections);
            (connections != 0).then_some(Move { connections, ..want })
        };
        let moves: Vec<_> = ask.wants.into_iter().filter_map(granted).collect();
        if !moves.is_empty() {
            (self.due, self.gap) = (at + ASK_GAP, ASK_GAP);
        }
        moves
    }

    /// The pool has changed, or the health or a drain of one of its backends: an answer that is still on its way was
    /// given without knowing that, and isn't used.
    pub fn changed(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: [Backend; 3] = [
        Backend { key: BackendKey(1), weight: 1, open: 30 },
        Backend { key: BackendKey(2), weight: 1, open: 0 },
        Backend { key: BackendKey(3), weight: 0, open: 50 },
    ];
    const IDLE: [(BackendKey, u64); 3] = [(BackendKey(1), 20), (BackendKey(3), 50), (BackendKey(4), 1)];

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn moves(backend: u64, connections: u64) -> Vec<Move> {
        vec![Move { backend: BackendKey(backend), connections }]
    }

    #[test]
    fn a_node_wants_to_move_what_is_idle_and_above_fair() {
        assert_eq!(wants(&IDLE, &POOL), moves(1, 15));
        assert_eq!(wants(&[(BackendKey(1), 4)], &POOL), moves(1, 4));
        assert_eq!(wants(&IDLE, &POOL[..1]), []);
    }

    #[test]
    fn a_dry_run_says_what_and_how_long() {
        let settings = |budget: &str, above| Settings::new(budget.parse().unwrap(), above).unwrap();
        let it = estimate(&settings("10%/min", 1.2), &IDLE, &POOL);
        // 8 of 80 in 62 seconds.
        assert_eq!((it.moves, it.connections, it.takes), (moves(1, 15), 15, s(62) * 15 / 8));
        assert!(it.begins && it.ratio == 2.0);
        let slow = estimate(&settings("0.5%/min", 2.0), &IDLE, &POOL);
        assert!(!slow.begins && (slow.takes.as_secs_f64() - 62.0 * 15.0 / 0.4).abs() < 1e-3, "{slow:?}");
        assert_eq!(estimate(&settings("1%/min", 1.2), &[], &POOL).takes, s(0));
        let error = Settings::new("1%/min".parse().unwrap(), 0.9).unwrap_err().to_string();
        assert!(error.starts_with("rebalancing above 0.9:") && error.ends_with("such as 1.2"), "{error}");
    }

    #[test]
    fn who_gets_nothing_asks_less_often() {
        let mut asker = Asker::new(7);
        let mut at = Vec::new();
        for now in 0..40 {
            if let Some(ask) = asker.ask(s(now), &IDLE, &POOL) {
                at.push(now);
                let grants = if now == 31 { moves(1, 1) } else { Vec::new() };
                asker.answered(s(now), &Answer { number: ask.number, grants });
            }
        }
        assert_eq!(at, [0, 1, 3, 7, 15, 23, 31, 32, 33, 35, 39]);
    }

    #[test]
    fn an_answer_counts_once_in_time_and_for_what_was_asked() {
        let mut asker = Asker::new(7);
        let answer = |number, connections| Answer { number, grants: moves(1, connections) };
        assert_eq!(asker.ask(s(10), &IDLE, &POOL).unwrap().number, 7);
        assert_eq!(asker.answered(s(11), &answer(6, 2)), []);
        assert_eq!(asker.answered(s(11), &answer(7, 99)), moves(1, 15));
        assert_eq!(asker.answered(s(11), &answer(7, 99)), []);
        assert_eq!(asker.ask(s(20), &IDLE, &POOL).unwrap().number, 8);
        assert_eq!(asker.answered(s(22), &answer(8, 2)), []);
        asker.ask(s(30), &IDLE, &POOL).unwrap();
        assert_eq!(asker.answered(s(29), &answer(9, 2)), []);
        asker.ask(s(40), &IDLE, &POOL).unwrap();
        asker.changed();
        assert_eq!(asker.answered(s(40), &answer(10, 2)), []);
    }
}
