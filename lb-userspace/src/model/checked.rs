//! What a backend's checks come to: rows of them take it out and bring it back. One that goes again soon after it came
//! back waits longer each time, since each time clients find out before it is out again.

use std::time::Duration;

use super::{HealthSpec, health::HealthState};

/// The longest pause before a backend is back, unless `rise` checks take longer by themselves.
const LONGEST: Duration = Duration::from_secs(300);
/// Who was well for so many times the last pause starts afresh.
const WELL: u32 = 10;

/// A backend's health, moved by its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// May it take new flows?
    pub up: bool,
    /// Checks in a row that said otherwise.
    against: u32,
    /// Good checks in a row that bring it back, or last did; 0: it hasn't been out yet.
    needed: u32,
    /// Good checks since it came back.
    well: u32,
    /// Bad checks in a row, of one that was taken for ill without any; `None`: checks have had their say.
    assumed: Option<u32>,
}

impl Health {
    /// Of a backend that was found like this.
    pub fn new(found: HealthState) -> Self {
        Self {
            up: found.healthy,
            against: 0,
            needed: 0,
            well: 0,
            assumed: (found.assumed && !found.healthy).then_some(0),
        }
    }

    /// A check came out like this. True: there is something to be told, since the backend's health has changed, or is
    /// by now known to be what was assumed.
    pub fn observe(&mut self, good: bool, spec: &HealthSpec) -> bool {
        if good == self.up {
            self.against = 0;
            self.well = self.well.saturating_add(u32::from(good));
            return self.confirms(spec);
        }
        self.against += 1;
        self.assumed = self.assumed.map(|_| 0);
        if self.against < if good { self.rise(spec) } else { spec.fall } {
            return false;
        }
        if good {
            *self = Self { up: true, against: 0, needed: self.rise(spec), well: 0, assumed: None };
        } else {
            self.fall(spec);
        }
        true
    }

    /// One more check says what was assumed. Are those as many as take a backend out that is in use?
    fn confirms(&mut self, spec: &HealthSpec) -> bool {
        let Some(bad) = &mut self.assumed else { return false };
        *bad += 1;
        let enough = *bad >= spec.fall;
        if enough {
            self.assumed = None;
        }
        enough
    }

    /// It is out.
    pub fn fall(&mut self, spec: &HealthSpec) {
        let soon = self.needed != 0 && self.well < self.needed.saturating_mul(WELL);
        let needed = if soon { self.needed.saturating_mul(2).min(longest(spec)) } else { spec.rise };
        *self = Self { up: false, against: 0, needed, well: 0, assumed: None };
    }

    /// Good checks in a row that bring it back.
    pub fn rise(&self, spec: &HealthSpec) -> u32 {
        self.needed.max(spec.rise)
    }
}

/// So many checks take the longest pause.
fn longest(spec: &HealthSpec) -> u32 {
    let checks = LONGEST.as_millis() / spec.interval.as_millis().max(1);
    u32::try_from(checks).unwrap_or(u32::MAX).max(spec.rise)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Probe;

    fn spec(rise: u32, fall: u32) -> HealthSpec {
        let second = Duration::from_secs(1);
        HealthSpec {
            probe: Probe::Tcp,
            port: None,
            interval: second,
            timeout: second,
            rise,
            fall,
            passive: false,
            panic: 0,
        }
    }

    fn found(healthy: bool, assumed: bool) -> Health {
        Health::new(HealthState { healthy, assumed, ramp: None })
    }

    #[test]
    fn one_that_was_assumed_to_be_ill_is_found_so_once() {
        let spec = spec(2, 3);
        let told = |health: &mut Health, checks: &[bool]| -> Vec<bool> {
            checks.iter().map(|good| health.observe(*good, &spec)).collect()
        };
        let mut ill = found(false, true);
        assert_eq!(told(&mut ill, &[false; 5]), [false, false, true, false, false]);
        assert!(!ill.up);
        assert_eq!(told(&mut ill, &[true; 3]), [false, true, false]);
        let mut unsure = found(false, true);
        let checks = [false, false, true, false, false, true, false, false, false];
        assert_eq!(told(&mut unsure, &checks), [[false; 8].as_slice(), &[true]].concat(), "in a row");
        let mut well = found(false, true);
        assert_eq!(told(&mut well, &[false, true, true]), [false, false, true]);
        assert_eq!(told(&mut well, &[false; 4]), [false, false, true, false]);
        assert_eq!(told(&mut found(false, false), &[false; 5]), [false; 5], "its checks said so before");
    }

    proptest! {
        #[test]
        fn only_a_row_of_checks_changes_anything(rise in 1u32..5, fall in 1u32..5, checks: Vec<bool>) {
            let spec = spec(rise, fall);
            let mut health = found(true, false);
            for (i, good) in checks.iter().enumerate() {
                let before = health.up;
                let changed = health.observe(*good, &spec);
                prop_assert_eq!(changed, before != health.up);
                if changed {
                    // As many of the last ones as it takes said so, and said what is now.
                    let needed = if health.up { rise } else { fall } as usize;
                    let row = checks[..=i].iter().rev().take_while(|c| **c == health.up).count();
                    prop_assert!(row >= needed);
                }
            }
        }
    }

    /// Good checks until it is back.
    fn until_back(health: &mut Health, spec: &HealthSpec) -> u32 {
        let mut checks = 1;
        while !health.observe(true, spec) {
            checks += 1;
        }
        checks
    }

    fn out(health: &mut Health, spec: &HealthSpec) {
        while !health.observe(false, spec) {}
    }

    #[test]
    fn who_goes_to_and_fro_waits_longer_each_time() {
        let spec = spec(2, 3);
        let mut health = found(true, false);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            out(&mut health, &spec);
            pauses.push(until_back(&mut health, &spec));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300], "at most five minutes");
        // Not long enough for the last pause.
        for _ in 0..2_999 {
            health.observe(true, &spec);
        }
        health.fall(&spec);
        assert_eq!(until_back(&mut health, &spec), 300);
        for _ in 0..3_000 {
            health.observe(true, &spec);
        }
        health.fall(&spec);
        assert_eq!(until_back(&mut health, &spec), 2, "afresh");
    }

    #[test]
    fn a_bad_check_begins_the_pause_anew() {
        let spec = spec(1, 1);
        let mut health = found(true, false);
        for _ in 0..3 {
            out(&mut health, &spec);
            until_back(&mut health, &spec);
        }
        out(&mut health, &spec);
        (0..7).for_each(|_| assert!(!health.observe(true, &spec)));
        health.observe(false, &spec);
        assert_eq!(until_back(&mut health, &spec), 8);
    }

    #[test]
    fn a_first_return_and_rare_checks_are_as_ever() {
        // Adopted as unhealthy.
        assert_eq!(until_back(&mut found(false, false), &spec(3, 1)), 3);
        let spec = HealthSpec { interval: Duration::from_secs(3_600), ..spec(2, 1) };
        let mut health = found(true, false);
        for _ in 0..3 {
            out(&mut health, &spec);
            assert_eq!(until_back(&mut health, &spec), 2);
        }
    }
}
