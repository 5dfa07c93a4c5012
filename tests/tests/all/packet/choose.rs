//! Which backend a new flow gets under least-connections: weights, drains, limits, ranges, several services.

use lb_common::abi::Reason;

use super::{
    build::{ACK, RST, SYN, eth},
    stage::{Expect::*, Stage, TCP, everywhere},
    tcp::{Talk, request},
    world::{Added, Member},
};

/// Opens `n` connections from ports `first` on; which backend each got.
fn open(s: &mut Stage<'_>, first: u16, n: u16) -> Vec<usize> {
    let net = s.net;
    (first..first + n).map(|p| s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(p, 80, SYN))).collect()
}

fn weigh(s: &mut Stage<'_>, added: &Added, weights: &[u32]) {
    for (b, w) in added.backends.iter().zip(weights) {
        s.world.set_backend(*b, *w, u32::MAX).unwrap();
    }
}

#[test]
fn the_fewest_connections_win() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 4);
        for i in 1..=10 {
            open(s, 30_000 + i * 4, 4);
            s.active("after each round", &added, &[i as u32; 4]);
        }
    });
}

#[test]
fn weights_are_kept_exactly() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 3);
        weigh(s, &added, &[1, 2, 3]);
        open(s, 30_000, 60);
        s.active("1:2:3", &added, &[10, 20, 30]);
        weigh(s, &added, &[65_535, 1, 1]);
        open(s, 31_000, 60);
        s.active("the heaviest takes all", &added, &[70, 20, 30]);
    });
}

#[test]
fn a_drained_backend_gets_nothing_new_and_keeps_what_it_has() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 3);
        let talk = Talk::open(s);
        let mut weights = [1, 1, 1];
        weights[talk.backend] = 0;
        weigh(s, &added, &weights);
        assert!(!open(s, 30_000, 20).contains(&talk.backend));
        talk.request(s, "the open one goes on", request(s.net, ACK).numbers(1001, 5001).fill(10));
        assert_eq!(
            s.forwarded("also over a repeated SYN", &request(s.net, SYN).numbers(1000, 0)),
            talk.backend
        );
        weigh(s, &added, &[1, 1, 1]);
        let first = open(s, 31_000, 9);
        assert!(first.iter().all(|b| *b == talk.backend), "back in the pool, it catches up: {first:?}");
    });
}

#[test]
fn a_full_backend_gets_nothing_new() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        s.world.set_backend(added.backends[0], 1, 3).unwrap();
        s.world.set_backend(added.backends[1], 1, 5).unwrap();
        open(s, 30_000, 8);
        s.active("both are full", &added, &[3, 5]);
        let rst = eth()
            .reversed()
            .ip(net.vip, net.client)
            .fresh()
            .tcp(80, 40000, RST | ACK)
            .numbers(0, 1001)
            .window(0);
        s.step("one more", request(net, SYN), Back(rst, Reason::BackendsFull));
        s.active("as before", &added, &[3, 5]);
        let first = |flags| eth().ip(net.client, net.vip).tcp(30_000, 80, flags);
        let b = s.forwarded("a repeated SYN of an open one", &first(SYN));
        assert_eq!(s.forwarded("it ends", &first(RST)), b);
        open(s, 41_000, 1);
        s.active("its place is taken", &added, &[3, 5]);
    });
}

#[test]
fn full_and_drained_together_are_full() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        s.world.set_backend(added.backends[0], 0, u32::MAX).unwrap();
        s.world.set_backend(added.backends[1], 1, 0).unwrap();
        let rst = eth()
            .reversed()
            .ip(net.vip, net.client)
            .fresh()
            .tcp(80, 40000, RST | ACK)
            .numbers(0, 1001)
            .window(0);
        s.step("SYN", request(net, SYN), Back(rst, Reason::BackendsFull));
    });
}

#[test]
fn ports_of_a_range_are_one_service() {
    everywhere(|s| {
        let net = s.net;
        let members: Vec<_> =
            net.backends.iter().map(|b| Member { port: None, ..Member::new(*b, 0) }).collect();
        let ports: Vec<_> = (8001..=8003).map(|p| (TCP, p)).collect();
        let added = s.world.add(net.vip, &ports, &members).unwrap();
        for port in 8001..=8003 {
            for i in 0..4 {
                let syn = eth().ip(net.client, net.vip).tcp(30_000 + i, port, SYN);
                let (_, out) = s.world.run(&syn.bytes()).unwrap();
                let out = out.to_vec();
                assert!(
                    net.backends.iter().any(|b| syn.clone().to(*b, port).bytes() == out),
                    "port {port} is kept"
                );
            }
        }
        s.active("counted together", &added, &[3, 3, 3, 3]);
        for port in [8000, 8004] {
            s.step("a port beside the range", eth().ip(net.client, net.vip).tcp(30_000, port, SYN), Pass);
        }
    });
}

#[test]
fn services_do_not_share_counts() {
    everywhere(|s| {
        let net = s.net;
        let one = s.service(TCP, 80, 2);
        let members: Vec<_> = net.backends[..2].iter().map(|b| Member::new(*b, 9090)).collect();
        let two = s.world.add(net.vip2, &[(TCP, 80)], &members).unwrap();
        open(s, 30_000, 6);
        s.active("the first has six", &one, &[3, 3]);
        s.active("the second none", &two, &[0, 0]);
        for port in 30_000..30_002 {
            let syn = eth().ip(net.client, net.vip2).tcp(port, 80, SYN);
            let (_, out) = s.world.run(&syn.bytes()).unwrap();
            let out = out.to_vec();
            assert!(members.iter().any(|m| syn.clone().to(m.addr, 9090).bytes() == out));
        }
        s.active("now it has two", &two, &[1, 1]);
    });
}

#[test]
fn a_long_chain_is_looked_through_to_its_end() {
    everywhere(|s| {
        let net = s.net;
        // 40 backends are three blocks; only the last is eligible.
        let members: Vec<_> = (0..40)
            .map(|i| Member {
                weight: (i == 39) as u32,
                ..Member::new(if i == 39 { net.backends[2] } else { net.other }, 8080)
            })
            .collect();
        let added = s.world.add(net.vip, &[(TCP, 80)], &members).unwrap();
        assert_eq!(open(s, 30_000, 3), [2, 2, 2]);
        assert_eq!(s.world.active(added.backends[39]).unwrap(), 3);
    });
}

/// A pool of `n` whose backends at `net.backends[2]` are told by their ids.
fn pool(s: &mut Stage<'_>, n: usize) -> Added {
    let net = s.net;
    let members: Vec<_> = (0..n).map(|_| Member::new(net.backends[2], 8080)).collect();
    s.world.add(net.vip, &[(TCP, 80)], &members).unwrap()
}

/// Three blocks of them.
fn forty(s: &mut Stage<'_>) -> Added {
    pool(s, 40)
}

fn counts(s: &Stage<'_>, added: &Added) -> Vec<u32> {
    added.backends.iter().map(|b| s.world.active(*b).unwrap()).collect()
}

#[test]
fn alike_or_not_a_pool_of_several_blocks_stays_within_one() {
    everywhere(|s| {
        let added = forty(s);
        // All alike; one drained, so that its block isn't even; one limited and full; all alike again but for what they have.
        for (round, weight, limit, wanted) in
            [(0, 1, u32::MAX, [1, 1]), (1, 0, u32::MAX, [2, 1]), (2, 1, 1, [3, 1]), (3, 1, u32::MAX, [3, 3])]
        {
            s.world.set_backend(added.backends[20], weight, limit).unwrap();
            let missing = if round == 0 {
                40
            } else if round == 3 {
                2
            } else {
                39
            };
            open(s, 30_000 + round * 100, missing);
            let mut left = counts(s, &added);
            let odd = left.remove(20);
            assert_eq!([left, vec![odd]], [vec![wanted[0]; 39], vec![wanted[1]]], "round {round}");
        }
    });
}

/// Opens a connection to an idle pool 2,000 times, and closes it again: how often each backend got it.
fn first_picks(s: &mut Stage<'_>, added: &Added) -> Vec<u32> {
    let net = s.net;
    let mut wins = vec![0u32; added.backends.len()];
    for _ in 0..2_000 {
        s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(20_000, 80, SYN));
        let chosen = counts(s, added).iter().position(|count| *count == 1).unwrap();
        wins[chosen] += 1;
        s.forwarded("RST", &eth().ip(net.client, net.vip).tcp(20_000, 80, RST));
    }
    wins
}

/// Wins must be as shares say; `bound`: the 0.1 % bound of chi-square for a degree of freedom less than there are backends.
#[track_caller]
fn assert_fair(wins: &[u32], shares: &[u32], bound: f64) {
    let whole = f64::from(wins.iter().sum::<u32>()) / f64::from(shares.iter().sum::<u32>());
    let of = |(won, share): (&u32, &u32)| {
        let expected = whole * f64::from(*share);
        (f64::from(*won) - expected).powi(2) / expected
    };
    let chi2: f64 = wins.iter().zip(shares).map(of).sum();
    assert!(chi2 < bound, "{wins:?} for {shares:?}: chi-square {chi2}");
}

#[test]
fn ties_favour_no_backend_whatever_the_blocks() {
    // A slot into the second block, one into the third, and a third that is half full.
    for (n, bound) in [(17, 39.3), (33, 62.5), (40, 72.1)] {
        everywhere(|s| {
            let added = pool(s, n);
            let wins = first_picks(s, &added);
            assert_fair(&wins, &vec![1; n], bound);
        });
    }
}

#[test]
fn weights_hold_from_the_first_connection_on() {
    everywhere(|s| {
        let added = pool(s, 3);
        weigh(s, &added, &[1, 2, 4]);
        let wins = first_picks(s, &added);
        assert_fair(&wins, &[1, 2, 4], 13.9);
        open(s, 30_000, 7);
        s.active("seven", &added, &[1, 2, 4]);
        open(s, 31_000, 7);
        s.active("fourteen", &added, &[2, 4, 8]);
    });
}

#[test]
fn an_even_pool_that_is_full_says_so() {
    everywhere(|s| {
        let added = forty(s);
        for backend in &added.backends {
            s.world.set_backend(*backend, 3, 2).unwrap();
        }
        open(s, 30_000, 80);
        assert_eq!(counts(s, &added), [2; 40]);
        let rst = eth()
            .reversed()
            .ip(s.net.vip, s.net.client)
            .fresh()
            .tcp(80, 40000, RST | ACK)
            .numbers(0, 1001)
            .window(0);
        s.step("one too many", request(s.net, SYN), Back(rst, Reason::BackendsFull));
    });
}
