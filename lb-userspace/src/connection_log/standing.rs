//! What the status says of records that were lost: for a while after each loss.

use std::time::{Duration, Instant};

use super::Totals;

/// How long a loss is a problem.
const FRESH: Duration = Duration::from_secs(600);
/// How often the figure in the status is brought up to date.
const PACE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Standing {
    /// Records that are lost, as the status has it, and since when.
    said: Option<(u64, Instant)>,
    /// All that were lost when the last loss was over and done with.
    forgotten: u64,
}

impl Standing {
    /// What the status is to say from now on; `None`: nothing has changed.
    pub fn look(&mut self, totals: Totals, now: Instant) -> Option<Result<(), String>> {
        let lost = totals.lost.saturating_sub(self.forgotten);
        match self.said {
            None if lost == 0 => None,
            Some((said, when)) if said == lost => {
                if now.saturating_duration_since(when) < FRESH {
                    return None;
                }
                *self = Self { said: None, forgotten: totals.lost };
                Some(Ok(()))
            }
            Some((_, when)) if now.saturating_duration_since(when) < PACE => None,
            _ => {
                self.said = Some((lost, now));
                Some(Err(format!(
                    "connection log: {lost} ended connections have no line in it; see docs/logging.md"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_said_for_a_while() {
        let (mut standing, began) = (Standing::default(), Instant::now());
        let mut look = |lost, seconds| {
            let now = began + Duration::from_millis((seconds * 1000.0) as u64);
            let said = standing.look(Totals { written: 5, lost }, now);
            said.map(|said| said.map_err(|e| e.split(' ').nth(2).unwrap_or_default().to_string()))
        };
        assert_eq!(look(0, 0.0), None);
        assert_eq!(look(3, 1.0), Some(Err("3".into())));
        assert_eq!(look(4, 1.5), None, "in a moment");
        assert_eq!(look(9, 2.1), Some(Err("9".into())));
        assert_eq!(look(9, 600.0), None);
        assert_eq!(look(9, 603.0), Some(Ok(())));
        assert_eq!(look(9, 9000.0), None);
        assert_eq!(look(10, 9001.0), Some(Err("1".into())), "since then");
    }
}
