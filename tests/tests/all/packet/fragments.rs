//! Fragments: dropped and counted if they are ours, untouched if not. Only the first has ports, so they can't be balanced.

use lb_common::abi::Reason;

use super::{
    build::{Frame, eth},
    stage::{Expect::*, Net, Stage, UDP, everywhere},
    udp::query,
};

fn fragment(net: &Net, frame: Frame, offset: u16, more: bool) -> Frame {
    if net.vip.is_ipv4() {
        frame.fragment(offset | (more as u16) << 13)
    } else {
        frame.fragment6(offset, more)
    }
}

fn to_vip(s: &mut Stage<'_>) {
    let net = s.net;
    let q = || query(net).fill(64);
    s.step("first", fragment(net, q(), 0, true), Drop(Reason::Fragment));
    s.step("middle", fragment(net, q(), 9, true), Drop(Reason::Fragment));
    s.step("last", fragment(net, q(), 100, false), Drop(Reason::Fragment));
    s.step("last, at the end of the space", fragment(net, q(), 0x1fff, false), Drop(Reason::Fragment));
    s.step("tagged", fragment(net, q().vlan(3), 9, false), Drop(Reason::Fragment));
}

#[test]
fn to_a_vip() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 1);
        to_vip(s);
        s.active("nothing is pinned", &added, &[0]);
        s.forwarded("a whole one", &query(s.net));
        to_vip(s);
        s.active("the flow is unharmed", &added, &[1]);
    });
}

#[test]
fn of_a_reply() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        s.forwarded("query", &query(net));
        let answer = || eth().ip(net.backends[0], net.client).udp(8080, 40000).fill(1200);
        s.step("first", fragment(net, answer(), 0, true), Drop(Reason::Fragment));
        // It has no ports and goes to a client, not to a VIP: nothing tells it from other traffic. Without its first it is lost.
        s.step("the rest", fragment(net, answer(), 150, false), Pass);
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
