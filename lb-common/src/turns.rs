//! Tables for round robin: who is next, slot by slot. A pool's turns are in proportion to weights and as far apart as
//! they can be: a member's k-th turn is at k parts of its weight, and the earliest is next.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::maglev::{Member, table_size};

/// A member's next turn.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// How many it has had.
    had: u64,
    weight: u64,
    /// Where it is among the members: of equals, the first is next.
    at: usize,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        // had / weight, without a division: both are below 2^20.
        (self.had * other.weight).cmp(&(other.had * self.weight)).then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

const fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Builds the table: a member's id per slot. Empty without members. Whole rounds, if one fits into a table of
/// [`table_size`]: then weights hold exactly, over any number of rounds. Everybody has a turn at least.
pub fn build(members: &[Member<'_>]) -> Vec<u32> {
    let size = u64::from(table_size(members.len()));
    let common = members.iter().fold(0, |common, member| divisor(u64::from(member.weight), common)).max(1);
    let round = members.iter().map(|member| u64::from(member.weight) / common).sum::<u64>();
    let slots = size.checked_div(round).unwrap_or(0).max(1) * round.min(size);
    let first =
        |(at, member): (usize, &Member<'_>)| Reverse(Turn { had: 0, weight: member.weight.into(), at });
    let mut turns: BinaryHeap<_> = members.iter().enumerate().map(first).collect();
    let next = |_| {
        let mut next = turns.peek_mut()?;
        let at = next.0.at;
        next.0.had += 1;
        Some(members[at].id)
    };
    (0..slots).map_while(next).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(weights: &[u32]) -> Vec<Member<'static>> {
        weights
            .iter()
            .enumerate()
            .map(|(i, weight)| Member { name: "", id: i as u32, weight: *weight })
            .collect()
    }

    fn counts(slots: &[u32], members: usize) -> Vec<u64> {
        let mut counts = vec![0; members];
        slots.iter().for_each(|id| counts[*id as usize] += 1);
        counts
    }

    #[test]
    fn equals_take_turns_in_their_order() {
        let slots = build(&members(&[7, 7, 7]));
        assert!(slots.iter().enumerate().all(|(at, id)| at % 3 == *id as usize));
        assert_eq!(slots.len() % 3, 0);
        assert!(build(&[]).is_empty());
        assert_eq!(build(&members(&[5]))[..3], [0, 0, 0]);
    }

    #[test]
    fn the_heavy_one_does_not_have_all_of_its_turns_at_once() {
        assert_eq!(build(&members(&[5, 1, 1]))[..14], [0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0]);
        assert_eq!(build(&members(&[2, 1]))[..6], [0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn who_weighs_little_has_a_turn_too() {
        let slots = build(&members(&[65_535, 1]));
        assert_eq!(counts(&slots, 2)[1], 1);
        assert_eq!(slots.len(), table_size(2) as usize);
    }

    #[test]
    fn the_largest_pool_fits() {
        assert_eq!(build(&members(&vec![3; 8_192])).len(), (table_size(8_192) as usize / 8_192) * 8_192);
    }

    proptest! {
        #[test]
        fn weights_hold_exactly_over_whole_rounds(weights in prop::collection::vec(1u32..40, 1..30)) {
            let slots = build(&members(&weights));
            let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (weight, count) in weights.iter().zip(counts(&slots, weights.len())) {
                prop_assert_eq!(count * all, u64::from(*weight) * slots.len() as u64);
            }
        }

        #[test]
        fn nobody_is_a_whole_turn_ahead_or_behind(weights in prop::collection::vec(1u32..40, 1..12)) {
            let slots = build(&members(&weights));
            let heaviest = f64::from(*weights.iter().max().unwrap());
            let mut counts = vec![0u64; weights.len()];
            for (at, id) in slots.iter().enumerate().take(1_000) {
                counts[*id as usize] += 1;
                // Two members, at any time: what they have had for their weights differs by one turn of the lighter.
                let had = |i: usize| counts[i] as f64 / f64::from(weights[i]);
                for i in 0..weights.len() {
                    for j in 0..weights.len() {
                        let turn = 1.0 / f64::from(weights[i].min(weights[j]));
                        prop_assert!((had(i) - had(j)).abs() <= turn + 1e-9, "after {at} of {heaviest}");
                    }
                }
            }
        }
    }
}
