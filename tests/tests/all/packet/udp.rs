//! UDP: one pin per 5-tuple, and the checksum's two kinds of zero.

use super::{
    build::{Frame, Sum, eth},
    stage::{Expect::*, Net, UDP, everywhere},
};

/// From the client's port 40000 to the VIP's port 53.
pub fn query(net: &Net) -> Frame {
    eth().ip(net.client, net.vip).udp(40000, 53).fill(40)
}

fn answer(net: &Net, b: usize) -> Frame {
    eth().ip(net.backends[b], net.client).udp(8080, 40000).fill(200)
}

#[test]
fn query_and_answer_are_translated() {
    everywhere(|s| {
        let added = s.service(UDP, 53, 4);
        let net = s.net;
        let b = s.forwarded("first", &query(net));
        for i in 0..5 {
            let back = answer(net, b);
            s.step("answer", &back, Becomes(back.clone().from(net.vip, 53)));
            assert_eq!(s.forwarded("more of the same flow", &query(net).fill(i)), b);
        }
        let mut counts = [0; 4];
        counts[b] = 1;
        s.active("one pin", &added, &counts);
    });
}

#[test]
fn an_empty_datagram() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        s.step("query", query(net).fill(0), Becomes(query(net).fill(0).to(net.backends[0], 8080)));
        s.step(
            "padded",
            query(net).fill(0).minimum(),
            Becomes(query(net).fill(0).minimum().to(net.backends[0], 8080)),
        );
    });
}

#[test]
fn no_checksum_stays_none() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let none = query(net).l4_sum(Sum::Is(0));
        s.step("query", &none, Becomes(none.clone().to(net.backends[0], 8080)));
        let back = answer(net, 0).l4_sum(Sum::Is(0));
        s.step("answer", &back, Becomes(back.clone().from(net.vip, 53)));
    });
}

#[test]
fn a_checksum_that_comes_out_as_zero_is_sent_as_ffff() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let field = |f: &Frame| {
            let bytes = f.bytes();
            let at = bytes.len() - 4;
            u16::from_be_bytes([bytes[at], bytes[at + 1]])
        };
        let with = |n: u16| query(net).payload(&n.to_be_bytes());
        let out = |n: u16| with(n).to(net.backends[0], 8080);
        let n = (0..=u16::MAX).find(|n| field(&out(*n)) == 0xffff).expect("some payload sums up so");
        assert_ne!(field(&with(n)), 0xffff);
        s.step("becomes ffff", with(n), Becomes(out(n)));
        let n = (0..=u16::MAX).find(|n| field(&with(*n)) == 0xffff).expect("some payload sums up so");
        s.step("was ffff", with(n), Becomes(out(n)));
    });
}

#[test]
fn tcp_and_udp_on_one_port_are_two_services() {
    everywhere(|s| {
        let net = s.net;
        let member = |b: usize| [super::world::Member::new(net.backends[b], 8080)];
        s.world.add(net.vip, &[(UDP, 53)], &member(0)).unwrap();
        s.world.add(net.vip, &[(super::stage::TCP, 53)], &member(1)).unwrap();
        assert_eq!(s.forwarded("UDP", &query(net)), 0);
        assert_eq!(s.forwarded("TCP", &eth().ip(net.client, net.vip).tcp(40000, 53, super::build::SYN)), 1);
    });
}
