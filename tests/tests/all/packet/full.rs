//! A full flow table: what is over or has only begun gives way, open flows go on, and new ones are refused. And one with a single bucket, where a flow
//! meets itself.

use std::net::IpAddr;

use lb_common::{
    abi::{Addr4, Addr6, FlowKey, PortBe, Proto, Reason},
    flow_table::place,
};

use super::{
    build::{ACK, Frame, RST, SYN, eth},
    run::Hook,
    stage::{Expect::*, NET4, NET6, Net, Stage, TCP, UDP},
    tcp::{Talk, request},
    world::{SEED, World},
};

#[test]
fn new_flows_are_refused_and_open_ones_go_on() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(TCP, 80, 2);
            let udp = s.service(UDP, 53, 2);
            let talk = Talk::open(s);
            s.world.stuff().unwrap();
            let before = s.world.entries();
            let rst = |port| {
                eth()
                    .reversed()
                    .ip(net.vip, net.client)
                    .fresh()
                    .tcp(80, port, RST | ACK)
                    .numbers(0, 1001)
                    .window(0)
            };
            for port in 50_000..50_010 {
                let syn = eth().ip(net.client, net.vip).tcp(port, 80, SYN);
                s.step("SYN", syn, Back(rst(port), Reason::TableFull));
                s.step("query", eth().ip(net.client, net.vip).udp(port, 53), Drop(Reason::TableFull));
            }
            assert_eq!(s.world.entries(), before, "no half flow stays behind");
            let mut counts = [0, 0];
            counts[talk.backend] = 1;
            s.active("only the open one counts", &added, &counts);
            s.active("nothing counts", &udp, &[0, 0]);
            talk.request(s, "it goes on", request(net, ACK).numbers(1001, 5001).fill(10));
        }
    }
}

#[test]
fn room_for_one_entry_is_not_room_for_a_flow() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(TCP, 80, 2);
            s.world.stuff().unwrap();
            let before = s.world.entries();
            s.world.unstuff().unwrap();
            let rst = eth()
                .reversed()
                .ip(net.vip, net.client)
                .fresh()
                .tcp(80, 40000, RST | ACK)
                .numbers(0, 1001)
                .window(0);
            s.step("SYN", request(net, SYN), Back(rst, Reason::TableFull));
            s.active("nothing counts", &added, &[0, 0]);
            assert_eq!(s.world.entries(), before - 2, "what was made is taken back");
            s.world.unstuff().unwrap();
            s.forwarded("with two free, it fits", &request(net, SYN));
            assert_eq!(s.world.entries(), before - 2);
        }
    }
}

/// A client's port for which the two entries of its flow to the first backend bear the same tag.
fn port_of_one_tag(net: &Net, proto: Proto, vip_port: u16) -> u16 {
    let tag = |src, dst, sport, dport| {
        let (sport, dport) = (PortBe::new(sport), PortBe::new(dport));
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                place::<Addr4>(&FlowKey::new(src.into(), dst.into(), sport, dport, proto), SEED, 1).tag
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                place::<Addr6>(&FlowKey::new(src.into(), dst.into(), sport, dport, proto), SEED, 1).tag
            }
            _ => unreachable!("addresses of one version"),
        }
    };
    (1024..=u16::MAX)
        .find(|&port| {
            tag(net.client, net.vip, port, vip_port) == tag(net.backends[0], net.client, 8080, port)
        })
        .expect("one in 127 has")
}

#[test]
fn a_flows_two_entries_meet() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            // Both lie in the one bucket.
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(TCP, 80, 1);
            let udp = s.service(UDP, 53, 1);
            let port = port_of_one_tag(net, TCP, 80);
            s.forwarded("SYN", &eth().ip(net.client, net.vip).tcp(port, 80, SYN));
            let back = eth().ip(net.backends[0], net.client).tcp(8080, port, SYN | ACK).numbers(5000, 1001);
            s.step("SYN-ACK", &back, Becomes(back.clone().from(net.vip, 80)));
            s.active("it is open", &added, &[1]);
            let port = port_of_one_tag(net, UDP, 53);
            s.forwarded("query", &eth().ip(net.client, net.vip).udp(port, 53));
            let back = eth().ip(net.backends[0], net.client).udp(8080, port);
            s.step("answer", &back, Becomes(back.clone().from(net.vip, 53)));
            s.active("one pin", &udp, &[1]);
        }
    }
}

/// A TCP segment of a client's, or of the backend's to it, by the client's port.
fn there(net: &Net, port: u16, flags: u8) -> Frame {
    eth().ip(net.client, net.vip).tcp(port, 80, flags)
}

fn back(net: &Net, port: u16, flags: u8) -> Frame {
    eth().ip(net.backends[0], net.client).tcp(8080, port, flags)
}

/// Opens a connection from a port.
fn open(s: &mut Stage<'_>, port: u16) {
    let net = s.net;
    s.forwarded("SYN", &there(net, port, SYN).numbers(1000, 0));
    let answer = back(net, port, SYN | ACK).numbers(5000, 1001);
    s.step("SYN-ACK", &answer, Becomes(answer.clone().from(net.vip, 80)));
    s.forwarded("ACK", &there(net, port, ACK).numbers(1001, 5001));
}

#[test]
fn who_is_over_or_has_only_begun_gives_way() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            // Room for three flows.
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(TCP, 80, 1);
            (1..=3).for_each(|port| open(s, port));
            let refused = |s: &mut Stage<'_>| {
                let rst = eth().reversed().ip(net.vip, net.client).fresh().tcp(80, 9, RST | ACK);
                let rst = rst.numbers(0, 1001).window(0);
                s.step("all are open", there(net, 9, SYN), Back(rst, Reason::TableFull));
            };
            refused(s);
            s.forwarded("the second ends", &there(net, 2, RST).numbers(1001, 0));
            s.active("two", &added, &[2]);
            s.forwarded("a new one in its place", &there(net, 4, SYN).numbers(1000, 0));
            s.active("three", &added, &[3]);
            s.forwarded("another, in the place of who has only begun", &there(net, 5, SYN).numbers(1000, 0));
            s.active("three", &added, &[3]);
            let late = back(net, 4, SYN | ACK).numbers(5000, 1001);
            s.step("the answer to that one", &late, Pass);
            let answer = back(net, 5, SYN | ACK).numbers(5000, 1001);
            s.step("SYN-ACK", &answer, Becomes(answer.clone().from(net.vip, 80)));
            s.forwarded("ACK", &there(net, 5, ACK).numbers(1001, 5001));
            refused(s);
            for port in [1, 3, 5] {
                s.forwarded("the open ones go on", &there(net, port, ACK).numbers(1001, 5001).fill(10));
            }
            s.active("three", &added, &[3]);
            assert_eq!(s.world.entries(), 6);
        }
    }
}

#[test]
fn questions_that_nobody_answers_give_way() {
    for hook in Hook::ALL {
        for net in [&NET4, &NET6] {
            let mut world = World::with_flows(hook, 2).unwrap();
            let s = &mut Stage { world: &mut world, net };
            let added = s.service(UDP, 53, 1);
            let query = |port| eth().ip(net.client, net.vip).udp(port, 53);
            for port in 1..=3 {
                s.forwarded("query", &query(port));
            }
            let answer = |port| eth().ip(net.backends[0], net.client).udp(8080, port);
            for port in [1, 3] {
                s.step("answer", answer(port), Becomes(answer(port).from(net.vip, 53)));
            }
            s.forwarded("another", &query(4));
            s.step("too late", answer(2), Pass);
            s.step("answer", answer(4), Becomes(answer(4).from(net.vip, 53)));
            s.step("all are answered", query(5), Drop(Reason::TableFull));
            s.active("three", &added, &[3]);
        }
    }
}
