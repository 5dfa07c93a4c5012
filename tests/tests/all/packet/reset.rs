//! Refusal with RST (RFC 9293, section 3.10.7.1): who gets one, and with which numbers.

use lb_common::abi::{Algorithm, Reason, Stray};

use super::{
    build::{ACK, FIN, Frame, PSH, RST, SYN, eth},
    stage::{Expect::*, Net, Stage, TCP, everywhere},
    tcp::request,
    world::Member,
};

/// The RST that answers a packet of [`request`]'s.
fn rst(net: &Net, flags: u8, seq: u32, ack: u32) -> Frame {
    eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 40000, flags).numbers(seq, ack).window(0)
}

/// Every kind of packet that finds no flow, and the answer to each.
fn strays(s: &mut Stage<'_>) {
    let net = s.net;
    s.step(
        "ACK: the answer has its acknowledgement number",
        request(net, ACK).numbers(1001, 5001),
        Back(rst(net, RST, 5001, 0), Reason::Stray),
    );
    s.step(
        "data: the same",
        request(net, ACK | PSH).numbers(1001, 0xffff_fff0).fill(700),
        Back(rst(net, RST, 0xffff_fff0, 0), Reason::Stray),
    );
    s.step("FIN", request(net, FIN | ACK).numbers(1001, 5001), Back(rst(net, RST, 5001, 0), Reason::Stray));
    s.step(
        "SYN-ACK",
        request(net, SYN | ACK).numbers(1001, 5001).tcp_options(&[2, 4, 5, 0xb4]),
        Back(rst(net, RST, 5001, 0), Reason::Stray),
    );
    s.step("RST is never answered", request(net, RST).numbers(1001, 0), Drop(Reason::StrayReset));
    s.step("RST-ACK neither", request(net, RST | ACK).numbers(1001, 5001), Drop(Reason::StrayReset));
    assert_eq!(s.world.entries(), 0, "a stray pins nothing");
}

#[test]
fn a_stray_of_a_least_connections_service_is_reset() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        strays(s);
        s.active("counts nothing", &added, &[0, 0]);
    });
}

#[test]
fn a_stray_of_a_hashed_service_is_reset_if_so_configured() {
    everywhere(|s| {
        let net = s.net;
        let members = [Member::new(net.backends[0], 8080)];
        s.world.add_with(net.vip, &[(TCP, 80)], &members, Algorithm::CONSISTENT_HASH, Stray::RESET).unwrap();
        strays(s);
    });
}

#[test]
fn a_syn_without_backend_is_refused() {
    everywhere(|s| {
        s.service(TCP, 80, 0);
        let net = s.net;
        s.step(
            "SYN: acknowledged, since it takes a number",
            request(net, SYN).numbers(1000, 0).tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]),
            Back(rst(net, RST | ACK, 0, 1001), Reason::NoBackend),
        );
        s.step(
            "SYN with data (fast open): the data too, and numbers wrap",
            request(net, SYN).numbers(0xffff_ffff, 0).fill(100),
            Back(rst(net, RST | ACK, 0, 100), Reason::NoBackend),
        );
    });
}

#[test]
fn a_service_all_of_whose_backends_are_drained_refuses() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 3);
        for b in &added.backends {
            s.world.set_backend(*b, 0, u32::MAX).unwrap();
        }
        let net = s.net;
        s.step("SYN", request(net, SYN), Back(rst(net, RST | ACK, 0, 1001), Reason::NoBackend));
        s.active("nothing is counted", &added, &[0, 0, 0]);
    });
}

#[test]
fn padding_and_options_are_not_sent_back() {
    everywhere(|s| {
        s.service(TCP, 80, 0);
        let net = s.net;
        let answer = || rst(net, RST | ACK, 0, 1001);
        s.step("padded to the minimum", request(net, SYN).minimum(), Back(answer(), Reason::NoBackend));
        let odd = if net.vip.is_ipv4() {
            request(net, SYN).options(&[1, 1, 1, 1, 1, 1, 1, 0])
        } else {
            request(net, SYN).padding(0, 2).padding(60, 1)
        };
        s.step("options of the IP header", odd, Back(answer(), Reason::NoBackend));
        s.step("jumbo", request(net, SYN).fill(3000), Back(rst(net, RST | ACK, 0, 4001), Reason::NoBackend));
    });
}

#[test]
fn tags_stay_on_the_answer() {
    everywhere(|s| {
        s.service(TCP, 80, 0);
        let net = s.net;
        let syn = request(net, SYN).qinq(5).vlan(77);
        s.step("SYN", syn, Back(rst(net, RST | ACK, 0, 1001).qinq(5).vlan(77), Reason::NoBackend));
    });
}
