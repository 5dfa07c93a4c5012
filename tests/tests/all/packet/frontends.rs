//! What is no service's at an address of services, and backends of this node only.

use lb_common::abi::{Forward, Reason, Vip};

use super::{
    build::{ACK, Frame, RST, SYN, eth},
    run::Verdict,
    stage::{Expect::*, Net, Stage, TCP, UDP, everywhere},
    tcp::{Talk, request},
    udp::query,
    world::{Added, Member},
};

/// The interface that packets of test runs come in by: the loopback, where they run.
const LOOPBACK: u32 = 1;

/// The RST that answers a packet.
fn reset(net: &Net, (sport, dport): (u16, u16), flags: u8, seq: u32, ack: u32) -> Frame {
    eth().reversed().ip(net.vip, net.client).fresh().tcp(dport, sport, flags).numbers(seq, ack).window(0)
}

#[test]
fn other_ports_of_an_owned_address_are_refused() {
    everywhere(|s| {
        flowpin_tests::harness::eventually::pass(std::time::Duration::from_millis(25));
        s.world.vip = Vip::OWNED;
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        let tcp = |flags| request(net, flags).to(net.vip, 81).numbers(1000, 7);
        let refused = |flags, seq, ack| Back(reset(net, (40000, 81), flags, seq, ack), Reason::NoService);
        s.step("SYN", tcp(SYN), refused(RST | ACK, 0, 1001));
        s.step("ACK", tcp(ACK), refused(RST, 7, 0));
        let other = eth().ip(net.client, net.vip).tcp(40000, 53, SYN).numbers(1, 0);
        let answer = reset(net, (40000, 53), RST | ACK, 0, 2);
        s.step("TCP to the UDP port", other, Back(answer, Reason::NoService));
        let (kind, code, headers) = if net.vip.is_ipv4() { (3, 3, 20) } else { (1, 4, 40) };
        let datagram = query(net).to(net.vip, 54);
        let quoted = &datagram.packet()[..headers + 8];
        let answer = eth().reversed().ip(net.vip, net.client).fresh().icmp(kind, code).payload(quoted);
        s.step("UDP", datagram, Back(answer, Reason::NoService));
        for proto in [47, 50, 132] {
            let other = eth().ip(net.client, net.vip).proto(proto).fill(40);
            s.step("another protocol", other, Drop(Reason::NoService));
        }
        let talk = Talk::open(s);
        talk.request(s, "the service itself", request(net, ACK).numbers(1001, 5001).fill(3));
        assert_eq!(s.world.entries(), 2);
    });
}

#[test]
fn a_reset_to_another_port_of_an_owned_address_is_not_answered() {
    everywhere(|s| {
        s.world.vip = Vip::OWNED;
        s.service(TCP, 80, 1);
        let net = s.net;
        s.step("RST", request(net, RST).to(net.vip, 81), Drop(Reason::NoService));
        s.step("RST, ACK", request(net, RST | ACK).to(net.vip, 81), Drop(Reason::NoService));
    });
}

#[test]
fn other_ports_of_a_shared_address_are_the_nodes() {
    everywhere(|s| {
        s.world.vip = Vip::SHARED;
        s.service(TCP, 80, 1);
        let net = s.net;
        for flags in [SYN, ACK, RST] {
            s.step("TCP", request(net, flags).to(net.vip, 81), Pass);
        }
        s.step("UDP", query(net), Pass);
        s.step("another protocol", eth().ip(net.client, net.vip).proto(47).fill(40), Pass);
    });
}

/// A service of four backends that goes to those of this node only.
fn local(s: &mut Stage<'_>, of_this_node: [bool; 4]) -> Added {
    let net = s.net;
    s.world.local = true;
    let member = |(addr, local): (&std::net::IpAddr, bool)| Member { local, ..Member::new(*addr, 8080) };
    let members: Vec<_> = net.backends.iter().zip(of_this_node).map(member).collect();
    s.world.add(net.vip, &[(TCP, 80), (UDP, 53)], &members).unwrap()
}

fn open(s: &mut Stage<'_>, n: u16) {
    let net = s.net;
    for port in 30_000..30_000 + n {
        s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(port, 80, SYN));
    }
}

#[test]
fn from_elsewhere_to_backends_of_this_node_only() {
    everywhere(|s| {
        let added = local(s, [false, true, false, true]);
        open(s, 10);
        s.active("two", &added, &[0, 5, 0, 5]);
        s.world.set_backend(added.backends[1], 0, u32::MAX).unwrap();
        s.world.set_backend(added.backends[3], 1, 5).unwrap();
        let rst = reset(s.net, (40000, 80), RST | ACK, 0, 1001);
        s.step("the one that is left is full", request(s.net, SYN), Back(rst, Reason::BackendsFull));
    });
}

#[test]
fn without_a_backend_on_this_node() {
    everywhere(|s| {
        let added = local(s, [false; 4]);
        // In silence: the client is to try another node.
        s.step("SYN", request(s.net, SYN), Drop(Reason::NoLocalBackend));
        s.step("query", query(s.net), Drop(Reason::NoLocalBackend));
        s.active("nothing", &added, &[0; 4]);
        assert_eq!(s.world.entries(), 0);
    });
}

#[test]
fn from_a_pod_of_this_node_to_all_backends() {
    everywhere(|s| {
        s.world.pod_behind(LOOPBACK).unwrap();
        let added = local(s, [false, true, false, false]);
        open(s, 8);
        s.active("all", &added, &[2; 4]);
    });
}

#[test]
fn how_packets_go_depends_on_where_they_come_from() {
    everywhere(|s| {
        let net = s.net;
        s.world.set_sources(&[net.other], 2000, 64).unwrap();
        s.world.forward = Forward::SNAT;
        s.world.forward_of_pods = Forward::NAT;
        s.service(TCP, 80, 1);
        let syn = |port| eth().ip(net.client, net.vip).tcp(port, 80, SYN);
        let (verdict, out) = s.world.run(&syn(30_000).bytes()).unwrap();
        let out = out.to_vec();
        assert_eq!(verdict, Verdict::Pass);
        let port =
            (2000..2064).find(|p| syn(30_000).from(net.other, *p).to(net.backends[0], 8080).bytes() == out);
        assert!(port.is_some(), "from elsewhere, an address of ours: {out:02x?}");
        s.world.pod_behind(LOOPBACK).unwrap();
        s.forwarded("from a pod, as it is", &syn(30_001));
    });
}
