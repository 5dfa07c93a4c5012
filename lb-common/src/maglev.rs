//! Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4), weighted.
//!
//! Each backend has an order of preference over the slots and takes the next free one when its turn comes; turns come in
//! proportion to weight. The paper's preferences are an offset and a stride; here they are a pseudo-random sequence, because two
//! backends with related strides compete all the way, and when one leaves the other moves: at 16,411 slots and ten backends up to
//! 1.4 % of the slots that should stay, against 0.8 % with random sequences (measured). Rows depend on names and weights only: backends are ordered by a hash of their names, never by id or by the
//! order in which they were added, so that every node builds the same table.

use crate::hash;

/// A backend that takes part.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name, the same on every node. Hashed as it is: the form of names must never change.
    pub name: &'a str,
    /// What to put in its slots.
    pub id: u32,
    /// 1..=65535.
    pub weight: u32,
}

/// Slots of a table for up to [`SMALL_POOL`] members; a prime.
///
/// A table's size must not change when a member comes or goes, or every flow is dealt anew; hence three sizes, not
/// one per pool. When one of ten leaves, the others must keep 99 % of their slots: 3 % move with 100 slots each, 0.6
/// % with these (tested below); and 100 slots for each of 164 members keep the imbalance under 1 %. 64 KiB.
pub const SMALL: u32 = 16_411;
/// Most members of a [`SMALL`] table.
pub const SMALL_POOL: usize = 164;
/// Slots of a table for up to [`LARGE_POOL`] members; a prime, and 100 for each. 400 KiB.
pub const LARGE: u32 = 102_407;
/// Most members of a [`LARGE`] table.
pub const LARGE_POOL: usize = 1_024;
/// Slots of a table for more; a prime, and 100 for each of 8,192 members. 3.2 MiB.
pub const HUGE: u32 = 819_229;

/// Sets the walks of equal names apart from other hashes of them; the same on every node.
const SEED: u32 = 0x666c_6f77;

const _: () = assert!(HUGE <= crate::abi::table::MAX_SLOTS);

/// Slots of the table for `n` members.
pub const fn table_size(n: usize) -> u32 {
    if n <= SMALL_POOL {
        SMALL
    } else if n <= LARGE_POOL {
        LARGE
    } else {
        HUGE
    }
}

/// FNV-1a (64 bits) over the name.
fn digest(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x0000_0100_0000_01b3))
}

struct Walker {
    id: u32,
    weight: u64,
    taken: u64,
    /// State of an xorshift generator (Marsaglia, "Xorshift RNGs", 2003); never 0, so it visits every other value, and with
    /// them every slot.
    state: u32,
}

impl Walker {
    fn next(&mut self, size: u32) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        hash::reduce(self.state, size)
    }
}

/// Builds the table: a member's id per slot. Empty without members.
pub fn build(members: &[Member<'_>]) -> Vec<u32> {
    if members.is_empty() {
        return Vec::new();
    }
    let size = table_size(members.len());
    let mut ordered: Vec<_> = members.iter().map(|m| (digest(m.name), m)).collect();
    ordered.sort_by(|a, b| (a.0, a.1.name).cmp(&(b.0, b.1.name)));
    let heaviest = members.iter().map(|m| m.weight as u64).max().unwrap_or(1);
    let mut walkers: Vec<Walker> = ordered
        .iter()
        .map(|(digest, m)| Walker {
            id: m.id,
            weight: m.weight as u64,
            taken: 0,
            state: hash::mix(*digest as u32 ^ hash::mix((digest >> 32) as u32 ^ SEED)).max(1),
        })
        .collect();
    let mut slots = vec![u32::MAX; size as usize];
    let mut used = vec![0u64; size.div_ceil(64) as usize];
    let mut left = size;
    let mut round = 0u64;
    while left > 0 {
        round += 1;
        for w in &mut walkers {
            // After `round` rounds a member has had its share of them: the heaviest a slot each round.
            if w.taken * heaviest >= round * w.weight {
                continue;
            }
            let at = loop {
                let at = w.next(size);
                let (word, bit) = (&mut used[(at / 64) as usize], 1 << (at % 64));
                if *word & bit == 0 {
                    *word |= bit;
                    break at;
                }
            };
            slots[at as usize] = w.id;
            w.taken += 1;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(n: usize, salt: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.{salt}.{}.{}:8080", i / 250, i % 250 + 1)).collect()
    }

    fn members(names: &[String]) -> Vec<Member<'_>> {
        names.iter().enumerate().map(|(i, name)| Member { name, id: i as u32 + 16, weight: 1 }).collect()
    }

    fn counts(slots: &[u32], n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        slots.iter().for_each(|id| counts[*id as usize - 16] += 1);
        counts
    }

    #[test]
    fn nobody_has_an_empty_table() {
        assert!(build(&[]).is_empty());
        for size in [SMALL, LARGE, HUGE] {
            assert!((2..910).all(|d| size % d != 0), "{size} is not a prime");
        }
    }

    #[test]
    fn imbalance_is_under_a_percent() {
        for n in [2, 3, 4, 5, 7, 10, 16, 50, 164, 165, 500, 1024, 1025, 4096, 8192] {
            let names = names(n, n % 200);
            let counts = counts(&build(&members(&names)), n);
            let mean = counts.iter().sum::<usize>() as f64 / n as f64;
            let most = *counts.iter().max().unwrap() as f64 / mean;
            let least = *counts.iter().min().unwrap() as f64 / mean;
            assert!(most < 1.01 && least > 0.99, "{n} backends: {least:.4} to {most:.4} of the mean");
        }
    }

    #[test]
    fn one_of_ten_leaves_and_the_others_keep_their_flows() {
        for salt in 0..10 {
            let names = names(10, salt);
            let before = build(&members(&names));
            for gone in 0..10 {
                let mut rest = members(&names);
                rest.remove(gone);
                let after = build(&rest);
                assert_eq!(before.len(), after.len());
                let others = before.iter().filter(|id| **id != gone as u32 + 16).count();
                let moved =
                    before.iter().zip(&after).filter(|(b, a)| **b != gone as u32 + 16 && b != a).count();
                let share = moved as f64 / others as f64;
                assert!(
                    share < 0.01,
                    "set {salt}, {gone} leaves: {:.2} % of the others' slots move",
                    share * 100.0
                );
            }
        }
    }

    #[test]
    fn weights_are_kept() {
        let names = names(3, 9);
        let mut pool = members(&names);
        (pool[0].weight, pool[1].weight, pool[2].weight) = (1, 2, 3);
        let slots = build(&pool);
        for (count, weight) in counts(&slots, 3).into_iter().zip([1.0, 2.0, 3.0]) {
            let share = count as f64 / slots.len() as f64 / (weight / 6.0);
            assert!((0.99..1.01).contains(&share), "weight {weight}: {share:.4} of its share");
        }
        (pool[0].weight, pool[1].weight) = (1, 65_535);
        assert!(build(&pool[..2]).contains(&17));
    }

    #[test]
    fn table_is_the_same_for_ever() {
        let names = names(4, 1);
        let slots = build(&members(&names));
        let digest = slots.iter().fold(0u32, |h, id| hash::mix(h ^ id));
        assert_eq!((slots.len(), digest), (16_411, DIGEST));
    }

    const DIGEST: u32 = 807280234;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn order_does_not_matter(n in 1usize..40, weights in prop::collection::vec(1u32..5, 40), seed: u32) {
            let names = names(n, 3);
            let mut pool = members(&names);
            pool.iter_mut().zip(&weights).for_each(|(m, w)| m.weight = *w);
            let one = build(&pool);
            pool.sort_by_key(|m| hash::mix(m.id ^ seed));
            prop_assert_eq!(one, build(&pool));
        }
    }
}
