//! Broken packets: dropped and counted if they are addressed to a VIP, untouched if not, never rewritten.

use lb_common::abi::Reason;

use super::{
    build::{ACK, FIN, Frame, PSH, RST, SYN, eth},
    stage::{Expect::*, Net, Stage, TCP, UDP, everywhere},
    tcp::{Talk, request},
    udp::query,
};

fn fixed(net: &Net) -> u16 {
    if net.vip.is_ipv4() { 20 } else { 40 }
}

/// Length field of a packet whose layer 4 is `l4` bytes.
fn length(net: &Net, l4: u16) -> u16 {
    if net.vip.is_ipv4() { 20 + l4 } else { l4 }
}

/// Frames that are broken, by name; all the same whoever they are addressed to.
fn broken(net: &Net, tcp: &Frame, udp: &Frame) -> Vec<(&'static str, Vec<u8>)> {
    let l4 = 14 + fixed(net) as usize;
    let mut cases = vec![
        ("wrong version", tcp.clone().version(5).bytes()),
        ("says it is longer than it is", tcp.clone().total(length(net, 21)).bytes()),
        ("says it is far longer", udp.clone().total(0xffff).bytes()),
        ("cut within TCP", tcp.cut(l4 + 19)),
        ("cut before TCP", tcp.cut(l4)),
        ("cut within UDP", udp.cut(l4 + 7)),
        ("length leaves no room for TCP", tcp.clone().total(length(net, 19)).bytes()),
        ("length leaves no room for UDP", udp.clone().total(length(net, 7)).bytes()),
        ("TCP header shorter than its minimum", tcp.clone().data_offset(4).bytes()),
        ("TCP header of no length", tcp.clone().data_offset(0).bytes()),
        ("TCP header longer than the packet", tcp.clone().data_offset(15).bytes()),
        ("UDP shorter than its header", udp.clone().udp_len(7).bytes()),
        ("UDP longer than the packet", udp.clone().fill(10).udp_len(19).bytes()),
    ];
    if net.vip.is_ipv4() {
        cases.extend([
            (
                "first fragment whose length leaves no room for UDP",
                udp.clone().fragment(0x2000).total(27).bytes(),
            ),
            ("header shorter than its minimum", tcp.clone().ihl(4).bytes()),
            ("header longer than the packet", udp.clone().fill(0).ihl(15).bytes()),
            ("shorter than its header", tcp.clone().total(19).bytes()),
        ]);
    } else {
        let first = udp.clone().fragment6(0, true).total(15);
        cases.push(("first fragment whose length leaves no room for UDP", first.bytes()));
    }
    cases
}

/// TCP flags that nobody sends.
const IMPOSSIBLE: [u8; 8] =
    [0, PSH, FIN, FIN | PSH, SYN | FIN, SYN | RST, SYN | FIN | ACK, SYN | FIN | RST | ACK | PSH];

fn all(s: &mut Stage<'_>) {
    let net = s.net;
    for (scene, frame) in broken(net, &request(net, ACK), &query(net)) {
        s.step(scene, frame, Drop(Reason::Malformed));
    }
    for flags in IMPOSSIBLE {
        s.step(&format!("flags {flags:#04x}"), request(net, flags), Drop(Reason::Malformed));
    }
}

#[test]
fn to_a_vip() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let udp = s.service(UDP, 53, 1);
        all(s);
        s.active("nothing is pinned", &added, &[0]);
        s.active("nothing is pinned", &udp, &[0]);
        assert_eq!(s.world.entries(), 0);
        let talk = Talk::open(s);
        all(s);
        talk.request(s, "the open connection is unharmed", request(s.net, ACK).numbers(1001, 5001).fill(3));
        s.active("and counted", &added, &[1]);
    });
}

#[test]
fn to_others() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        let (tcp, udp) = (request(net, ACK).to(net.other, 80), query(net).to(net.other, 53));
        for (scene, frame) in broken(net, &tcp, &udp) {
            s.step(scene, frame, Pass);
        }
        for flags in IMPOSSIBLE {
            s.step("impossible flags", request(net, flags).to(net.other, 80), Pass);
        }
    });
}

#[test]
fn cut_at_every_length() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let whole = request(net, SYN).fill(30).bytes();
        // At TC the kernel makes no packet of less than an IP header; without one there is no address to go by.
        let least = if s.world.hook.is_xdp() { 14 } else { 14 + fixed(net) as usize };
        for len in least..whole.len() {
            let expect = if len < 14 + fixed(net) as usize { Pass } else { Drop(Reason::Malformed) };
            s.step(&format!("{len} bytes"), whole[..len].to_vec(), expect);
        }
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn bytes_after_the_packet_are_left_alone() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let padded = request(net, SYN).trailer(23);
        s.step("trailer", &padded, Becomes(padded.clone().to(net.backends[0], 8080)));
        // UDP shorter than IP says: the rest is a trailer too (RFC 9868 puts options there).
        s.service(UDP, 53, 1);
        let short = eth().ip(net.client, net.vip).udp(7, 53).fill(20).udp_len(12);
        // The checksum covers what the UDP length says; it is right for neither reading here and changes by the same amount.
        let none = short.l4_sum(super::build::Sum::Is(0));
        s.step("UDP with a surplus", &none, Becomes(none.clone().to(net.backends[0], 8080)));
    });
}
