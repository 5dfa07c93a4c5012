//! Refusal of UDP: ICMP port unreachable (RFC 792) or ICMPv6 (RFC 4443), quoting what it answers; so many a tick and no more.

use lb_common::abi::Reason;

use super::{
    build::{Frame, Sum, eth},
    run::{Hook, Verdict},
    stage::{Expect::*, NET4, Net, UDP, everywhere, on},
    udp::query,
};

/// What answers `query`: its IP header and the first 8 bytes of what follows.
fn unreachable(net: &Net, query: &Frame, headers: usize) -> Frame {
    let (kind, code) = if net.vip.is_ipv4() { (3, 3) } else { (1, 4) };
    eth().reversed().ip(net.vip, net.client).fresh().icmp(kind, code).payload(&query.packet()[..headers + 8])
}

/// Answers are limited by the tick: lets those of the tests before be forgotten.
fn fresh_tick() {
    flowpin_tests::harness::eventually::pass(std::time::Duration::from_millis(25));
}

fn fixed(net: &Net) -> usize {
    if net.vip.is_ipv4() { 20 } else { 40 }
}

#[test]
fn a_query_without_backend_is_answered() {
    everywhere(|s| {
        fresh_tick();
        s.service(UDP, 53, 0);
        let net = s.net;
        let q = query(net);
        s.step("query", &q, Back(unreachable(net, &q, fixed(net)), Reason::NoBackend));
        let q = query(net).fill(0).minimum().l4_sum(Sum::Is(0));
        s.step("padded, no checksum", &q, Back(unreachable(net, &q, fixed(net)), Reason::NoBackend));
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn a_query_to_full_backends_is_answered() {
    everywhere(|s| {
        fresh_tick();
        let added = s.service(UDP, 53, 1);
        s.world.set_backend(added.backends[0], 1, 1).unwrap();
        let net = s.net;
        s.forwarded("the first fits", &query(net));
        let q = query(net).from(net.client, 40001);
        s.step("the second doesn't", &q, Back(unreachable(net, &q, fixed(net)), Reason::BackendsFull));
    });
}

#[test]
fn headers_between_are_quoted() {
    everywhere(|s| {
        fresh_tick();
        s.service(UDP, 53, 0);
        let net = s.net;
        let (q, len) = if net.vip.is_ipv4() {
            (query(net).options(&[7, 39, 4].iter().copied().chain([0; 37]).collect::<Vec<_>>()), 60)
        } else {
            (query(net).padding(0, 2).padding(60, 3), 80)
        };
        s.step("query with options", &q, Back(unreachable(net, &q, len), Reason::NoBackend));
    });
}

#[test]
fn tags_in_the_frame() {
    everywhere(|s| {
        fresh_tick();
        s.service(UDP, 53, 0);
        let net = s.net;
        let q = query(net).vlan(9);
        if s.world.hook.is_xdp() {
            s.step("query", &q, Back(unreachable(net, &q, fixed(net)).vlan(9), Reason::NoBackend));
        } else {
            // The kernel takes a tag out of the frame before TC sees it; one that is there all the same is the inner of two,
            // and the helper would make room on its wrong side.
            s.step("query", &q, Unanswered(Reason::NoBackend));
        }
    });
}

#[test]
fn no_more_than_so_many_answers() {
    for hook in Hook::ALL {
        on(hook, &[&NET4], &|s| {
            s.service(UDP, 53, 0);
            let q = query(s.net).bytes();
            let began = std::time::Instant::now();
            let mut answered = 0u32;
            for _ in 0..5000 {
                let (verdict, _) = s.world.run(&q).unwrap();
                assert!(verdict == Verdict::Back || verdict == Verdict::Drop, "{verdict:?}");
                answered += (verdict == Verdict::Back) as u32;
            }
            // On each CPU 50 at once and 4 a tick; ticks are 1 to 10 ms, and the first and last count as one each.
            let ticks = began.elapsed().as_millis() as u32 + 2;
            let cpus = std::thread::available_parallelism().unwrap().get() as u32;
            assert!(
                (4..=(50 + 4 * ticks) * cpus).contains(&answered),
                "{hook:?}: {answered} answers in {ticks} ticks"
            );
            let reasons = s.world.reasons().unwrap();
            assert_eq!(reasons[Reason::NoBackend as usize], 5000);
            assert_eq!(reasons[Reason::Unanswered as usize], u64::from(5000 - answered));
        });
    }
}
