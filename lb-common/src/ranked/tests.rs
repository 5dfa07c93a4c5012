use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::pick::tests::assert_fair;

/// A backend as a pick sees it.
#[derive(Clone, Copy, Debug)]
struct Backend {
    active: u32,
    word: u32,
    weight: u32,
    limit: u32,
}

/// A pool as blocks of 16, offered one by one, or block by block where they are alike.
fn pick(pool: &[Backend]) -> Option<usize> {
    let mut best = Ranked::NONE;
    for (group, block) in pool.chunks(16).enumerate() {
        let first = block[0];
        if block.iter().all(|it| (it.weight, it.limit) == (first.weight, first.limit) && it.weight != 0) {
            let set = (1u32 << block.len()) - 1;
            let at = |slot: usize| block.get(slot).copied().unwrap_or(first);
            let least = least16(set, first.limit, |slot| at(slot).active, |slot| at(slot).word);
            best.offer16(group as u32, least, first.weight);
            continue;
        }
        for (slot, it) in block.iter().enumerate().filter(|(_, it)| it.weight != 0 && it.active < it.limit) {
            best.offer(group as u32, slot as u32, value(it.active, it.word), it.weight);
        }
    }
    let winner = best.best().map(|(group, slot)| (group * 16 + slot) as usize);
    if let Some(winner) = winner {
        assert_eq!(active_of(best.value(), pool[winner].word), pool[winner].active);
    }
    winner
}

/// A pool in which nobody knows of others.
fn idle(weights: &[u32], rank: Rank, ended: u64) -> Vec<Backend> {
    let all = weights.iter().map(|weight| u64::from(*weight)).sum();
    let phase = rank.phase(ended, weights.len() as u32);
    let mut before = 0;
    let backend = |weight: &u32| {
        before += u64::from(*weight);
        let word = word(0, order(arc_end(before, all), phase));
        Backend { active: 0, word, weight: *weight, limit: u32::MAX }
    };
    weights.iter().map(backend).collect()
}

#[test]
fn first_picks_of_many_nodes_are_even_and_hold_weights() {
    let pools = [
        [1; 17].to_vec(),
        [1; 33].to_vec(),
        [1; 300].to_vec(),
        [1, 2, 4].to_vec(),
        [1, 2, 4].repeat(11),
        [5, 5, 5, 5, 1].to_vec(),
        [1, 1, 100].to_vec(),
    ];
    for weights in pools {
        let mut wins = vec![0u32; weights.len()];
        for place in 0..2_000 {
            wins[pick(&idle(&weights, Rank { place, nodes: 2_000 }, 0)).unwrap()] += 1;
        }
        assert_fair(&wins, &weights, 2_000);
    }
}

#[test]
fn a_node_by_itself_takes_backends_in_turn_also_when_nothing_stays_open() {
    for n in [1usize, 2, 3, 16, 17, 33, 50] {
        let mut wins = vec![0u32; n];
        for ended in 0..20 * n as u64 {
            wins[pick(&idle(&vec![1; n], Rank { place: 7, nodes: 9 }, ended)).unwrap()] += 1;
        }
        assert_eq!(wins, vec![20; n]);
    }
}

#[test]
fn any_number_of_nodes_spreads_without_a_word() {
    for (nodes, backends) in
        [(4, 4), (17, 17), (33, 33), (100, 50), (8, 4), (50, 100), (7, 5), (63, 64), (9, 1)]
    {
        let mut wins = vec![0u32; backends];
        for place in 0..nodes {
            wins[pick(&idle(&vec![1; backends], Rank { place, nodes }, 0)).unwrap()] += 1;
        }
        let fair = nodes.div_ceil(backends as u32);
        assert!(wins.iter().all(|won| *won <= fair), "{nodes} nodes: {wins:?}");
    }
}

#[test]
fn weights_hold_as_connections_come() {
    let weights = [1u32, 2, 4];
    for place in 0..50 {
        let mut pool = idle(&weights, Rank { place, nodes: 50 }, 0);
        for total in 1..=700u32 {
            let winner = pick(&pool).unwrap();
            pool[winner].active += 1;
            for it in &pool {
                let fair = f64::from(total * it.weight) / 7.0;
                assert!((f64::from(it.active) - fair).abs() < 1.5, "node {place}, {total}: {pool:?}");
            }
        }
    }
}

#[test]
fn others_count_as_much_as_own_unless_they_are_masked() {
    let backend = |active, others| Backend { active, word: word(others, 0), weight: 1, limit: u32::MAX };
    let mut pool = [backend(3, 0), backend(0, 4), backend(1, 1)];
    assert_eq!(pick(&pool), Some(2));
    for it in &mut pool {
        it.word &= ORDER;
    }
    assert_eq!(pick(&pool), Some(1));
}

#[test]
fn what_is_too_much_for_a_word_is_the_most_that_fits() {
    assert_eq!(word(u64::MAX, 5), u32::MAX - ORDER + 5);
    assert_eq!(word(u64::from(MAX_OTHERS), ORDER), u32::MAX);
    let most = value(u32::MAX, u32::MAX);
    assert!(most.checked_mul(65_535).is_some() && most << 4 != NOBODY16);
    assert_eq!(active_of(most, u32::MAX), u32::MAX);
}

#[test]
fn nobody_eligible() {
    assert_eq!(pick(&[]), None);
    let full = Backend { active: 5, word: 0, weight: 1, limit: 5 };
    assert_eq!(pick(&[full]), None);
    assert_eq!(pick(&[full, Backend { weight: 0, ..full }]), None);
    assert_eq!(least16(0, u32::MAX, |_| 0, |_| 0), NOBODY16);
}

fn backend() -> impl Strategy<Value = Backend> {
    let active = prop_oneof![0u32..50, any::<u32>()];
    let word = prop_oneof![0u32..50_000, any::<u32>()];
    let weight = prop_oneof![Just(1u32), 0u32..5, Just(65_535)];
    let limit = prop_oneof![Just(u32::MAX), 0u32..50];
    (active, word, weight, limit).prop_map(|(active, word, weight, limit)| Backend {
        active,
        word,
        weight,
        limit,
    })
}

proptest! {
    #[test]
    fn the_winner_is_the_first_minimum(
        pool in prop::collection::vec(backend(), 1..64),
        alike in any::<Option<(u16, u32)>>(),
    ) {
        let mut pool = pool;
        if let Some((weight, limit)) = alike {
            for it in &mut pool {
                (it.weight, it.limit) = (u32::from(weight), limit);
            }
        }
        let eligible = |it: &Backend| it.weight != 0 && it.active < it.limit;
        let mut wanted: Option<usize> = None;
        for (at, it) in pool.iter().enumerate().filter(|(_, it)| eligible(it)) {
            let less = |best: usize| {
                let best = pool[best];
                u128::from(value(it.active, it.word)) * u128::from(best.weight)
                    < u128::from(value(best.active, best.word)) * u128::from(it.weight)
            };
            if wanted.is_none_or(less) {
                wanted = Some(at);
            }
        }
        prop_assert_eq!(pick(&pool), wanted);
    }

    #[test]
    fn the_first_pick_is_where_the_phase_points(
        weights in prop::collection::vec(1u32..100, 1..40),
        (place, nodes) in (1u32..=u32::MAX).prop_flat_map(|nodes| (0..nodes, Just(nodes))),
    ) {
        let rank = Rank { place, nodes };
        let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let point = rank.phase(0, weights.len() as u32);
        let mut before = 0;
        let ends: Vec<_> = weights
            .iter()
            .map(|weight| {
                before += u64::from(*weight);
                // The circle's end is its beginning.
                (u128::from(before) << 32) / u128::from(all)
            })
            .collect();
        let wanted = ends.iter().position(|end| u128::from(point) <= *end).unwrap();
        let winner = pick(&idle(&weights, rank, 0)).unwrap();
        // Fractions have ten bits: next to an arc's end it may be the neighbour.
        let near = |at: usize| {
            let start = if at == 0 { 0 } else { ends[at - 1] };
            let slack = 1u128 << 33 >> ORDER_BITS;
            u128::from(point) + slack * 100 >= start && u128::from(point) <= ends[at] + slack * 100
        };
        prop_assert!(winner == wanted || near(winner), "{winner} for {wanted}");
    }
}
