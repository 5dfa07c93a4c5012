//! Least-connections: the exact minimum of active / weight, ties broken by chance.

use crate::hash;

/// The best backend offered so far.
///
/// Ratios are compared by cross-multiplication: exact, no division. Equal ratios are decided by a hash of the backend and of
/// `chance`, which is drawn anew for each choice, so that no backend is favoured for its place in the pool and one pass is
/// enough.
#[derive(Clone, Copy, Debug)]
pub struct Least {
    id: u32,
    active: u32,
    weight: u32,
    lot: u32,
    chance: u32,
}

impl Least {
    /// Nothing offered yet. `chance`: random bits, all 32 used.
    #[inline(always)]
    pub const fn new(chance: u32) -> Self {
        // weight 0 stands for "nobody": its ratio is infinite.
        Self { id: 0, active: 1, weight: 0, lot: 0, chance }
    }

    /// Offers backend `id` with `active` connections. Weight 0: not eligible.
    #[inline(always)]
    pub fn offer(&mut self, id: u32, active: u32, weight: u32) {
        if weight == 0 {
            return;
        }
        let mine = active as u64 * self.weight as u64;
        let best = self.active as u64 * weight as u64;
        if mine > best {
            return;
        }
        let lot = hash::mix(self.chance.wrapping_add(id.wrapping_mul(0x9e37_79b9)));
        if mine < best || lot >= self.lot {
            *self = Self { id, active, weight, lot, chance: self.chance };
        }
    }

    /// What the winner has; of no meaning without one.
    #[inline(always)]
    pub const fn count(&self) -> u32 {
        self.active
    }

    /// The winner; `None` if nobody eligible was offered.
    #[inline(always)]
    pub const fn best(&self) -> Option<u32> {
        if self.weight == 0 { None } else { Some(self.id) }
    }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pick(chance: u32, pool: &[(u32, u32)]) -> Option<u32> {
        let mut least = Least::new(chance);
        for (id, (active, weight)) in pool.iter().enumerate() {
            least.offer(id as u32, *active, *weight);
        }
        least.best()
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
    fn ties_favour_nobody() {
        for n in [2u32, 5, 16] {
            let pool = vec![(3, 1); n as usize];
            let mut wins = vec![0u32; n as usize];
            let draws = 20_000 * n;
            for i in 0..draws {
                wins[pick(hash::mix(i), &pool).unwrap() as usize] += 1;
            }
            let mean = 20_000.0;
            let chi2: f64 = wins.iter().map(|w| (*w as f64 - mean).powi(2) / mean).sum();
            let bound = [10.8, 18.5, 37.7][[2, 5, 16].iter().position(|k| *k == n).unwrap()];
            assert!(chi2 < bound, "{n} backends: {wins:?}, chi-square {chi2}, 0.1 % bound {bound}");
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
