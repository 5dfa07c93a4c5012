//! What becomes of clients' connections, as a sign of a backend's health: the datapath counts how many were accepted, refused by a
//! RST, and asked for again because nobody answered.

use std::{collections::HashMap, hash::Hash};

use lb_common::abi::BackendCounters;

/// So many that weren't accepted, with none accepted among them, mean that the backend isn't well.
const ENOUGH: u64 = 3;

/// What is known of one backend.
#[derive(Clone, Copy, Default)]
struct Sign {
    accepted: u64,
    rejected: u64,
    /// Not accepted since the last one that was.
    row: u64,
}

/// What is known of backends.
pub struct Signs<K> {
    known: HashMap<K, Sign>,
}

impl<K> Default for Signs<K> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Signs<K> {
    /// A backend's counters are these now. True: it has just shown that it isn't well. What came in since the last look came in no known
    /// order: if one was accepted, the others don't count.
    pub fn observe(&mut self, backend: &K, counters: &BackendCounters) -> bool {
        let (accepted, rejected) = (counters.accepted, counters.refused + counters.unanswered);
        // What happened before the first look is nobody's sign.
        let fresh = Sign { accepted, rejected, row: 0 };
        let sign = self.known.entry(backend.clone()).or_insert(fresh);
        let row =
            if accepted == sign.accepted { sign.row + rejected.saturating_sub(sign.rejected) } else { 0 };
        let shown = row >= ENOUGH;
        *sign = Sign { accepted, rejected, row: if shown { 0 } else { row } };
        shown
    }

    /// Forgets whom this says no to.
    pub fn keep(&mut self, wanted: impl Fn(&K) -> bool) {
        self.known.retain(|backend, _| wanted(backend));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_rejections_is_a_sign() {
        let mut signs = Signs::default();
        let mut see = |accepted, refused, unanswered| {
            signs.observe(&"b", &BackendCounters { accepted, refused, unanswered, ..Default::default() })
        };
        assert!(!see(10, 500, 500), "long ago");
        assert!(!see(10, 501, 500));
        assert!(!see(11, 502, 500), "one was accepted");
        assert!(!see(11, 503, 501));
        assert!(see(11, 503, 502), "refused or unanswered is one");
        assert!(!see(11, 503, 502), "said once");
        assert!(!see(12, 600, 502), "a crowd, and one of it was accepted");
    }
}
