//! How fast connections come, and how often it is worth telling.

use std::time::Duration;

/// What is averaged over: long enough for a few connections of a herd, short enough to see one begin.
const MEMORY: f64 = 0.2;
/// Totals are never closer together.
pub const MIN_GAP: Duration = Duration::from_millis(2);
/// In a stream that goes on and on they are this far apart: the first of some connections is told of at once, the others
/// together. Of 100 a second at random moments, half are known at once or within 3 ms, and two fifths of the totals
/// are sent.
pub const STEADY_GAP: Duration = Duration::from_millis(5);
/// So many totals in a row are a herd's, each told of as soon as it can be.
const HERD: u32 = 500;
/// After so long, there may be one more.
const ONE_MORE: Duration = Duration::from_millis(40);
/// Nor further apart for having many connections already.
pub const MAX_GAP: Duration = Duration::from_millis(250);

/// Connections a second, of late: a mean in which older ones count less and less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    rate: f64,
    at: Duration,
}

impl Pace {
    /// So many were opened.
    pub(super) fn opened(&mut self, now: Duration, connections: u64) {
        self.rate = self.rate(now) + connections as f64 / MEMORY;
        self.at = now;
    }

    /// Connections a second.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        self.rate * (-now.saturating_sub(self.at).as_secs_f64() / MEMORY).exp()
    }
}

/// Tells a herd from a stream: a token bucket for totals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Herd {
    /// When it is full again if nothing more is told.
    full: Duration,
}

impl Herd {
    const CAPACITY: Duration = ONE_MORE.saturating_mul(HERD);

    /// Totals were told.
    pub(super) fn told(&mut self, now: Duration) {
        self.full = (self.full.max(now) + ONE_MORE).min(now + Self::CAPACITY);
    }

    /// More has been told than a herd takes.
    pub(super) fn is_stream(&self, now: Duration) -> bool {
        self.full + ONE_MORE > now + Self::CAPACITY
    }
}

/// What the time between totals depends on.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Who is told.
    pub subscribers: usize,
    /// How many messages a second may be sent for one service, over all subscribers. Greater than 0.
    pub budget: f64,
    /// The service's backends that take new flows.
    pub backends: u32,
    /// Its open connections.
    pub open: u64,
    /// Connections opened a second.
    pub rate: f64,
    /// They have come for so long that they are no herd.
    pub stream: bool,
}

impl Load {
    /// Time between totals: as much as the budget asks for, at least [`MIN_GAP`], in a stream [`STEADY_GAP`]. With many connections, one more or
    /// less on a backend matters less: as many as are the square of a 200th of the mean, for each backend, may go
    /// untold, up to [`MAX_GAP`]. But for one: to let a single one wait saves nothing. (With a 100th, ten backends of
    /// 100 that restart one after another end at 1.04 instead of 1.01.)
    pub fn gap(&self) -> Duration {
        let messages = Duration::try_from_secs_f64(self.subscribers as f64 / self.budget).unwrap_or(MAX_GAP);
        let backends = f64::from(self.backends.max(1));
        let mean = self.open as f64 / backends;
        let untold = (backends * (mean / 200.0).powi(2) - 1.0).max(0.0) / self.rate.max(f64::MIN_POSITIVE);
        let fullness = Duration::try_from_secs_f64(untold).map_or(MAX_GAP, |gap| gap.min(MAX_GAP));
        let least = if self.stream { STEADY_GAP } else { MIN_GAP };
        least.max(messages).max(fullness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_pace_is_found_and_forgotten() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        for i in 0..1_000 {
            pace.opened(ms(2 * i), 1);
        }
        assert!((pace.rate(ms(2_000)) - 500.0).abs() < 5.0, "{}", pace.rate(ms(2_000)));
        assert!(pace.rate(ms(4_000)) < 0.1);
    }

    #[test]
    fn a_stream_is_what_goes_on_for_longer_than_a_herd() {
        let ms = Duration::from_millis;
        let mut herd = Herd::default();
        let tell = |herd: &mut Herd, now| {
            herd.told(now);
            herd.is_stream(now)
        };
        // 500 of a herd, 2 ms apart, in which time 25 more come.
        let until = |herd: &mut Herd| (0..).position(|i| tell(herd, ms(2 * i))).expect("it is spent");
        assert_eq!(until(&mut herd), 525);
        // It stays one at 25 a second and more, and is none a moment later.
        assert!((0..1_000).all(|i| tell(&mut herd, ms(1_050 + 40 * i))));
        assert!(!herd.is_stream(ms(1_050 + 40 * 1_000 + 1)));
        // Eight a second never are.
        let mut rare = Herd::default();
        assert!(!(0..10_000).any(|i| tell(&mut rare, ms(125 * i))));
    }

    #[test]
    fn the_gap_follows_budget_and_fullness() {
        let load =
            Load { subscribers: 100, budget: 100_000.0, backends: 50, open: 500, rate: 500.0, stream: false };
        assert_eq!(load.gap(), MIN_GAP);
        assert_eq!(Load { stream: true, ..load }.gap(), STEADY_GAP);
        assert_eq!(Load { stream: true, open: 10_000, ..load }.gap(), Duration::from_millis(98));
        assert_eq!(Load { subscribers: 5_000, budget: 1e6, ..load }.gap(), Duration::from_millis(5));
        // 50 backends with 200 each: 49 connections may go untold.
        assert_eq!(Load { open: 10_000, ..load }.gap(), Duration::from_millis(98));
        assert_eq!(Load { open: 50_000, ..load }.gap(), MAX_GAP);
        // Nobody comes: what is told then is of those that leave.
        assert_eq!(Load { open: 0, rate: 0.0, ..load }.gap(), MIN_GAP);
        assert_eq!(Load { rate: 0.0, ..load }.gap(), MIN_GAP);
        assert_eq!(Load { open: 10_000, rate: 0.0, ..load }.gap(), MAX_GAP);
        assert_eq!(Load { backends: 0, rate: 0.0, ..load }.gap(), MAX_GAP);
    }
}
