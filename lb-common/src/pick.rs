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

    /// The winner; `None` if nobody eligible was offered.
    #[inline(always)]
    pub const fn best(&self) -> Option<u32> {
        if self.weight == 0 { None } else { Some(self.id) }
    }
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
