//! What is written for the kernel: for each backend the connections of others, and the order among equals.

use std::{cmp::Ordering, collections::BinaryHeap};

use lb_common::ranked::{self, Rank};

use crate::BackendKey;

/// What is to be written for a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Words {
    /// A word for each backend, by slot: see [`lb_common::ranked`].
    pub words: Vec<u32>,
    /// They have what others have in them, not only an order.
    pub shared: bool,
}

/// A service's backends as the node has them, in the order of their slots.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    backends: Vec<Place>,
    eligible: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: BackendKey,
    weight: u32,
    arc_end: u32,
}

impl Pool {
    /// Backends and their weights, 0..=65535; 0: it takes no new flows.
    pub fn new(backends: &[(BackendKey, u32)]) -> Self {
        let mut places: Vec<_> =
            backends.iter().map(|(key, weight)| Place { key: *key, weight: *weight, arc_end: 0 }).collect();
        let all: u64 = backends.iter().map(|(_, weight)| u64::from(*weight)).sum();
        // In an order that all nodes agree on: what they have in common is the circle.
        let mut circle: Vec<_> = (0..places.len()).filter(|at| places[*at].weight != 0).collect();
        circle.sort_unstable_by_key(|at| places[*at].key);
        let mut before = 0;
        for at in &circle {
            before += u64::from(places[*at].weight);
            places[*at].arc_end = ranked::arc_end(before, all);
        }
        Self { backends: places, eligible: circle.len() as u32 }
    }

    /// How many take new flows.
    pub const fn eligible(&self) -> u32 {
        self.eligible
    }

    /// A word for each backend, the order alone. `ended`: see [`Rank::phase`].
    pub(super) fn order(&self, rank: Rank, ended: u64) -> Vec<u32> {
        let phase = rank.phase(ended, self.eligible);
        self.backends.iter().map(|place| ranked::word(0, ranked::order(place.arc_end, phase))).collect()
    }

    /// Adds what others have to `words`, and so many connections that are under way: each where the least are, as
    /// nodes would pick. `own`: the node's, by slot.
    ///
    /// A node that takes old counts as they are sends all to the same few backends, and all nodes do. With
    /// connections under way in their places it doesn't (Dahlin, "Interpreting Stale Load Information", IEEE TPDS
    /// 2000).
    pub(super) fn add_others(
        &self,
        words: &mut [u32],
        others: impl Fn(BackendKey) -> u64,
        own: &[u32],
        under_way: u32,
    ) {
        for (place, word) in self.backends.iter().zip(&mut *words) {
            *word = ranked::word(others(place.key), *word);
        }
        if under_way == 0 {
            return;
        }
        let own = |at: usize| own.get(at).copied().unwrap_or_default();
        let load = |at: usize, word| {
            let weight = self.backends[at].weight;
            (weight != 0).then(|| Load { value: ranked::value(own(at), word), weight, at })
        };
        let mut loads: BinaryHeap<_> =
            words.iter().enumerate().filter_map(|(at, word)| load(at, *word)).collect();
        for _ in 0..under_way {
            let Some(mut least) = loads.peek_mut() else { return };
            let word = &mut words[least.at];
            *word = ranked::word(u64::from(*word >> ranked::ORDER_BITS) + 1, *word);
            least.value = ranked::value(own(least.at), *word);
        }
    }
}

/// What a backend has for its weight. The greatest of a heap is the least loaded.
struct Load {
    value: u64,
    weight: u32,
    at: usize,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = self.value * u64::from(other.weight);
        let theirs = other.value * u64::from(self.weight);
        theirs.cmp(&mine).then(other.at.cmp(&self.at))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(weights: &[u32]) -> Pool {
        let backends: Vec<_> =
            weights.iter().enumerate().map(|(at, weight)| (BackendKey(100 - at as u64), *weight)).collect();
        Pool::new(&backends)
    }

    fn others(words: &[u32]) -> Vec<u32> {
        words.iter().map(|word| word >> ranked::ORDER_BITS).collect()
    }

    #[test]
    fn nodes_agree_on_the_circle_whatever_their_slots_are() {
        let keys = [BackendKey(5), BackendKey(9), BackendKey(2), BackendKey(7)];
        let one = Pool::new(&keys.map(|key| (key, 1))).order(Rank { place: 3, nodes: 7 }, 0);
        let mut slots = [3, 0, 2, 1];
        let other = Pool::new(&slots.map(|at| (keys[at], 1))).order(Rank { place: 3, nodes: 7 }, 0);
        assert_eq!(slots.map(|at| one[at]).to_vec(), other);
        slots.sort_by_key(|at| one[*at]);
        // A quarter of the circle apart, in the order of keys.
        let apart: Vec<_> = slots.windows(2).map(|it| one[it[1]] - one[it[0]]).collect();
        assert_eq!(apart, [256; 3]);
    }

    #[test]
    fn connections_under_way_go_where_the_least_are() {
        let pool = pool(&[1, 1, 0, 2]);
        let mut words = pool.order(Rank::ALONE, 0);
        let order = words.clone();
        pool.add_others(&mut words, |key| [4, 9, 0, 4][(100 - key.0) as usize], &[0, 1, 0, 0], 0);
        assert_eq!(others(&words), [4, 9, 0, 4]);
        assert!(words.iter().zip(order).all(|(word, order)| word & ranked::ORDER == order));
        // 4 and 10 of weight 1, 4 of weight 2: four go to that one before it is as full as the first.
        pool.add_others(&mut words, |key| [4, 9, 0, 4][(100 - key.0) as usize], &[0, 1, 0, 0], 4);
        assert_eq!(others(&words).iter().sum::<u32>(), 21);
        assert_eq!((others(&words)[1], others(&words)[2]), (9, 0));
        assert!(others(&words)[3] >= 7, "{:?}", others(&words));
        pool.add_others(&mut words, |_| 0, &[], 8);
        assert_eq!(others(&words), [2, 2, 0, 4]);
    }

    #[test]
    fn nobody_to_go_to() {
        let pool = pool(&[0, 0]);
        let mut words = pool.order(Rank { place: 1, nodes: 2 }, 2);
        pool.add_others(&mut words, |_| 3, &[0, 0], 5);
        assert_eq!(others(&words), [3, 3]);
    }
}
