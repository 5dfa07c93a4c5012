//! What may lie between the IP header and TCP or UDP: IPv4 options, IPv6 extension headers.

use lb_common::abi::Reason;

use super::{
    build::{ACK, Frame, SYN, eth},
    run::Hook,
    stage::{Expect::*, NET4, NET6, Stage, TCP, UDP, on},
    tcp::{Talk, reply, request},
};

fn each(net: &'static super::stage::Net, test: impl Fn(&mut Stage<'_>)) {
    Hook::ALL.iter().for_each(|hook| on(*hook, &[net], &test));
}

#[test]
fn ipv4_options_of_every_length() {
    each(&NET4, |s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        for words in 0..=10usize {
            // No-operation all the way, and the end.
            let mut options = vec![1u8; words * 4];
            if let Some(last) = options.last_mut() {
                *last = 0;
            }
            let talk = Talk { backend: 0 };
            talk.request(s, "SYN", request(net, SYN).options(&options));
            talk.reply(
                s,
                "SYN-ACK",
                reply(net, 0, SYN | ACK).numbers(5000, 1001).options(&options).fill(100),
            );
            let q = eth().ip(net.client, net.vip).options(&options).udp(50_000 + words as u16, 53).fill(9);
            s.step("UDP", &q, Becomes(q.clone().to(net.backends[0], 8080)));
        }
    });
}

#[test]
fn ipv4_record_route() {
    each(&NET4, |s| {
        s.service(TCP, 80, 1);
        let mut options = vec![7, 39, 8, 10, 1, 0, 1];
        options.resize(39, 0);
        options.push(0);
        let net = s.net;
        Talk { backend: 0 }.request(
            s,
            "SYN with record route",
            request(net, SYN).options(&options).minimum(),
        );
    });
}

#[test]
fn ipv6_headers_of_every_kind() {
    each(&NET6, |s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        type Add = fn(Frame) -> Frame;
        let kinds: [(&str, Add); 8] = [
            ("hop-by-hop", |f| f.padding(0, 1)),
            ("destination options", |f| f.padding(60, 3)),
            ("hop-by-hop and destination", |f| f.padding(0, 2).padding(60, 2)),
            ("routing, nothing left to visit", |f| f.extension(43, &[0, 4, 0, 0, 0, 0, 0])),
            ("authentication", |f| {
                f.extension(51, &[4, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0])
            }),
            ("atomic fragment", |f| f.fragment6(0, false)),
            ("all that RFC 8200 lists, in its order", |f| {
                f.padding(0, 1)
                    .padding(60, 1)
                    .extension(43, &[0, 4, 0, 0, 0, 0, 0])
                    .fragment6(0, false)
                    .padding(60, 1)
            }),
            ("eight of them", |f| (0..8).fold(f, |f, _| f.padding(60, 1))),
        ];
        for (i, (scene, add)) in kinds.iter().enumerate() {
            let talk = Talk { backend: 0 };
            talk.request(s, scene, add(request(net, SYN)));
            talk.reply(s, scene, add(reply(net, 0, SYN | ACK).numbers(5000, 1001)).fill(100));
            let q = add(eth().ip(net.client, net.vip)).udp(50_000 + i as u16, 53).fill(9);
            s.step(scene, &q, Becomes(q.clone().to(net.backends[0], 8080)));
        }
    });
}

#[test]
fn long_ipv6_headers() {
    each(&NET6, |s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk { backend: 0 };
        talk.request(s, "64 bytes", request(net, SYN).padding(0, 8));
        if s.world.hook.is_xdp() {
            talk.request(s, "512 bytes", request(net, SYN).padding(0, 32).padding(60, 32));
        }
        s.step("520 bytes", request(net, SYN).padding(0, 32).padding(60, 33), Drop(Reason::Malformed));
    });
}

#[test]
fn ipv6_headers_that_lead_nowhere_are_not_followed() {
    each(&NET6, |s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let malformed = || Drop(Reason::Malformed);
        s.step("nine of them", (0..9).fold(request(net, SYN), |f, _| f.padding(60, 1)), malformed());
        s.step(
            "routing, on its way elsewhere",
            request(net, SYN).extension(43, &[0, 4, 1, 0, 0, 0, 0]),
            malformed(),
        );
        s.step(
            "longer than the packet",
            request(net, SYN).extension(60, &[20, 1, 4, 0, 0, 0, 0]),
            malformed(),
        );
        s.step("no next header", request(net, SYN).extension(59, &[0; 7]), Pass);
        s.step("encrypted", request(net, SYN).extension(50, &[0; 15]), Pass);
        let elsewhere = (0..9).fold(request(net, SYN).to(net.other, 80), |f, _| f.padding(60, 1));
        s.step("the same to somebody else", elsewhere, Pass);
    });
}
