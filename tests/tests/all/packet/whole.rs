//! A limit of a service as a whole: over all its backends, ports and protocols, however a backend is chosen. Who is
//! beyond is refused, whoever is in stays.

use std::time::Duration;

use flowpin_tests::harness::eventually::pass;
use lb_common::abi::{Algorithm, BLOCK_SLOTS, BackendId, Reason, Stray};

use super::{
    affinity::client,
    build::{ACK, Frame, RST, SYN, eth},
    run::Verdict,
    stage::{Expect::*, Stage, TCP, UDP, everywhere},
    world::{Added, Affinity, Member},
};

/// Longer than handshakes take, and two ticks more.
const LONG: Duration = Duration::from_millis(330);

fn members(s: &Stage<'_>) -> Vec<Member> {
    s.net.backends.iter().map(|b| Member::new(*b, 8080)).collect()
}

fn syn(s: &Stage<'_>, port: u16) -> Frame {
    eth().ip(s.net.client, s.net.vip).tcp(port, 80, SYN)
}

fn reset(s: &Stage<'_>, port: u16) -> Frame {
    eth().ip(s.net.client, s.net.vip).tcp(port, 80, RST).numbers(1001, 0)
}

fn refusal(s: &Stage<'_>, port: u16) -> Frame {
    let net = s.net;
    eth().reversed().ip(net.vip, net.client).fresh().tcp(80, port, RST | ACK).numbers(0, 1001).window(0)
}

fn all(s: &Stage<'_>, added: &Added) -> u32 {
    added.backends.iter().map(|b| s.world.active(*b).expect("counts are read")).sum()
}

fn full(s: &Stage<'_>) -> u64 {
    s.world.reasons().expect("reasons")[Reason::BackendsFull as usize]
}

#[test]
fn as_many_get_in_whoever_chooses_and_one_more_when_one_has_gone() {
    for (algorithm, stray) in [
        (Algorithm::LEAST_CONNECTIONS, Stray::RESET),
        (Algorithm::CONSISTENT_HASH, Stray::FORWARD),
        (Algorithm::ROUND_ROBIN, Stray::RESET),
        (Algorithm::WEIGHTED_RANDOM, Stray::RESET),
    ] {
        everywhere(|s| {
            s.world.limit = Some(6);
            let members = members(s);
            let added = s.world.add_with(s.net.vip, &[(TCP, 80)], &members, algorithm, stray).expect("added");
            for port in 40_000..40_006 {
                s.forwarded("SYN", &syn(s, port));
            }
            for port in 41_000..41_012 {
                s.step("beyond", syn(s, port), Back(refusal(s, port), Reason::BackendsFull));
            }
            assert_eq!((all(s, &added), s.world.entries()), (6, 12));
            s.forwarded("one that is in says it again", &syn(s, 40_003));
            s.forwarded("and goes", &reset(s, 40_003));
            assert_eq!(all(s, &added), 5);
            s.forwarded("one more gets in", &syn(s, 41_000));
            s.step("and no more", syn(s, 41_001), Back(refusal(s, 41_001), Reason::BackendsFull));
            assert_eq!(all(s, &added), 6);
        });
    }
}

#[test]
fn all_blocks_count_and_those_that_nobody_is_led_to() {
    everywhere(|s| {
        s.world.limit = Some(50);
        let many: Vec<_> = (0..40).map(|i| Member::new(s.net.backends[0], 8_000 + i)).collect();
        let added = s.world.add(s.net.vip, &[(TCP, 80)], &many).expect("added");
        let elsewhere = added.backends.iter().map(|b| b.block()).max().expect("a block") + 1;
        let opens = |s: &mut Stage<'_>, port| {
            let verdict = s.world.run(&syn(s, port).bytes()).expect("it runs").0;
            verdict == Verdict::Pass
        };
        assert_eq!((40_000..40_060).filter(|port| opens(s, *port)).count(), 50);
        assert_eq!((all(s, &added), full(s)), (50, 10));
        // A block in which removed backends have their last connections.
        let blocks: Vec<u32> = (added.backends[0].block()..=elsewhere).collect();
        s.world.set_active(BackendId::new(elsewhere, 0), 7).expect("set");
        let there = 7 * BLOCK_SLOTS as u32;
        s.world.limit(added.id, 50 + there + 3, blocks).expect("said");
        assert_eq!((41_000..41_060).filter(|port| opens(s, *port)).count(), 3);
        s.world.set_active(BackendId::new(elsewhere, 0), 0).expect("set");
    });
}

#[test]
fn tcp_and_udp_of_a_service_are_counted_together() {
    everywhere(|s| {
        s.world.limit = Some(4);
        let members = members(s);
        let added = s.world.add(s.net.vip, &[(TCP, 80), (UDP, 53)], &members).expect("added");
        let net = s.net;
        let query = |port| eth().ip(net.client, net.vip).udp(port, 53);
        for port in [40_000, 40_001] {
            s.forwarded("SYN", &syn(s, port));
            s.forwarded("query", &query(port));
        }
        s.step("SYN", syn(s, 40_002), Back(refusal(s, 40_002), Reason::BackendsFull));
        let before = full(s);
        let verdict = s.world.run(&query(40_002).bytes()).expect("it runs").0;
        assert_eq!((verdict, full(s)), (Verdict::Back, before + 1), "port unreachable");
        s.forwarded("a datagram of a flow that is in", &query(40_001));
        assert_eq!(all(s, &added), 4);
    });
}

#[test]
fn who_is_refused_leaves_no_binding_and_who_is_bound_is_refused_as_well() {
    for algorithm in [Algorithm::LEAST_CONNECTIONS, Algorithm::CONSISTENT_HASH] {
        everywhere(|s| {
            s.world.limit = Some(3);
            let members = members(s);
            let affinity = Affinity { algorithm, ..Affinity::group(7) };
            let added = s.world.add_bound(s.net.vip, &[(TCP, 80)], &members, affinity).expect("added");
            let syn = |s: &Stage<'_>, i, port| eth().ip(client(s, i), s.net.vip).tcp(port, 80, SYN);
            for port in 40_000..40_003 {
                s.forwarded("SYN", &syn(s, 1, port));
            }
            let before = full(s);
            for (who, port) in [(1, 40_003), (2, 40_000)] {
                let verdict = s.world.run(&syn(s, who, port).bytes()).expect("it runs").0;
                assert_eq!(verdict, Verdict::Back, "client {who}");
            }
            assert_eq!((full(s) - before, all(s, &added)), (2, 3));
            let open: Vec<u32> = s.world.bindings().iter().map(|(_, binding)| binding.open()).collect();
            assert_eq!(open, [3]);
        });
    }
}

#[test]
fn connections_from_the_middle_are_counted_and_refused_too() {
    everywhere(|s| {
        s.world.limit = Some(2);
        let members = members(s);
        let added = s.world.add_hashed(s.net.vip, &[(TCP, 80)], &members).expect("added");
        let ack = |port| eth().ip(s.net.client, s.net.vip).tcp(port, 80, ACK).numbers(1001, 5001);
        let frames = [ack(40_000), ack(40_001), ack(40_002)];
        let outcomes = frames.map(|frame| s.world.run(&frame.bytes()).expect("it runs").0);
        assert_eq!(outcomes, [Verdict::Pass, Verdict::Pass, Verdict::Back]);
        assert_eq!((all(s, &added), full(s)), (2, 1));
    });
}

#[test]
fn a_half_handshake_gives_its_place_after_a_while() {
    everywhere(|s| {
        s.world.limit = Some(2);
        let members = members(s);
        let added = s.world.add(s.net.vip, &[(TCP, 80)], &members).expect("added");
        for port in [40_000, 40_001] {
            s.forwarded("SYN", &syn(s, port));
        }
        s.step("they may finish yet", syn(s, 40_002), Back(refusal(s, 40_002), Reason::BackendsFull));
        pass(LONG);
        s.forwarded("for the first that hasn't finished", &syn(s, 40_002));
        assert_eq!((all(s, &added), s.world.entries()), (2, 4));
    });
}

#[test]
fn a_limit_is_what_it_is_now() {
    everywhere(|s| {
        s.world.limit = Some(1);
        let members = members(s);
        let added = s.world.add(s.net.vip, &[(TCP, 80)], &members).expect("added");
        s.forwarded("SYN", &syn(s, 40_000));
        s.step("full", syn(s, 40_001), Back(refusal(s, 40_001), Reason::BackendsFull));
        s.world.limit(added.id, 3, vec![added.backends[0].block()]).expect("raised");
        s.forwarded("room", &syn(s, 40_001));
        s.forwarded("and more", &syn(s, 40_002));
        s.world.limit(added.id, 1, vec![added.backends[0].block()]).expect("lowered");
        s.forwarded("what is open stays", &syn(s, 40_002));
        s.step("full", syn(s, 40_003), Back(refusal(s, 40_003), Reason::BackendsFull));
        assert_eq!(all(s, &added), 3);
    });
}
