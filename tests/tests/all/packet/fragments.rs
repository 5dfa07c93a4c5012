//! Fragments: they follow the first of their datagram; without it they are dropped and counted if they are to
//! a VIP that is nothing else, untouched if not.

use lb_common::abi::{Reason, SourceRanges, Vip};

use super::{
    build::{ACK, Frame, SYN, eth},
    stage::{Expect::*, Net, Stage, TCP, UDP, everywhere},
    udp::query,
};

fn fragment(net: &Net, frame: Frame, offset: u16, more: bool) -> Frame {
    if net.vip.is_ipv4() {
        frame.fragment(offset | (more as u16) << 13)
    } else {
        frame.fragment6(offset, more)
    }
}

/// A datagram of 2,000 bytes in three fragments, which have nothing but the first's UDP header in common with a whole one's.
pub fn parts(net: &Net, whole: Frame) -> [Frame; 3] {
    let whole = whole.fill(2000);
    let packet = whole.packet();
    let l4 = &packet[if net.vip.is_ipv4() { 20 } else { 40 }..];
    let part = |from: usize, to: usize| {
        let raw = whole.clone().proto(17).payload(&l4[from..to.min(l4.len())]);
        fragment(net, raw, from as u16 / 8, to < l4.len())
    };
    [part(0, 800), part(800, 1600), part(1600, 2400)]
}

fn to_vip_alone(s: &mut Stage<'_>) {
    let net = s.net;
    let q = || query(net).fill(64);
    s.step("middle", fragment(net, q(), 9, true), Drop(Reason::Fragment));
    s.step("last", fragment(net, q(), 100, false), Drop(Reason::Fragment));
    s.step("last, at the end of the space", fragment(net, q(), 0x1fff, false), Drop(Reason::Fragment));
    s.step("tagged", fragment(net, q().vlan(3), 9, false), Drop(Reason::Fragment));
}

#[test]
fn those_whose_first_has_not_come() {
    everywhere(|s| {
        s.world.vip = Vip::OWNED;
        let added = s.service(UDP, 53, 1);
        to_vip_alone(s);
        s.active("nothing is pinned", &added, &[0]);
        s.forwarded("a whole one", &query(s.net));
        to_vip_alone(s);
        s.active("the flow is unharmed", &added, &[1]);
    });
}

#[test]
fn those_of_datagrams_to_the_node_itself() {
    everywhere(|s| {
        s.world.vip = Vip::SHARED;
        s.service(UDP, 53, 1);
        let net = s.net;
        for part in parts(net, query(net).to(net.vip, 54)) {
            s.step("to a port that is no service's", part, Pass);
        }
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn follow_their_first() {
    everywhere(|s| {
        s.world.vip = Vip::OWNED;
        let added = s.service(UDP, 53, 4);
        let net = s.net;
        let sent = parts(net, query(net));
        let out = s.world.run(&sent[0].bytes()).unwrap().1.to_vec();
        let b = (0..4)
            .find(|b| parts(net, query(net).to(net.backends[*b], 8080))[0].bytes() == out)
            .expect("it goes to a backend");
        for _ in 0..3 {
            for (i, wanted) in parts(net, query(net).to(net.backends[b], 8080)).into_iter().enumerate() {
                s.step("a query's", &sent[i], Becomes(wanted));
            }
            let answer = eth().ip(net.backends[b], net.client).udp(8080, 40000);
            let wanted = parts(net, answer.clone().from(net.vip, 53));
            for (i, part) in parts(net, answer).into_iter().enumerate() {
                s.step("an answer's", part, Becomes(wanted[i].clone()));
            }
        }
        let mut counts = [0; 4];
        counts[b] = 1;
        s.active("one pin", &added, &counts);
        let counted = s.world.counters(added.backends[b]).unwrap();
        assert_eq!((counted.packets_in, counted.packets_out), (10, 9), "each fragment is a packet");
        // Another datagram of the same flow, without its first.
        if net.vip.is_ipv4() {
            s.step("another's", sent[1].clone().id(0x4321), Drop(Reason::Fragment));
        }
        let stranger = sent[1].clone().from(net.other, 0);
        s.step("somebody else's", stranger, Drop(Reason::Fragment));
    });
}

#[test]
fn of_a_flow_that_is_gone() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let sent = parts(net, query(net));
        s.step("first", &sent[0], Becomes(parts(net, query(net).to(net.backends[0], 8080))[0].clone()));
        s.world.flows4.clear().unwrap();
        s.world.flows6.clear().unwrap();
        s.step("second", &sent[1], Drop(Reason::Fragment));
    });
}

#[test]
fn of_somebody_who_is_not_let_in() {
    everywhere(|s| {
        s.world.vip = Vip::OWNED;
        s.world.source_ranges = SourceRanges::LISTED;
        let added = s.service(UDP, 53, 1);
        let net = s.net;
        let bits = if net.client.is_ipv4() { 24 } else { 64 };
        s.world.admit(added.id, net.client, bits, true).unwrap();
        let sent = parts(net, query(net).from(net.other, 40000));
        s.step("a stranger's first", &sent[0], Drop(Reason::SourceNotAllowed));
        s.step("a stranger's second", &sent[1], Drop(Reason::Fragment));
        assert_eq!(s.world.datagrams(), 0, "what opens no flow isn't remembered");
    });
}

#[test]
fn nobody_s_make_room_for_another_s() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 1);
        let net = s.net;
        let others = query(net).from(net.other, 40000);
        let (sent, wanted) = (parts(net, others.clone()), parts(net, others.to(net.backends[0], 8080)));
        s.step("another's first", &sent[0], Becomes(wanted[0].clone()));
        // More than there are places for in all.
        for id in 0..10_000 {
            let [first, ..] = parts(net, query(net).id(id));
            s.world.run(&first.bytes()).unwrap();
        }
        assert!((2..100).contains(&s.world.datagrams()), "{}", s.world.datagrams());
        s.step("another's second", &sent[1], Becomes(wanted[1].clone()));
        let last = query(net).id(9_999);
        let wanted = parts(net, last.clone().to(net.backends[0], 8080));
        s.step("the last's second", &parts(net, last)[1], Becomes(wanted[1].clone()));
        s.active("two flows", &added, &[2]);
    });
}

#[test]
fn of_a_service_without_backends() {
    everywhere(|s| {
        s.world.vip = Vip::OWNED;
        s.service(UDP, 53, 0);
        let net = s.net;
        let sent = parts(net, query(net));
        let verdict = s.world.run(&sent[0].bytes()).unwrap().0;
        assert_ne!(verdict, super::run::Verdict::Pass, "nobody to go to");
        s.step("second", &sent[1], Drop(Reason::Fragment));
    });
}

#[test]
fn of_tcp() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let syn = eth().ip(net.client, net.vip).tcp(40000, 80, SYN);
        s.forwarded("SYN", &syn);
        let data = |f: Frame| {
            let whole = f.fill(1000);
            let packet = whole.packet();
            let l4 = &packet[if net.vip.is_ipv4() { 20 } else { 40 }..];
            let part = |range: std::ops::Range<usize>, more| {
                fragment(
                    net,
                    whole.clone().proto(6).payload(&l4[range.clone()]),
                    range.start as u16 / 8,
                    more,
                )
            };
            [part(0..640, true), part(640..1020, false)]
        };
        let whole = eth().ip(net.client, net.vip).tcp(40000, 80, ACK);
        let wanted = data(whole.clone().to(net.backends[0], 8080));
        for (i, part) in data(whole).into_iter().enumerate() {
            s.step("data", part, Becomes(wanted[i].clone()));
        }
    });
}

#[test]
fn of_a_reply_whose_first_has_not_come() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        s.forwarded("query", &query(net));
        let answer = parts(net, eth().ip(net.backends[0], net.client).udp(8080, 40000));
        // It has no ports and goes to a client, not to a VIP: nothing tells it from other traffic. Without its first it is lost.
        s.step("the second", &answer[1], Pass);
    });
}

#[test]
fn to_others() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let q = || query(net).to(net.other, 53).fill(64);
        s.step("first", fragment(net, q(), 0, true), Pass);
        s.step("middle", fragment(net, q(), 9, true), Pass);
        s.step("last", fragment(net, q(), 100, false), Pass);
    });
}

#[test]
fn whole_packets_that_mention_fragments() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        if net.vip.is_ipv4() {
            for word in [0x0000, 0x4000, 0x8000] {
                let q = query(net).fragment(word);
                s.step("may or may not be fragmented", &q, Becomes(q.clone().to(net.backends[0], 8080)));
            }
        } else {
            let q = query(net).fragment6(0, false);
            s.step("atomic", &q, Becomes(q.clone().to(net.backends[0], 8080)));
        }
    });
}
