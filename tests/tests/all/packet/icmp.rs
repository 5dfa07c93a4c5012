//! ICMP: pings of a VIP are answered; errors about balanced packets reach the right end and speak of the packet as that end knows it.

use super::{
    build::{ACK, Frame, SYN, Sum, eth},
    stage::{Expect::*, Net, Stage, TCP, UDP, everywhere},
    udp::query,
};

/// Types and codes of errors: host or address unreachable, port unreachable, too big, time exceeded, parameter problem.
pub fn errors(net: &Net) -> [(u8, u8); 5] {
    if net.vip.is_ipv4() {
        [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)]
    } else {
        [(1, 3), (1, 4), (2, 0), (3, 0), (4, 0)]
    }
}

/// An error from somebody about a packet, told to its sender; quoting so much of what follows its IP header.
pub fn error(
    from: std::net::IpAddr,
    to: std::net::IpAddr,
    (kind, code): (u8, u8),
    about: &Frame,
    quoted: usize,
) -> Frame {
    let header = if to.is_ipv4() { 20 } else { 40 };
    let mut packet = about.packet();
    packet.truncate(header + quoted);
    eth().ip(from, to).icmp(kind, code).rest(1400).payload(&packet)
}

fn syn(net: &Net) -> Frame {
    eth().ip(net.client, net.vip).tcp(40000, 80, SYN)
}

/// A flow of each protocol: the client's packet, and the backend's.
fn flows(s: &mut Stage<'_>) -> [(Frame, Frame); 2] {
    s.service(TCP, 80, 1);
    s.service(UDP, 53, 1);
    let net = s.net;
    s.forwarded("SYN", &syn(net));
    s.forwarded("query", &query(net));
    let ack = eth().ip(net.backends[0], net.client).tcp(8080, 40000, ACK).fill(600);
    [(syn(net).fill(600), ack), (query(net), eth().ip(net.backends[0], net.client).udp(8080, 40000).fill(40))]
}

#[test]
fn a_ping_of_a_vip_is_answered() {
    everywhere(|s| {
        s.service(TCP, 80, 0);
        let net = s.net;
        let (request, reply) = if net.vip.is_ipv4() { (8, 0) } else { (128, 129) };
        for len in [0, 1, 56, 1400] {
            let ping = eth().ip(net.client, net.vip).icmp(request, 0).rest(0x1234_0001).fill(len);
            let pong = eth().reversed().ip(net.vip, net.client).icmp(reply, 0).rest(0x1234_0001).fill(len);
            s.step("ping", &ping, Answered(pong.ttl(64)));
        }
        s.step("of somebody else", eth().ip(net.client, net.other).icmp(request, 0), Pass);
        s.step("a reply to the VIP", eth().ip(net.client, net.vip).icmp(reply, 0), Pass);
    });
}

#[test]
fn errors_about_the_clients_packets_reach_the_client() {
    everywhere(|s| {
        let net = s.net;
        for (sent, _) in flows(s) {
            let beyond = sent.clone().to(net.backends[0], 8080);
            for what in errors(net) {
                for quoted in [8, 18, 20, 48] {
                    let quoted = if what.0 == 3 { quoted } else { 8 };
                    s.step(
                        "a router's",
                        error(net.other, net.client, what, &beyond, quoted),
                        Becomes(error(net.other, net.client, what, &sent, quoted)),
                    );
                    s.step(
                        "the backend's own",
                        error(net.backends[0], net.client, what, &beyond, quoted),
                        Becomes(error(net.vip, net.client, what, &sent, quoted)),
                    );
                }
            }
        }
    });
}

#[test]
fn errors_about_the_backends_packets_reach_the_backend() {
    everywhere(|s| {
        let net = s.net;
        for (_, sent) in flows(s) {
            let beyond = match &sent {
                frame if frame.is_udp() => sent.clone().from(net.vip, 53),
                _ => sent.clone().from(net.vip, 80),
            };
            for what in errors(net) {
                s.step(
                    "a router's",
                    error(net.other, net.vip, what, &beyond, 40),
                    Becomes(error(net.other, net.backends[0], what, &sent, 40)),
                );
                s.step(
                    "the client's own",
                    error(net.client, net.vip, what, &beyond, 40),
                    Becomes(error(net.client, net.backends[0], what, &sent, 40)),
                );
            }
        }
    });
}

#[test]
fn what_is_none_of_ours() {
    everywhere(|s| {
        let net = s.net;
        let [(sent, _), _] = flows(s);
        let beyond = sent.clone().to(net.backends[0], 8080);
        let what = errors(net)[3];
        let stranger = beyond.clone().from(net.client, 40001);
        s.step("about another flow", error(net.other, net.client, what, &stranger, 40), Pass);
        s.step("told to somebody else", error(net.other, net.other, what, &beyond, 40), Pass);
        let other = eth().ip(net.client, net.backends[0]).proto(47).fill(40);
        s.step("about another protocol", error(net.other, net.client, what, &other, 40), Pass);
        s.step("quoting too little", error(net.other, net.client, what, &beyond, 7), Pass);
        let padded = error(net.other, net.client, what, &beyond, 4).trailer(30);
        s.step("quoting too little, and padding", padded, Pass);
        let version = beyond.clone().version(5);
        s.step("about no IP packet", error(net.other, net.client, what, &version, 40), Pass);
        if net.vip.is_ipv4() {
            let later = beyond.clone().fragment(7);
            s.step("about a later fragment", error(net.other, net.client, what, &later, 40), Pass);
            let short = beyond.clone().ihl(4);
            s.step("about an impossible header", error(net.other, net.client, what, &short, 40), Pass);
            // Only IPv4's: what follows an IPv6 header is looked at no further.
            let (with, without) = (beyond.clone().options(&[1; 8]), sent.clone().options(&[1; 8]));
            s.step(
                "quoting options",
                error(net.other, net.client, what, &with, 40),
                Becomes(error(net.other, net.client, what, &without, 40)),
            );
        }
    });
}

#[test]
fn a_datagram_without_checksum_is_quoted_without() {
    everywhere(|s| {
        let net = s.net;
        flows(s);
        let sent = query(net).l4_sum(Sum::Is(0));
        let beyond = sent.clone().to(net.backends[0], 8080);
        let what = errors(net)[1];
        s.step(
            "the backend's own",
            error(net.backends[0], net.client, what, &beyond, 40),
            Becomes(error(net.vip, net.client, what, &sent, 40)),
        );
    });
}
