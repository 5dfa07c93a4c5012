//! Source NAT: both addresses are replaced, each flow has a port of ours that no other has, and the backend's answers find the client.

use std::{collections::HashSet, net::IpAddr};

use lb_common::abi::{Forward, Reason};

use super::{
    build::{ACK, FIN, Frame, RST, SYN, eth},
    run::{Hook, Verdict},
    stage::{Expect::*, NET4, NET6, Net, Stage, TCP, UDP, everywhere, on},
    udp::query,
    world::{Added, Member},
};

/// The address and port of ours that a packet came out with: it must be as wanted but for that.
#[track_caller]
pub fn ours(s: &mut Stage<'_>, packet: &Frame, from: &[IpAddr], to: (IpAddr, u16)) -> (IpAddr, u16) {
    let (verdict, out) = s.world.run(&packet.bytes()).unwrap();
    let out = out.to_vec();
    assert_eq!(verdict, Verdict::Pass);
    let l4 = if s.net.vip.is_ipv4() { 34 } else { 54 };
    let port = u16::from_be_bytes([out[l4], out[l4 + 1]]);
    let source = from.iter().find(|source| packet.clone().from(**source, port).to(to.0, to.1).bytes() == out);
    (*source.unwrap_or_else(|| panic!("not as wanted: {out:02x?}")), port)
}

fn service(s: &mut Stage<'_>, sources: &[IpAddr], ports: u16) -> Added {
    s.world.forward = Forward::SNAT;
    s.world.set_sources(sources, 2000, ports).unwrap();
    let added = s.service(TCP, 80, 1);
    s.service(UDP, 53, 1);
    added
}

fn syn(net: &Net, port: u16) -> Frame {
    eth().ip(net.client, net.vip).tcp(port, 80, SYN)
}

#[test]
fn there_and_back() {
    everywhere(|s| {
        let net = s.net;
        let added = service(s, &[net.other], 100);
        let to = (net.backends[0], 8080);
        for (sent, answer) in [
            (
                syn(net, 40000).fill(30),
                eth().ip(net.backends[0], net.other).tcp(8080, 0, SYN | ACK).numbers(5000, 1001).fill(70),
            ),
            (query(net), eth().ip(net.backends[0], net.other).udp(8080, 0).fill(90)),
        ] {
            let near = ours(s, &sent, &[net.other], to);
            assert!((2000..2100).contains(&near.1), "{near:?}");
            for _ in 0..3 {
                assert_eq!(ours(s, &sent, &[net.other], to), near, "the same flow");
                let answer = answer.clone().to(near.0, near.1);
                let (client, vip) = sent.ports();
                s.step("answer", &answer, Becomes(answer.clone().from(net.vip, vip).to(net.client, client)));
            }
        }
        s.active("a pin", &added, &[1]);
        assert_eq!(s.world.ports_taken().unwrap(), 2);
        let counted = s.world.counters(added.backends[0]).unwrap();
        assert_eq!((counted.packets_in, counted.packets_out), (4, 3));
    });
}

#[test]
fn a_backend_that_is_the_node_sees_its_clients() {
    everywhere(|s| {
        let net = s.net;
        s.world.forward = Forward::SNAT;
        s.world.set_sources(&[net.other], 2000, 100).unwrap();
        let member = Member { on_node: true, ..Member::new(net.backends[0], 8080) };
        let added = s.world.add(net.vip, &[(TCP, 80), (UDP, 53)], &[member]).unwrap();
        for sent in [syn(net, 40000).fill(30), query(net)] {
            s.step("there", &sent, Becomes(sent.clone().to(net.backends[0], 8080)));
        }
        s.active("pins", &added, &[2]);
        assert_eq!(s.world.ports_taken().unwrap(), 0);
        let answer = eth().ip(net.backends[0], net.client).tcp(8080, 40000, SYN | ACK).fill(70);
        s.step("back", &answer, Becomes(answer.clone().from(net.vip, 80)));
    });
}

#[test]
fn a_connection_from_its_beginning_to_its_end() {
    everywhere(|s| {
        let net = s.net;
        let added = service(s, &[net.other], 100);
        let to = (net.backends[0], 8080);
        let client = |flags, seq, ack| eth().ip(net.client, net.vip).tcp(40000, 80, flags).numbers(seq, ack);
        let near = ours(s, &client(SYN, 100, 0), &[net.other], to);
        let back = |s: &mut Stage<'_>, flags, seq, ack| {
            let frame = eth().ip(net.backends[0], near.0).tcp(8080, near.1, flags).numbers(seq, ack);
            let wanted = frame.clone().from(net.vip, 80).to(net.client, 40000);
            s.step("answer", frame, Becomes(wanted));
        };
        back(s, SYN | ACK, 500, 101);
        ours(s, &client(ACK, 101, 501), &[net.other], to);
        s.active("open", &added, &[1]);
        ours(s, &client(FIN | ACK, 101, 501), &[net.other], to);
        back(s, FIN | ACK, 501, 102);
        s.active("closing", &added, &[1]);
        ours(s, &client(ACK, 102, 502), &[net.other], to);
        s.active("closed", &added, &[0]);
        assert_eq!(s.world.ports_taken().unwrap(), 1, "late packets still find their way");
        // The client uses its port again: the old flow goes, and its port with it.
        ours(s, &client(SYN, 9000, 0), &[net.other], to);
        s.active("anew", &added, &[1]);
        assert_eq!((s.world.ports_taken().unwrap(), s.world.entries()), (1, 2));
        ours(s, &client(RST, 9001, 0), &[net.other], to);
        s.active("reset", &added, &[0]);
    });
}

#[test]
fn ports_are_used_to_the_last_and_then_refused() {
    everywhere(|s| {
        let net = s.net;
        let sources = [net.other, net.vip2];
        // Not a multiple of what a word of the bitmap holds.
        let added = service(s, &sources, 70);
        let to = (net.backends[0], 8080);
        let mut taken = HashSet::new();
        for port in 0..140 {
            assert!(taken.insert(ours(s, &syn(net, 30_000 + port), &sources, to)), "a port twice");
        }
        assert!(taken.iter().all(|(_, port)| (2000..2070).contains(port)), "{taken:?}");
        s.active("all", &added, &[140]);
        let refusal = eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 31_000, RST | ACK);
        let refusal = refusal.numbers(0, 1001).window(0);
        s.step("one more", syn(net, 31_000), Back(refusal, Reason::NoSourcePort));
        s.active("still", &added, &[140]);
        assert_eq!(s.world.entries(), 280);
        // UDP has ports of its own.
        ours(s, &query(net), &sources, to);
        // One ends, and is used again: its port is free.
        let ended = eth().ip(net.client, net.vip).tcp(30_007, 80, RST).numbers(1001, 0);
        let near = ours(s, &ended, &sources, to);
        assert_eq!(ours(s, &syn(net, 30_007), &sources, to), near, "the only one that is left");
        s.active("full again", &added, &[140]);
    });
}

#[test]
fn a_port_that_is_taken_unbeknown_is_passed_over() {
    on(Hook::Tc, &[&NET4, &NET6], &|s| {
        let net = s.net;
        service(s, &[net.other], 64);
        let to = (net.backends[0], 8080);
        let mut taken = HashSet::from([ours(s, &syn(net, 40_000), &[net.other], to)]);
        // The bitmap is lost, the flow isn't.
        s.world.forget_ports().unwrap();
        for port in 0..63 {
            assert!(taken.insert(ours(s, &syn(net, 30_000 + port), &[net.other], to)), "a port twice");
        }
    });
}

/// A masquerade of the node's has given the same address and port to a connection past us: the backend answers a SYN with a bare ACK.
#[test]
fn a_port_by_which_the_backend_knows_anothers_connection_is_another() {
    everywhere(|s| {
        let net = s.net;
        let added = service(s, &[net.other], 30_000);
        let to = (net.backends[0], 8080);
        let client = |flags, seq, ack| eth().ip(net.client, net.vip).tcp(40000, 80, flags).numbers(seq, ack);
        let back = |s: &mut Stage<'_>, near: (IpAddr, u16), flags| {
            let frame = eth().ip(net.backends[0], near.0).tcp(8080, near.1, flags).numbers(70, 80);
            s.step("answer", &frame, Becomes(frame.clone().from(net.vip, 80).to(net.client, 40000)));
        };
        let first = ours(s, &client(SYN, 100, 0), &[net.other], to);
        back(s, first, ACK);
        s.step("it would end that", client(RST, 80, 0), Drop(Reason::StrayReset));
        s.active("it is still to be made", &added, &[1]);
        // By lot, among so many.
        let second = ours(s, &client(SYN, 100, 0), &[net.other], to);
        assert_ne!(first, second);
        s.active("one", &added, &[1]);
        assert_eq!((s.world.entries(), s.world.ports_taken().unwrap()), (2, 1));
        let others = eth().ip(net.backends[0], first.0).tcp(8080, first.1, ACK).fill(10);
        s.step("that connection goes on", others, Pass);
        back(s, second, SYN | ACK);
        assert_eq!(ours(s, &client(ACK, 101, 71), &[net.other], to), second, "it is answered");
    });
}

#[test]
fn without_an_address_of_ours() {
    everywhere(|s| {
        let net = s.net;
        let added = service(s, &[], 64);
        let refusal = eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 40_000, RST | ACK);
        let refusal = refusal.numbers(0, 1001).window(0);
        s.step("SYN", syn(net, 40_000), Back(refusal, Reason::NoSourcePort));
        s.step("query", query(net), Drop(Reason::NoSourcePort));
        s.active("nothing", &added, &[0]);
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn a_backend_that_reaches_itself_is_given_an_address_of_ours() {
    everywhere(|s| {
        let net = s.net;
        s.world.set_sources(&[net.other], 2000, 64).unwrap();
        let added = s.service(TCP, 80, 1);
        let itself = eth().ip(net.backends[0], net.vip).tcp(40_000, 80, SYN);
        let near = ours(s, &itself, &[net.other], (net.backends[0], 8080));
        let answer = eth().ip(net.backends[0], near.0).tcp(8080, near.1, SYN | ACK);
        s.step("answer", &answer, Becomes(answer.clone().from(net.vip, 80).to(net.backends[0], 40_000)));
        // Others are not.
        s.forwarded("another client", &syn(net, 40_000));
        s.active("both", &added, &[2]);
    });
}

#[test]
fn errors_find_their_way_too() {
    everywhere(|s| {
        let net = s.net;
        service(s, &[net.other], 64);
        let (kind, code) = if net.vip.is_ipv4() { (3, 3) } else { (1, 4) };
        let error = |from: IpAddr, to: IpAddr, about: &Frame| {
            eth().ip(from, to).icmp(kind, code).payload(&about.packet())
        };
        let near = ours(s, &query(net), &[net.other], (net.backends[0], 8080));
        let beyond = query(net).from(near.0, near.1).to(net.backends[0], 8080);
        s.step(
            "the backend's",
            error(net.backends[0], near.0, &beyond),
            Becomes(error(net.vip, net.client, &query(net))),
        );
        let answer = eth().ip(net.backends[0], near.0).udp(8080, near.1).fill(9);
        let translated = answer.clone().from(net.vip, 53).to(net.client, 40_000);
        s.step(
            "the client's",
            error(net.client, net.vip, &translated),
            Becomes(error(near.0, net.backends[0], &answer)),
        );
    });
}

#[test]
fn the_last_hop_is_told_by_the_stack() {
    everywhere(|s| {
        let net = s.net;
        service(s, &[net.other], 64);
        // Untranslated: the sender is to hear of the packet that it sent.
        s.step("TTL 1", syn(net, 40_000).ttl(1), Pass);
    });
}
