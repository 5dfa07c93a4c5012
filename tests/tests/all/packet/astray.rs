//! Packets that aren't for this node, or can't be from where they say: the stack's to judge. They open nothing and are answered by nobody here.

use std::net::IpAddr;

use lb_common::abi::Reason;

use super::{
    build::{ACK, Frame, MAC_B, PSH, SYN, eth},
    stage::{Expect, Expect::*, Net, Stage, TCP, UDP, everywhere},
    tcp::{Talk, request},
    world::Added,
};

/// Another machine's address, everybody's, and a group's.
const OTHERS: [[u8; 6]; 3] = [[0x02, 0, 0, 0, 0, 0x0c], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]];

/// What becomes of the knock at this place: that at a port which no service has isn't counted.
const fn left(at: usize) -> Expect {
    if matches!(at, 2 | 4) { Pass } else { Left(Reason::Foreign) }
}

/// What opens a flow, is refused, or is answered at the VIP.
fn knocks(net: &Net) -> Vec<Frame> {
    let echo = if net.vip.is_ipv4() { 8 } else { 128 };
    let to = || eth().ip(net.client, net.vip);
    vec![
        to().tcp(40_000, 80, SYN),
        to().udp(40_000, 53),
        to().tcp(40_000, 81, SYN),
        to().tcp(40_001, 80, ACK),
        to().udp(40_000, 54),
        to().icmp(echo, 0).fill(20),
    ]
}

fn services(s: &mut Stage<'_>) -> [Added; 2] {
    s.world.vip = lb_common::abi::Vip::OWNED;
    [s.service(TCP, 80, 1), s.service(UDP, 53, 1)]
}

fn with_mac(frame: &Frame, mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = frame.bytes();
    bytes[..6].copy_from_slice(&mac);
    bytes
}

#[test]
fn frames_for_other_machines_open_nothing() {
    everywhere(|s| {
        services(s);
        s.world.addressed_by(&[MAC_B]).expect("they are noted");
        for (at, knock) in knocks(s.net).into_iter().enumerate() {
            for mac in OTHERS {
                s.step("for another", with_mac(&knock, mac), left(at));
            }
        }
        assert_eq!(s.world.entries(), 0);
        s.forwarded("for this node", &request(s.net, SYN));
    });
}

#[test]
fn what_is_for_all_is_for_nobody_even_if_the_node_isnt_known() {
    everywhere(|s| {
        services(s);
        for (at, knock) in knocks(s.net).into_iter().enumerate() {
            s.step("for all", with_mac(&knock, [0xff; 6]), left(at));
        }
        s.forwarded("for another, as far as is known", &request(s.net, SYN).reversed());
    });
}

#[test]
fn an_open_connection_minds_nothing() {
    everywhere(|s| {
        let [added, _] = services(s);
        s.world.addressed_by(&[MAC_B]).expect("they are noted");
        let talk = Talk::open(s);
        for knock in knocks(s.net) {
            for mac in OTHERS {
                // A SYN over it goes where it goes, which is the backend's to judge.
                s.world.run(&with_mac(&knock, mac)).expect("it runs");
            }
        }
        s.active("open", &added, &[1]);
        talk.request(s, "it goes on", request(s.net, ACK | PSH).numbers(1001, 5001).fill(10));
    });
}

#[test]
fn nobodys_addresses_open_nothing() {
    everywhere(|s| {
        services(s);
        let nobody: [IpAddr; 4] = if s.net.vip.is_ipv4() {
            [[0, 0, 0, 7].into(), [127, 0, 0, 1].into(), [224, 0, 0, 251].into(), [255; 4].into()]
        } else {
            ["::".parse(), "::1".parse(), "ff02::1".parse(), "ff05::2".parse()]
                .map(|ip| ip.expect("an address"))
        };
        for from in nobody {
            for (at, knock) in knocks(&Net { client: from, ..*s.net }).into_iter().enumerate() {
                s.step("from nobody", knock, left(at));
            }
        }
        assert_eq!(s.world.entries(), 0);
    });
}
