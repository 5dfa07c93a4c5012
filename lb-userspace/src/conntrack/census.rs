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
/// same before and after the walk, and the same difference was there at the walk before. It is reported, never repaired.
#[derive(Debug, Default)]
pub struct Recount {
    suspects: HashMap<BackendId, i64>,
}

impl Recount {
    /// The drift after a walk. `before`, `after`: the counters of all backends at its begin and end.
    pub fn drift(&mut self, before: &AllCounts, after: &AllCounts, counted: &HashMap<BackendId, u32>) -> i64 {
        let mut suspects = HashMap::new();
        let mut drift = 0;
        // Of all others both are 0.
        let none = counted.keys().filter(|id| after.of(**id) == 0).map(|id| (*id, 0));
        for (id, value) in after.iter().chain(none) {
            if before.of(id) != value {
                continue;
            }
            let difference = i64::from(value) - i64::from(counted.get(&id).copied().unwrap_or(0));
            if difference != 0 {
                if self.suspects.get(&id) == Some(&difference) {
                    drift += difference;
                }
                suspects.insert(id, difference);
            }
        }
        self.suspects = suspects;
        drift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_needs_two_walks_and_a_quiet_counter() {
        let counted = |n| HashMap::from([(BackendId(16), n)]);
        let counts = |n| AllCounts::from_iter([(BackendId(16), n)]);
        let mut recount = Recount::default();
        assert_eq!(recount.drift(&counts(5), &counts(6), &counted(5)), 0, "the counter moved");
        assert_eq!(recount.drift(&counts(6), &counts(6), &counted(5)), 0, "seen once");
        assert_eq!(recount.drift(&counts(6), &counts(6), &counted(5)), 1);
        assert_eq!(recount.drift(&counts(6), &counts(6), &HashMap::new()), 0, "another difference");
        assert_eq!(recount.drift(&counts(6), &counts(6), &counted(6)), 0);
        assert_eq!(recount.drift(&counts(0), &counts(0), &counted(2)), 0, "seen once");
        assert_eq!(recount.drift(&counts(0), &counts(0), &counted(2)), -2, "a flow that isn't counted");
    }
}
