//! Answers are translated where they leave: one program sees to what comes in, another to what leaves, over the same flows.

use lb_common::abi::Reason;

use super::{
    build::{ACK, FIN, Frame, PSH, RST, SYN, Sum, eth},
    fragments::parts,
    icmp::{error, errors},
    reuse::another_port,
    run::Hook,
    stage::{Expect::*, NET4, NET6, Stage, TCP, UDP, on},
    sweep::close,
    tcp::{reply, request},
    udp::query,
    world::Member,
};

/// Runs a test at each hook that leaves answers to where they leave.
fn everywhere(test: impl Fn(&mut Stage<'_>)) {
    for hook in [Hook::XdpIn, Hook::TcIn] {
        on(hook, &[&NET4, &NET6], &test);
    }
}

/// An answer comes in, where nothing is done to it, and leaves as this.
#[track_caller]
fn answer(s: &mut Stage<'_>, scene: &str, frame: &Frame, wanted: Frame) {
    s.step(scene, frame, Pass);
    s.leaves(scene, frame, Becomes(wanted));
}

/// The same of an answer of the first backend to the client, by way of the VIP's port 80.
#[track_caller]
fn answer_80(s: &mut Stage<'_>, scene: &str, frame: &Frame) {
    answer(s, scene, frame, frame.clone().from(s.net.vip, 80));
}

/// Opens the connection of [`request`].
#[track_caller]
fn open(s: &mut Stage<'_>) {
    let net = s.net;
    s.forwarded("SYN", &request(net, SYN).numbers(1000, 0));
    answer_80(s, "SYN-ACK", &reply(net, 0, SYN | ACK).numbers(5000, 1001));
    s.forwarded("ACK", &request(net, ACK).numbers(1001, 5001));
}

#[test]
fn a_connection_from_its_beginning_to_its_end() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        open(s);
        s.active("open", &added, &[1]);
        s.forwarded("data", &request(net, ACK | PSH).numbers(1001, 5001).fill(333));
        let odd = reply(net, 0, ACK | PSH).numbers(5001, 1334).ttl(1).tos(0xb9).id(0xbeef).window(7).fill(77);
        answer_80(s, "data back, everything unusual", &odd);
        answer_80(s, "in a VLAN", &reply(net, 0, ACK).vlan(7).numbers(5078, 1334).fill(1448));
        answer_80(s, "FIN", &reply(net, 0, FIN | ACK).numbers(6526, 1334));
        s.forwarded("FIN back", &request(net, FIN | ACK).numbers(1334, 6527));
        s.active("one ACK is missing", &added, &[1]);
        answer_80(s, "last ACK", &reply(net, 0, ACK).numbers(6527, 1335));
        s.active("closed", &added, &[0]);
        answer_80(s, "late duplicate", &reply(net, 0, FIN | ACK).numbers(6526, 1334));
        let counted = s.world.counters(added.backends[0]).unwrap();
        assert_eq!((counted.packets_in, counted.packets_out), (4, 6), "counted once, where they leave");
        assert_eq!((counted.accepted, counted.refused), (1, 0));
    });
}

#[test]
fn a_backend_that_refuses() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        s.forwarded("SYN", &request(net, SYN).numbers(1000, 0));
        answer_80(s, "RST", &reply(net, 0, RST | ACK).numbers(0, 1001));
        s.active("nothing", &added, &[0]);
        assert_eq!(s.world.counters(added.backends[0]).unwrap().refused, 1);
    });
}

#[test]
fn datagrams() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        s.forwarded("query", &query(net));
        let frame = eth().ip(net.backends[0], net.client).udp(8080, 40000).fill(200);
        answer(s, "answer", &frame, frame.clone().from(net.vip, 53));
        let bare = frame.clone().l4_sum(Sum::Is(0));
        answer(s, "without checksum", &bare, bare.clone().from(net.vip, 53));
        s.forwarded("more of the same flow", &query(net));
    });
}

#[test]
fn fragments_follow_their_first() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let beyond = parts(net, query(net).to(net.backends[0], 8080));
        for (sent, beyond) in parts(net, query(net)).into_iter().zip(beyond) {
            s.step("a query's", sent, Becomes(beyond.clone()));
            s.leaves("and nothing is done to it again", &beyond, Pass);
        }
        let whole = eth().ip(net.backends[0], net.client).udp(8080, 40000);
        let [first, second, third] = parts(net, whole.clone());
        s.leaves("an answer's second before its first", &second, Pass);
        let wanted = parts(net, whole.from(net.vip, 53));
        for (part, wanted) in [first, second, third].iter().zip(wanted) {
            answer(s, "an answer's", part, wanted);
        }
    });
}

#[test]
fn errors_about_the_clients_packets() {
    everywhere(|s| {
        let net = s.net;
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let beyond = query(net).to(net.backends[0], 8080);
        let plain = error(net.other, net.client, errors(net)[3], &beyond, 48);
        s.leaves("of no flow", plain, Pass);
        s.forwarded("SYN", &request(net, SYN).fill(600));
        s.forwarded("query", &query(net));
        for sent in [request(net, SYN).fill(600), query(net)] {
            let beyond = sent.clone().to(net.backends[0], 8080);
            for what in errors(net) {
                let told = |from, about| error(from, net.client, what, about, 48);
                // The node's own comes in nowhere.
                s.leaves("the node's own", told(net.other, &beyond), Becomes(told(net.other, &sent)));
                answer(s, "a router's", &told(net.other, &beyond), told(net.other, &sent));
                answer(s, "the backend's own", &told(net.backends[0], &beyond), told(net.vip, &sent));
                s.leaves("told to somebody else", error(net.other, net.other, what, &beyond, 48), Pass);
            }
        }
    });
}

#[test]
fn errors_about_the_backends_packets() {
    everywhere(|s| {
        let net = s.net;
        s.service(UDP, 53, 1);
        s.forwarded("query", &query(net));
        let sent = eth().ip(net.backends[0], net.client).udp(8080, 40000).fill(40);
        let beyond = sent.clone().from(net.vip, 53);
        let inward = |s: &mut Stage<'_>| {
            for what in errors(net) {
                let wanted = error(net.client, net.backends[0], what, &sent, 40);
                s.step(
                    "the client's",
                    error(net.client, net.vip, what, &beyond, 40),
                    Becomes(wanted.clone()),
                );
                s.leaves("which is done then", wanted, Pass);
                // It speaks of the packet as the backend sent it.
                s.leaves("the node's own", error(net.other, net.backends[0], what, &sent, 40), Pass);
            }
        };
        inward(s);
        let past = eth().ip(net.client, net.backends[0]).udp(40000, 8080).fill(5);
        another_port(s, &past);
        inward(s);
    });
}

#[test]
fn who_answers_on_a_connection_that_was_closed_is_reset() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        open(s);
        assert_eq!(close(s), 1);
        s.active("closed", &added, &[0]);
        let data = reply(net, 0, ACK | PSH).numbers(5001, 1001).fill(10);
        s.step("data comes in", &data, Pass);
        let rst = eth().reversed().ip(net.client, net.backends[0]).fresh().tcp(40000, 8080, RST);
        let rst = rst.numbers(1001, 0).window(0);
        s.leaves("and goes back as a RST", &data, Back(rst, Reason::ConnectionClosed));
        answer_80(s, "the backend ends it", &reply(net, 0, RST).numbers(5011, 0));
    });
}

#[test]
fn what_is_nobodys() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        s.service(UDP, 53, 1);
        let net = s.net;
        let before = reply(net, 0, SYN | ACK);
        s.leaves("of no flow", &before, Pass);
        open(s);
        s.leaves("to another port", before.clone().to(net.client, 40001), Pass);
        s.leaves("to another client", before.clone().to(net.other, 40000), Pass);
        s.leaves("from another port", before.clone().from(net.backends[0], 8081), Pass);
        s.leaves("from another backend", before.clone().from(net.backends[1], 8080), Pass);
        s.leaves("from somebody else", before.from(net.other, 8080), Pass);
        s.leaves("of another protocol", eth().ip(net.backends[0], net.client).udp(8080, 40000), Pass);
        s.leaves("a request, translated", request(net, ACK).to(net.backends[0], 8080), Pass);
        s.leaves("a request to a VIP", request(net, ACK), Pass);
        s.leaves("a SYN to a VIP's port that is no service's", request(net, SYN).to(net.vip, 81), Pass);
        s.leaves("broken", reply(net, 0, ACK).data_offset(1), Pass);
        s.leaves("not IP", reply(net, 0, ACK).ethertype(0x88cc), Pass);
        let ping = if net.vip.is_ipv4() { 8 } else { 128 };
        s.leaves("a ping of a VIP", eth().ip(net.client, net.vip).icmp(ping, 0).fill(56), Pass);
        s.leaves("a backend's", eth().ip(net.backends[0], net.client).icmp(ping, 0).fill(56), Pass);
        assert_eq!(s.world.entries(), 2);
    });
}

#[test]
fn answers_to_a_flow_that_has_another_port() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let second = s.world.add(net.vip2, &[(TCP, 80)], &[Member::new(net.backends[0], 8080)]).unwrap();
        open(s);
        let other = |flags| eth().ip(net.client, net.vip2).tcp(40000, 80, flags).numbers(8, 701);
        let port = another_port(s, &other(SYN));
        for flags in [SYN | ACK, ACK, FIN | ACK] {
            let frame = eth().ip(net.backends[0], net.client).tcp(8080, port, flags).numbers(700, 9).fill(31);
            answer(s, "the other's", &frame, frame.clone().from(net.vip2, 80).to(net.client, 40000));
            assert_eq!(another_port(s, &other(ACK)), port);
        }
        s.active("counted", &second, &[1]);
        answer_80(s, "the first goes on", &reply(net, 0, ACK).numbers(5001, 1001).fill(9));
        s.forwarded("both ways", &request(net, ACK).numbers(1001, 5010));
    });
}

#[test]
fn answers_to_a_flow_past_us() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        open(s);
        let past = |flags| eth().ip(net.client, net.backends[0]).tcp(40000, 8080, flags).numbers(70, 80);
        let port = another_port(s, &past(SYN));
        let synack = eth().ip(net.backends[0], net.client).tcp(8080, port, SYN | ACK).numbers(80, 71);
        answer(s, "its answer", &synack, synack.clone().to(net.client, 40000));
        assert_eq!(another_port(s, &past(ACK).numbers(71, 81)), port, "it goes on");
        answer_80(s, "the flow goes on", &reply(net, 0, ACK).numbers(5001, 1001).fill(9));
        let beyond = past(ACK).from(net.client, port);
        for what in errors(net) {
            let told = |about| error(net.other, net.client, what, about, 48);
            answer(s, "an error about it", &told(&beyond), told(&past(ACK)));
        }
    });
}

#[test]
fn datagrams_past_us_go_on_when_the_flow_is_over() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        s.forwarded("query", &query(net));
        let past = eth().ip(net.client, net.backends[0]).udp(40000, 8080).fill(5);
        let port = another_port(s, &past);
        forget_query(s);
        assert_eq!(another_port(s, &past), port);
        let frame = eth().ip(net.backends[0], net.client).udp(8080, port).fill(6);
        answer(s, "its answer", &frame, frame.clone().to(net.client, 40000));
        let beyond = parts(net, past.clone().from(net.client, port));
        for (part, wanted) in parts(net, past).into_iter().zip(beyond) {
            s.step("in fragments", part, Becomes(wanted));
        }
    });
}

/// Removes the entries of the flow of [`query`].
fn forget_query(s: &mut Stage<'_>) {
    let vip = s.net.vip;
    if vip.is_ipv4() {
        for flow in s.world.flows4.entries() {
            if !flow.direction.is_ported() {
                s.world.flows4.remove(&flow.key()).unwrap();
            }
        }
    } else {
        for flow in s.world.flows6.entries() {
            if !flow.direction.is_ported() {
                s.world.flows6.remove(&flow.key()).unwrap();
            }
        }
    }
}
