//! What a walk over the flow tables found, and what follows for the accounting.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use lb_common::{
    abi::{BackendId, ServiceId},
    expiry::Timeout,
};

use crate::datapath::counts::AllCounts;

/// Counts of one walk.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Flows in the tables, lingering ones included.
    pub flows: u64,
    /// Those among them whose packets are translated: not sockets, and not flows past VIPs.
    pub translated: u64,
    /// Flows that count as active, by backend.
    pub counted: HashMap<BackendId, u32>,
    /// All flows, by backend.
    pub pinned: HashMap<BackendId, u32>,
    /// Addresses of backends to which flows past their VIPs are pinned: they are told by those, and have no backend.
    pub past: HashSet<IpAddr>,
    /// Age in milliseconds of the oldest flow that counts, by backend.
    pub oldest: HashMap<BackendId, u64>,
    /// Flows that ran into a timeout, by service.
    pub timeouts: HashMap<(ServiceId, Timeout), u64>,
    /// Walks done so far.
    pub generation: u64,
    /// Sum of the differences between the counters and the recount. See [`Recount`].
    pub drift: i64,
}

impl Census {
    /// One that counts, open for so many milliseconds.
    pub fn count(&mut self, backend: BackendId, age: u64) {
        *self.counted.entry(backend).or_default() += 1;
        let oldest = self.oldest.entry(backend).or_default();
        *oldest = age.max(*oldest);
    }
}

/// Compares counters with what walks find.
///
/// A walk takes a while and connections come and go meanwhile; so a difference counts as drift only if the counter read the
/// same before and after the walk, and the same difference was there at the walk before. The counter may have moved there and
/// back, as it does where connections open and close one at a time: the total says whether one was opened, and where some
/// were, the difference has to last. It is reported, never repaired.
#[derive(Debug, Default)]
pub struct Recount {
    suspects: HashMap<BackendId, Suspect>,
}

/// A difference that was seen.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    difference: i64,
    /// Connections of the backend so far, when it was seen last.
    total: u64,
    /// In how many walks, one after another.
    walks: u32,
}

/// Walks that have to see a difference where connections are opened meanwhile.
const LASTING: u32 = 8;

impl Recount {
    /// The drift after a walk. `before`, `after`: the counters of all backends at its begin and end. `total`: connections of a
    /// backend so far.
    pub fn drift(
        &mut self,
        before: &AllCounts,
        after: &AllCounts,
        counted: &HashMap<BackendId, u32>,
        total: impl Fn(BackendId) -> u64,
    ) -> i64 {
        let mut suspects = HashMap::new();
        let mut drift = 0;
        // Of all others both are 0.
        let none = counted.keys().filter(|id| after.of(**id) == 0).map(|id| (*id, 0));
        for (id, value) in after.iter().chain(none) {
            if before.of(id) != value {
                continue;
            }
            let difference = i64::from(value) - i64::from(counted.get(&id).copied().unwrap_or(0));
            if difference == 0 {
                continue;
            }
            let mut suspect = Suspect { difference, total: total(id), walks: 1 };
            if let Some(last) = self.suspects.get(&id).filter(|last| last.difference == difference) {
                suspect.walks += last.walks;
                if last.total == suspect.total || suspect.walks >= LASTING {
                    drift += difference;
                }
            }
            suspects.insert(id, suspect);
        }
        self.suspects = suspects;
        drift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BackendId = BackendId(16);

    fn counted(n: u32) -> HashMap<BackendId, u32> {
        HashMap::from([(ID, n)])
    }

    fn counts(n: u32) -> AllCounts {
        AllCounts::from_iter([(ID, n)])
    }

    #[test]
    fn drift_needs_two_walks_and_a_quiet_counter() {
        let mut recount = Recount::default();
        let mut drift = |before, after, counted: &HashMap<BackendId, u32>| {
            recount.drift(&counts(before), &counts(after), counted, |_| 9)
        };
        assert_eq!(drift(5, 6, &counted(5)), 0, "the counter moved");
        assert_eq!(drift(6, 6, &counted(5)), 0, "seen once");
        assert_eq!(drift(6, 6, &counted(5)), 1);
        assert_eq!(drift(6, 6, &HashMap::new()), 0, "another difference");
        assert_eq!(drift(6, 6, &counted(6)), 0);
        assert_eq!(drift(0, 0, &counted(2)), 0, "seen once");
        assert_eq!(drift(0, 0, &counted(2)), -2, "a flow that isn't counted");
    }

    #[test]
    fn drift_under_traffic_has_to_last() {
        let mut recount = Recount::default();
        // One connection after another: the counter is 1 at both ends of a walk that met none, or two.
        for total in 1..u64::from(LASTING) {
            assert_eq!(recount.drift(&counts(1), &counts(1), &counted(0), |_| total), 0, "at {total}");
        }
        assert_eq!(recount.drift(&counts(1), &counts(1), &counted(0), |_| 99), 1);
        assert_eq!(recount.drift(&counts(1), &counts(1), &counted(1), |_| 100), 0);
        assert_eq!(recount.drift(&counts(1), &counts(1), &counted(0), |_| 101), 0, "from the first again");
    }
}
