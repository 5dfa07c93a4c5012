//! A drain in the state file, and when its deadline is.
//!
//! A deadline counts by the machine's uptime, which nobody can set. What was noted before the machine was started anew
//! is counted by the date instead: there is no other clock that both have seen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::model::uptime;

/// Longest time a drain may be given: a year.
pub const LONGEST: u64 = 365 * 86_400;

/// Where the kernel says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeDrain {
    /// When it began, in seconds since the Unix epoch.
    pub since: f64,
    /// Seconds it may take.
    pub deadline: Option<u64>,
    /// When it began, by the machine's uptime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Uptime>,
}

/// A moment by the machine's uptime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uptime {
    /// Which start of the machine it counts from.
    id: String,
    /// Seconds since then; negative: before it.
    seconds: f64,
}

/// What all clocks say.
#[derive(Clone, Debug)]
pub struct Now {
    /// Which start of the machine this is.
    boot: String,
    uptime: Duration,
    /// Seconds since the Unix epoch.
    date: f64,
}

impl Now {
    /// Reads them.
    pub fn read() -> Self {
        Self {
            // Without it no drain is taken for one of this start, and the date has to do.
            boot: std::fs::read_to_string(BOOT_ID).map_or_else(|_| String::new(), |id| id.trim().into()),
            uptime: uptime::now(),
            date: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        }
    }
}

impl RuntimeDrain {
    /// One that begins now and may take `deadline` seconds.
    pub fn begin(deadline: Option<u64>) -> Self {
        let now = Now::read();
        // Whole milliseconds are read from a file as they were written.
        let millis = |seconds: f64| (seconds * 1e3).floor() / 1e3;
        let boot = Some(Uptime { id: now.boot, seconds: millis(now.uptime.as_secs_f64()) });
        Self { since: millis(now.date), deadline, boot }
    }

    /// When it began by the uptime, and how long it may take. One that began before the machine was started counts from
    /// there, and may take what was left then.
    pub fn by_uptime(&self) -> (Duration, Option<Duration>) {
        let began = self.boot.as_ref().map_or(0.0, |boot| boot.seconds);
        let after = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
        let since = after(began);
        // Years of seconds are far from where a sum loses any.
        let end = self.deadline.map(|deadline| after(began + deadline.min(LONGEST) as f64));
        (since, end.map(|end| end.saturating_sub(since)))
    }

    /// Takes over what a state file says. What was noted at an earlier start of the machine, or can't be, is put on this
    /// one's clock by the date; a date to come is now.
    pub fn adopt(&mut self, now: &Now) {
        self.deadline = self.deadline.map(|deadline| deadline.min(LONGEST));
        let current = |boot: &Uptime| {
            boot.id == now.boot && !boot.id.is_empty() && boot.seconds <= now.uptime.as_secs_f64()
        };
        if self.boot.as_ref().is_some_and(current) {
            return;
        }
        let ago = if self.since.is_finite() { (now.date - self.since).max(0.0) } else { 0.0 };
        self.boot = Some(Uptime { id: now.boot.clone(), seconds: now.uptime.as_secs_f64() - ago });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now(boot: &str, uptime: u64, date: f64) -> Now {
        Now { boot: boot.into(), uptime: Duration::from_secs(uptime), date }
    }

    fn drain(boot: &str, seconds: f64, since: f64) -> RuntimeDrain {
        RuntimeDrain { since, deadline: Some(60), boot: Some(Uptime { id: boot.into(), seconds }) }
    }

    #[test]
    fn a_clock_that_is_set_moves_no_deadline() {
        for date in [10_000.0 - 3_600.0, 10_000.0, 10_000.0 + 3_600.0] {
            let mut drain = drain("a", 100.0, 10_000.0);
            drain.adopt(&now("a", 130, date));
            assert_eq!(drain.by_uptime(), (100 * SECOND, Some(60 * SECOND)), "the date says {date}");
        }
    }

    #[test]
    fn after_a_start_of_the_machine_the_date_counts() {
        for (uptime, date, wanted) in [
            (50, 10_040.0, (10 * SECOND, 60 * SECOND)),
            (10, 10_040.0, (Duration::ZERO, 30 * SECOND)),
            (10, 20_000.0, (Duration::ZERO, Duration::ZERO)),
            (10, 9_000.0, (10 * SECOND, 60 * SECOND)),
        ] {
            let mut drain = drain("a", 1_000.0, 10_000.0);
            drain.adopt(&now("b", uptime, date));
            assert_eq!(drain.by_uptime(), (wanted.0, Some(wanted.1)), "up {uptime} s, the date says {date}");
        }
    }

    #[test]
    fn a_file_of_an_earlier_build_is_understood() {
        let mut drain: RuntimeDrain = serde_json::from_str(r#"{"since": 10000.0, "deadline": 60}"#).unwrap();
        drain.adopt(&now("b", 500, 10_020.0));
        assert_eq!(drain.by_uptime(), (480 * SECOND, Some(60 * SECOND)));
    }

    #[test]
    fn nonsense_in_a_file_has_bounds() {
        for (since, seconds, deadline) in
            [(f64::MAX, f64::MAX, u64::MAX), (-1e300, -1e300, u64::MAX), (f64::NAN, 1.0, 0)]
        {
            let mut drain = RuntimeDrain { deadline: Some(deadline), ..drain("a", seconds, since) };
            drain.adopt(&now("b", 500, 10_020.0));
            let (since, deadline) = drain.by_uptime();
            assert!(since <= 500 * SECOND && deadline.unwrap().as_secs() <= LONGEST);
        }
    }

    #[test]
    fn one_that_begins_now_is_kept_over_a_restart_of_the_agent() {
        let mut drain = RuntimeDrain::begin(Some(8));
        let before = drain.clone();
        drain.adopt(&Now::read());
        assert_eq!(drain, before);
        assert!(uptime::now() - drain.by_uptime().0 < 5 * SECOND);
    }
}
