//! Round robin and choices by lot: weights decide, whatever is open.

use lb_common::abi::{Algorithm, Reason, Stray};

use super::{
    build::{ACK, RST, SYN, eth},
    stage::{Expect::*, Stage, TCP, everywhere},
    tcp::request,
    world::{Added, Member},
};

fn service(s: &mut Stage<'_>, algorithm: Algorithm, weights: &[u32]) -> Added {
    let members: Vec<_> = s.net.backends.iter().map(|b| Member::new(*b, 8080)).collect();
    let members: Vec<_> = members
        .into_iter()
        .zip(weights)
        .map(|(member, weight)| Member { weight: *weight, ..member })
        .collect();
    s.world.add_with(s.net.vip, &[(TCP, 80)], &members, algorithm, Stray::RESET).unwrap()
}

fn open(s: &mut Stage<'_>, first: u16, n: u16) -> Vec<usize> {
    let net = s.net;
    (first..first + n).map(|p| s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(p, 80, SYN))).collect()
}

fn counts(chosen: &[usize]) -> [usize; 4] {
    std::array::from_fn(|b| chosen.iter().filter(|c| **c == b).count())
}

#[test]
fn one_after_the_other() {
    everywhere(|s| {
        service(s, Algorithm::ROUND_ROBIN, &[1; 4]);
        let chosen = open(s, 30_000, 40);
        assert!((4..40).all(|i| chosen[i] == chosen[i - 4]), "{chosen:?}");
        assert_eq!(counts(&chosen), [10; 4]);
    });
}

#[test]
fn turns_are_in_proportion_to_weights() {
    everywhere(|s| {
        service(s, Algorithm::ROUND_ROBIN, &[1, 2, 0, 3]);
        let chosen = open(s, 30_000, 60);
        assert_eq!(counts(&chosen), [10, 20, 0, 30]);
        for round in chosen.chunks(6) {
            assert_eq!(counts(round), [1, 2, 0, 3], "{chosen:?}");
        }
    });
}

#[test]
fn who_is_full_loses_its_turn() {
    everywhere(|s| {
        let added = service(s, Algorithm::ROUND_ROBIN, &[1; 4]);
        s.world.set_backend(added.backends[1], 1, 3).unwrap();
        let chosen = open(s, 30_000, 40);
        let counts = counts(&chosen);
        assert_eq!((counts[1], counts.iter().sum::<usize>()), (3, 40), "{counts:?}");
        for b in &added.backends {
            s.world.set_backend(*b, 1, 1).unwrap();
        }
        let net = s.net;
        let rst = eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 40000, RST | ACK);
        let rst = rst.numbers(0, 1001).window(0);
        s.step("all are full", request(net, SYN), Back(rst, Reason::BackendsFull));
    });
}

#[test]
fn a_heavy_one_that_is_full_is_in_nobodys_way() {
    for algorithm in [Algorithm::ROUND_ROBIN, Algorithm::WEIGHTED_RANDOM] {
        everywhere(|s| {
            let added = service(s, algorithm, &[1_000, 1, 0, 0]);
            s.world.set_backend(added.backends[0], 1_000, 1).unwrap();
            let chosen = open(s, 30_000, 30);
            assert_eq!(counts(&chosen), [1, 29, 0, 0]);
        });
    }
}

#[test]
fn lots_are_drawn_in_proportion_to_weights() {
    everywhere(|s| {
        service(s, Algorithm::WEIGHTED_RANDOM, &[1, 1, 0, 2]);
        let chosen = open(s, 30_000, 400);
        let counts = counts(&chosen);
        // Five standard deviations and some: 100 of 400 by lot are within 45 in all but one of 10^6 runs.
        assert!(counts[0].abs_diff(100) < 45 && counts[1].abs_diff(100) < 45, "{counts:?}");
        assert!(counts[2] == 0 && counts[3].abs_diff(200) < 52, "{counts:?}");
        assert!((4..400).any(|i| chosen[i] != chosen[i - 4]), "in turn");
    });
}
