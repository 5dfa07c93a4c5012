//! What each backend should have.

use super::Backend;

/// What a pool has in all, and how it should be divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// Open connections, of all backends.
    pub(super) all: u64,
    /// Those of backends that take new flows.
    pub(super) total: u64,
    weights: u64,
    /// The sum of what is above fair.
    pub(super) above_fair: u64,
    /// The load of the fullest backend over the mean, by weight. 1 if there are no connections.
    pub(super) ratio: f64,
    /// No backend has more than one above fair.
    pub(super) even: bool,
}

impl Shares {
    pub(super) fn of(pool: &[Backend]) -> Self {
        let taking = || pool.iter().filter(|backend| backend.weight != 0);
        let all = pool.iter().map(|backend| backend.open).sum();
        let total = taking().map(|backend| backend.open).sum();
        let weights = taking().map(|backend| u64::from(backend.weight)).sum();
        let mut shares = Self { all, total, weights, above_fair: 0, ratio: 1.0, even: true };
        for backend in taking() {
            let above = backend.open.saturating_sub(shares.fair(backend.weight, 0));
            shares.even &= above <= 1;
            let mean = total as f64 * f64::from(backend.weight) / weights as f64;
            if mean > 0.0 {
                shares.ratio = shares.ratio.max(backend.open as f64 / mean);
            }
        }
        shares.above_fair = shares.above(pool, 0);
        shares
    }

    /// The sum of what is above fair, if so many connections more come back.
    pub(super) fn above(&self, pool: &[Backend], under_way: u64) -> u64 {
        let taking = pool.iter().filter(|backend| backend.weight != 0);
        taking.map(|backend| backend.open.saturating_sub(self.fair(backend.weight, under_way))).sum()
    }

    /// The part of a backend of this weight, rounded up, if so many connections more come back.
    pub(super) fn fair(&self, weight: u32, under_way: u64) -> u64 {
        if self.weights == 0 {
            return 0;
        }
        let total = u128::from(self.total) + u128::from(under_way);
        (total * u128::from(weight)).div_ceil(u128::from(self.weights)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BackendKey;

    fn shares(pool: &[(u32, u64)]) -> Shares {
        let backend = |(at, (weight, open)): (usize, &(u32, u64))| Backend {
            key: BackendKey(at as u64),
            weight: *weight,
            open: *open,
        };
        Shares::of(&pool.iter().enumerate().map(backend).collect::<Vec<_>>())
    }

    #[test]
    fn parts_go_by_weight_and_are_rounded_up() {
        let it = shares(&[(1, 10), (2, 0), (4, 0), (0, 90)]);
        assert_eq!((it.all, it.total), (100, 10));
        assert_eq!([1, 2, 4].map(|weight| it.fair(weight, 0)), [2, 3, 6]);
        assert_eq!((it.above_fair, it.ratio, it.even), (8, 7.0, false));
    }

    #[test]
    fn one_too_many_is_even() {
        assert!(shares(&[(1, 3), (1, 1), (1, 2)]).even);
        assert!(!shares(&[(1, 4), (1, 0), (1, 2)]).even);
        for nothing in [&[][..], &[(0, 50)], &[(1, 0), (1, 0)], &[(5, 50)]] {
            let it = shares(nothing);
            assert!(it.even && it.above_fair == 0 && it.ratio == 1.0, "{it:?}");
        }
    }
}
