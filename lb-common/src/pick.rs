//! Least-connections: the exact minimum of active / weight, ties broken by a weighted draw.

use crate::hash;

/// The best backends offered so far.
///
/// Ratios are compared by cross-multiplication: exact, no division. Among equal ratios each backend is as likely as its weight says, in one
/// pass and whatever order they come in (reservoir sampling: Chao, "A general purpose unequal probability sampling plan", Biometrika 1982).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Least {
    /// Weight of all that tie.
    total: u64,
    active: u32,
    /// 0: nobody yet, whose ratio is infinite.
    weight: u32,
    /// Where the winner is: a group, and which of it, a bit each.
    group: u32,
    set: u32,
}

impl Least {
    /// Nothing offered yet.
    pub const NONE: Self = Self { total: 0, active: 1, weight: 0, group: 0, set: 0 };

    /// Offers those of a group's slots that are in `set`, a bit each, of up to 16: each has `active` connections and this weight, 1..=65535.
    /// `chance`: random bits, all 32 used, the same for all offers of a choice.
    #[inline(always)]
    pub fn offer(&mut self, group: u32, set: u32, active: u32, weight: u32, chance: u32) {
        let mine = active as u64 * self.weight as u64;
        let best = self.active as u64 * weight as u64;
        if mine > best {
            return;
        }
        let weights = count16(set) as u64 * weight as u64;
        if mine < best || self.weight == 0 {
            self.total = 0;
        }
        self.total += weights;
        // The sets of a pool differ, so that each offer has a lot of its own.
        let lot = hash::mix(chance ^ (group << 16 | set).wrapping_mul(0x9e37_79b9));
        if (lot as u64 * self.total) >> 32 < weights {
            (self.active, self.weight, self.group, self.set) = (active, weight, group, set);
        }
    }

    /// Is it worth looking for slots that have this ratio?
    #[inline(always)]
    pub const fn may_win(&self, active: u32, weight: u32) -> bool {
        active as u64 * self.weight as u64 <= self.active as u64 * weight as u64
    }

    /// What the winner has; of no meaning without one.
    #[inline(always)]
    pub const fn count(&self) -> u32 {
        self.active
    }

    /// The winner: its group and slot; `None` if nobody was offered. `chance`: as for the offers.
    #[inline(always)]
    pub const fn best(&self, chance: u32) -> Option<(u32, u32)> {
        if self.weight == 0 { None } else { Some((self.group, any16(self.set, hash::mix(chance)))) }
    }
}

/// The fewest connections that one of 16 slots has. `set`: slots that matter, a bit each, not 0.
#[inline(always)]
pub fn fewest16(set: u32, count: impl Fn(usize) -> u32) -> u32 {
    let mut least = u32::MAX;
    let mut slot = 0;
    while slot < 16 && set >> slot != 0 {
        let mine = count(slot);
        if mine < least && set >> slot & 1 != 0 {
            least = mine;
        }
        slot += 1;
    }
    least
}

/// Who of a set of 16 slots has so many, or fewer.
#[inline(always)]
pub fn with_fewest16(set: u32, least: u32, count: impl Fn(usize) -> u32) -> u32 {
    let mut tie = 0u32;
    let mut slot = 0;
    while slot < 16 && set >> slot != 0 {
        // The sign of count - least - 1.
        let fewer = (count(slot) as u64).wrapping_sub(least as u64 + 1) >> 63;
        // Shifted along, not put in its place at once: 16 places are worked out beforehand, and the stack has no room for them.
        tie = tie >> 1 | (fewer as u32) << 15;
        slot += 1;
    }
    tie >> (16 - slot) & set
}

/// Bits set in a set of 16.
#[inline(always)]
pub const fn count16(set: u32) -> u32 {
    // Pairs, then fours, then all by one multiplication (Warren, "Hacker's Delight", section 5-1).
    let pairs = set - (set >> 1 & 0x5555);
    let fours = (pairs & 0x3333) + (pairs >> 2 & 0x3333);
    let eights = (fours + (fours >> 4)) & 0x0f0f;
    (eights + (eights >> 8)) & 0x1f
}

/// One of a set of 16, each as likely as the others; 0 if it is empty. `chance`: random bits, all 32 used.
#[inline(always)]
pub const fn any16(set: u32, chance: u32) -> u32 {
    let mut left = set;
    let mut skip = hash::reduce(chance, count16(set));
    let mut i = 0;
    while i < 15 {
        if skip == 0 {
            break;
        }
        left &= left.wrapping_sub(1);
        skip -= 1;
        i += 1;
    }
    // Bits below the lowest that is left.
    count16((left & left.wrapping_neg()).wrapping_sub(1) & 0xffff) & 0xf
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pool as blocks of 16, all offered one by one, or block by block where they are alike.
    fn pick(chance: u32, pool: &[(u32, u32)]) -> Option<u32> {
        let mut least = Least::NONE;
        for (group, block) in pool.chunks(16).enumerate() {
            let even = block.iter().all(|(_, weight)| *weight == block[0].1 && *weight != 0);
            if even {
                let set = (1u32 << block.len()) - 1;
                let count = |slot: usize| block.get(slot).map_or(0, |(active, _)| *active);
                let active = fewest16(set, count);
                least.offer(group as u32, with_fewest16(set, active, count), active, block[0].1, chance);
                continue;
            }
            for (slot, (active, weight)) in block.iter().enumerate() {
                if *weight != 0 {
                    least.offer(group as u32, 1 << slot, *active, *weight, chance);
                }
            }
        }
        least.best(chance).map(|(group, slot)| group * 16 + slot)
    }

    /// Chi-square of wins against shares; its 0.1 % bound by Wilson and Hilferty's approximation.
    pub(crate) fn assert_fair(wins: &[u32], shares: &[u32], draws: u32) {
        let whole: u32 = shares.iter().sum();
        let chi2: f64 = wins
            .iter()
            .zip(shares)
            .map(|(won, share)| {
                let mean = draws as f64 * *share as f64 / whole as f64;
                (*won as f64 - mean).powi(2) / mean
            })
            .sum();
        let k = shares.len() as f64 - 1.0;
        let bound = k * (1.0 - 2.0 / (9.0 * k) + 3.09 * (2.0 / (9.0 * k)).sqrt()).powi(3);
        assert!(chi2 < bound, "{wins:?} for {shares:?}: chi-square {chi2}, 0.1 % bound {bound}");
    }

    #[test]
    fn first_picks_are_even_however_many_blocks_there_are() {
        for n in [1usize, 2, 5, 15, 16, 17, 31, 32, 33, 100] {
            for idle in [0, 3] {
                let pool = vec![(idle, 1); n];
                let mut wins = vec![0u32; n];
                for i in 0..20_000 {
                    wins[pick(hash::mix(i), &pool).unwrap() as usize] += 1;
                }
                if n > 1 {
                    assert_fair(&wins, &vec![1; n], 20_000);
                }
            }
        }
    }

    #[test]
    fn weights_hold_from_the_first_connection_on() {
        for weights in [vec![1u32, 2, 4], vec![1; 17], (1..=33).collect(), vec![5, 5, 5, 5, 1]] {
            let pool: Vec<_> = weights.iter().map(|weight| (0, *weight)).collect();
            let mut wins = vec![0u32; pool.len()];
            for i in 0..60_000 {
                wins[pick(hash::mix(i), &pool).unwrap() as usize] += 1;
            }
            assert_fair(&wins, &weights, 60_000);
        }
    }

    #[test]
    fn any_of_a_set_is_in_it_and_as_likely_as_the_others() {
        for set in [1u32, 0x8000, 0x8001, 0xffff, 0x1248, 0x00f0] {
            let draws = 4_000 * set.count_ones();
            let mut wins = [0u32; 16];
            for i in 0..draws {
                wins[any16(set, hash::mix(i)) as usize] += 1;
            }
            for (slot, wins) in wins.into_iter().enumerate() {
                if set >> slot & 1 == 0 {
                    assert_eq!(wins, 0, "{set:#x} {slot}");
                } else {
                    // Five standard deviations.
                    assert!(wins.abs_diff(4_000) < 5 * 64, "{set:#x} {slot}: {wins} of 4,000");
                }
            }
        }
        assert!((0..=0xffff).all(|set: u32| count16(set) == set.count_ones()));
    }

    #[test]
    fn nobody_eligible() {
        assert_eq!(pick(1, &[]), None);
        assert_eq!(pick(1, &[(0, 0), (5, 0)]), None);
    }

    #[test]
    fn one_backend_is_found_under_any_chance() {
        for chance in 0..10_000 {
            assert_eq!(pick(chance, &[(0, 1)]), Some(0));
        }
    }

    #[test]
    fn weights_are_kept() {
        let weights = [1u32, 2, 3];
        let mut active = [0u32; 3];
        for i in 0..600 {
            let pool: Vec<_> = active.iter().copied().zip(weights).collect();
            active[pick(hash::mix(i), &pool).unwrap() as usize] += 1;
        }
        assert_eq!(active, [100, 200, 300]);
    }

    proptest! {
        #[test]
        fn the_winner_is_a_minimum(chance: u32, pool in prop::collection::vec((0u32..1000, 0u32..5), 1..64)) {
            let ratio = |(a, w): (u32, u32)| a as f64 / w as f64;
            let least = pool.iter().copied().filter(|(_, w)| *w > 0).map(ratio).fold(f64::INFINITY, f64::min);
            match pick(chance, &pool) {
                None => prop_assert!(pool.iter().all(|(_, w)| *w == 0)),
                Some(id) => {
                    let winner = pool[id as usize];
                    prop_assert!(winner.1 > 0);
                    prop_assert!((ratio(winner) - least).abs() < 1e-12);
                }
            }
        }
    }
}
