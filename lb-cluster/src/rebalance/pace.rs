//! How many connections may be granted now, for the budget's sake.

use std::{collections::VecDeque, time::Duration};

use super::{Budget, WINDOW, node::MAX_ASK_GAP};

/// A connection, in tokens: what one open connection brings with a budget of 1 in each nanosecond makes one of this
/// many. So nothing is ever rounded.
const CONNECTION: u128 = Budget::WHOLE as u128 * WINDOW.as_nanos();
/// Grants within so long are remembered as one, at the time of the last.
const TOGETHER: Duration = Duration::from_millis(100);

/// Tokens, which come continuously, and what was granted within the last [`WINDOW`].
///
/// Tokens alone spread grants over time but allow the unspent ones on top of a minute's budget. So the sum of the
/// window is what is kept to, and unspent tokens may be as many as come between two asks of a node that has to wait.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    now: Duration,
    tokens: u128,
    log: VecDeque<Granted>,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    first: Duration,
    last: Duration,
    connections: u64,
}

impl Pace {
    /// Nothing to spend yet.
    pub(super) const fn new(now: Duration) -> Self {
        Self { now, tokens: 0, log: VecDeque::new() }
    }

    /// It is later, or as late as before, and there are so many connections.
    pub(super) fn advance(&mut self, now: Duration, budget: Budget, open: u64) {
        let rate = u128::from(open) * u128::from(budget.thousandths());
        let came = rate.saturating_mul(now.saturating_sub(self.now).as_nanos());
        let most = CONNECTION + rate * MAX_ASK_GAP.as_nanos();
        self.tokens = self.tokens.saturating_add(came).min(most);
        self.now = now;
        while self.log.front().is_some_and(|granted| granted.last + WINDOW <= now) {
            self.log.pop_front();
        }
    }

    /// How many may be granted now.
    pub(super) fn allowed(&self, budget: Budget, open: u64) -> u64 {
        let left = budget.of(open).saturating_sub(self.granted_within(WINDOW));
        left.min(u64::try_from(self.tokens / CONNECTION).unwrap_or(u64::MAX))
    }

    /// So many were granted, at most what is allowed.
    pub(super) fn grant(&mut self, connections: u64) {
        self.tokens -= u128::from(connections) * CONNECTION;
        let now = self.now;
        match self.log.back_mut().filter(|granted| now < granted.first + TOGETHER) {
            Some(granted) => (granted.last, granted.connections) = (now, granted.connections + connections),
            None => self.log.push_back(Granted { first: now, last: now, connections }),
        }
    }

    /// How many were granted within the last `time`, at most [`WINDOW`].
    pub(super) fn granted_within(&self, time: Duration) -> u64 {
        let within = |granted: &&Granted| granted.last + time > self.now;
        self.log.iter().rev().take_while(within).map(|granted| granted.connections).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever is asked when, and however many connections there are.
        #[test]
        fn no_window_has_more_than_a_minute_s_budget(
            budget in "(100|[1-9]?[0-9](\\.[0-9]{1,3})?|0\\.[0-9]{2}1)%/min",
            asks in prop::collection::vec((0u64..20_000, 0u64..5_000), 1..300),
        ) {
            let Ok(budget) = budget.parse::<Budget>() else { return Ok(()) };
            let mut pace = Pace::new(Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut granted: Vec<(Duration, u64)> = Vec::new();
            for (wait, open) in asks {
                now += Duration::from_millis(wait);
                pace.advance(now, budget, open);
                let allowed = pace.allowed(budget, open);
                pace.grant(allowed);
                granted.push((now, allowed));
                let window: u64 =
                    granted.iter().filter(|(at, _)| *at + WINDOW > now).map(|(_, connections)| connections).sum();
                prop_assert!(allowed == 0 || window <= budget.of(open), "{window} of {open} at {budget}");
            }
        }

        /// And it isn't much less, where one asks every few seconds.
        #[test]
        fn a_budget_can_be_spent(open in 1u64..1_000_000, gap in 1u64..8_000) {
            let budget: Budget = "1%/min".parse().unwrap();
            let mut pace = Pace::new(Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut granted = 0;
            while now < WINDOW * 100 {
                now += Duration::from_millis(gap);
                pace.advance(now, budget, open);
                let allowed = pace.allowed(budget, open);
                pace.grant(allowed);
                granted += allowed;
            }
            let due = (open as f64).min(budget.of(open) as f64 * 100.0);
            prop_assert!(granted as f64 >= due * 0.85 - 1.0, "{granted} of {due}");
        }
    }
}
