//! Where there is no place left: what has waited for its handshake for long gives its own, be it a connection of a backend with a limit, a
//! client's binding, or a port of source NAT. Open connections keep theirs.

use std::{net::IpAddr, time::Duration};

use flowpin_tests::harness::eventually::pass;
use lb_common::abi::{Forward, Reason};

use super::{
    affinity::client,
    build::{ACK, Frame, RST, SYN, eth},
    run::Verdict,
    stage::{Expect::*, Stage, TCP, UDP, everywhere},
    world::{Added, Affinity, CLIENTS, Member},
};

/// Longer than handshakes take, and two ticks more.
const LONG: Duration = Duration::from_millis(330);
/// Longer than anybody waits for an answer to a datagram.
const SILENCE: Duration = Duration::from_millis(1_100);

fn syn(s: &Stage<'_>, port: u16) -> Frame {
    eth().ip(s.net.client, s.net.vip).tcp(port, 80, SYN)
}

/// Finishes a handshake.
fn finish(s: &mut Stage<'_>, port: u16) {
    let net = s.net;
    let answer = eth().ip(net.backends[0], net.client).tcp(8080, port, SYN | ACK).numbers(5000, 1001);
    s.step("SYN-ACK", &answer, Becomes(answer.clone().from(net.vip, 80)));
    s.forwarded("ACK", &eth().ip(net.client, net.vip).tcp(port, 80, ACK).numbers(1001, 5001));
}

fn refusal(s: &Stage<'_>, port: u16) -> Frame {
    let net = s.net;
    eth().reversed().ip(net.vip, net.client).fresh().tcp(80, port, RST | ACK).numbers(0, 1001).window(0)
}

/// A service with one backend that takes two connections.
fn limited(s: &mut Stage<'_>) -> Added {
    s.world.scarce = true;
    let member = Member { limit: 2, ..Member::new(s.net.backends[0], 8080) };
    s.world.add(s.net.vip, &[(TCP, 80), (UDP, 53)], &[member]).expect("a service is added")
}

#[test]
fn a_half_handshake_gives_its_place_after_a_while() {
    everywhere(|s| {
        let added = limited(s);
        for port in [40_000, 40_001] {
            s.forwarded("SYN", &syn(s, port));
        }
        s.step("they may finish yet", syn(s, 40_002), Back(refusal(s, 40_002), Reason::BackendsFull));
        finish(s, 40_000);
        pass(LONG);
        s.forwarded("for the one that hasn't finished", &syn(s, 40_002));
        s.active("never more than it takes", &added, &[2]);
        assert_eq!(s.world.entries(), 4, "it is gone");
        s.step("the other is new", syn(s, 40_003), Back(refusal(s, 40_003), Reason::BackendsFull));
        finish(s, 40_002);
        pass(LONG);
        s.step("both are open", syn(s, 40_003), Back(refusal(s, 40_003), Reason::BackendsFull));
        s.active("full", &added, &[2]);
    });
}

#[test]
fn so_does_udp_that_nobody_has_answered() {
    everywhere(|s| {
        let added = limited(s);
        let net = s.net;
        let query = |port| eth().ip(net.client, net.vip).udp(port, 53);
        for port in [40_000, 40_001] {
            s.forwarded("query", &query(port));
        }
        let answer = eth().ip(net.backends[0], net.client).udp(8080, 40_000);
        s.step("answer", &answer, Becomes(answer.clone().from(net.vip, 53)));
        pass(SILENCE);
        s.forwarded("for the unanswered one", &query(40_002));
        s.active("full", &added, &[2]);
        s.forwarded("the answered one goes on", &query(40_000));
    });
}

#[test]
fn many_that_have_finished_hide_nobody_who_hasnt() {
    everywhere(|s| {
        s.world.scarce = true;
        let member = Member { limit: 61, ..Member::new(s.net.backends[0], 8080) };
        s.world.add(s.net.vip, &[(TCP, 80)], &[member]).expect("a service is added");
        for port in 40_000..40_060 {
            s.forwarded("SYN", &syn(s, port));
            finish(s, port);
        }
        s.forwarded("SYN", &syn(s, 40_060));
        pass(LONG);
        // Each that finds no place passes over some of them.
        let placed = (50_000..50_010).position(|port| {
            let verdict = s.world.run(&syn(s, port).bytes()).expect("it runs").0;
            verdict == Verdict::Pass
        });
        assert!(placed.is_some(), "one of ten clients gets in");
    });
}

#[test]
fn a_binding_for_a_client_that_comes_beats_one_for_a_client_that_doesnt() {
    everywhere(|s| {
        let members: Vec<_> = s.net.backends[..2].iter().map(|b| Member::new(*b, 8080)).collect();
        let affinity = Affinity::group(7);
        s.world.add_bound(s.net.vip, &[(TCP, 80)], &members, affinity).expect("a service is added");
        let syn = |s: &Stage<'_>, i| eth().ip(client(s, i), s.net.vip).tcp(40_000, 80, SYN);
        for i in 0..CLIENTS as u8 {
            s.forwarded("SYN", &syn(s, i));
        }
        let full = |s: &Stage<'_>| s.world.reasons().expect("reasons")[Reason::AffinityFull as usize];
        s.forwarded("without a binding: they may finish yet", &syn(s, 100));
        assert_eq!((full(s), s.world.bindings().len()), (1, CLIENTS as usize));
        pass(LONG);
        s.forwarded("with one", &syn(s, 101));
        assert_eq!((full(s), s.world.bindings().len()), (1, CLIENTS as usize));
    });
}

#[test]
fn who_was_never_there_isnt_remembered() {
    everywhere(|s| {
        let members = [Member::new(s.net.backends[0], 8080)];
        s.world.add_bound(s.net.vip, &[(TCP, 80)], &members, Affinity::group(7)).expect("a service is added");
        let net = s.net;
        let rst = eth().ip(net.client, net.vip).tcp(40_000, 80, RST).numbers(1001, 0);
        s.forwarded("SYN", &syn(s, 40_000));
        assert_eq!(s.world.bindings().len(), 1);
        s.forwarded("RST", &rst);
        assert!(s.world.bindings().is_empty(), "it only said that it wants to connect");
        s.forwarded("SYN", &syn(s, 40_000));
        finish(s, 40_000);
        s.forwarded("RST", &rst);
        assert_eq!(s.world.bindings().len(), 1, "it was there");
        s.forwarded("SYN", &syn(s, 40_001));
        s.forwarded("RST", &eth().ip(net.client, net.vip).tcp(40_001, 80, RST).numbers(1001, 0));
        assert_eq!(s.world.bindings().len(), 1, "and stays so, whatever is said in its name");
    });
}

#[test]
fn a_port_of_ours_is_taken_from_a_half_handshake() {
    everywhere(|s| {
        let net = s.net;
        let ours: IpAddr =
            if net.vip.is_ipv4() { [10, 3, 0, 1].into() } else { "fd00:3::1".parse().expect("an address") };
        s.world.forward = Forward::SNAT;
        s.world.set_sources(&[ours], 20_000, 2).expect("they are ours");
        s.world
            .add(net.vip, &[(TCP, 80)], &[Member::new(net.backends[0], 8080)])
            .expect("a service is added");
        let open = |s: &mut Stage<'_>, port| {
            let (verdict, _) = s.world.run(&syn(s, port).bytes()).expect("it runs");
            verdict != Verdict::Back
        };
        assert!(open(s, 40_000) && open(s, 40_001), "two ports");
        assert!(!open(s, 40_002), "they may finish yet");
        pass(LONG);
        assert!(open(s, 40_002), "a third for one of them");
        assert_eq!(s.world.entries(), 4);
    });
}
