//! Ports used again: a SYN over what is over chooses anew; a flow to the same backend by way of another VIP, or past
//! us, gets another port.

use lb_common::abi::{Direction, Forward, Reason};

use super::{
    build::{ACK, FIN, Frame, RST, SYN, Sum, eth},
    snat::ours,
    stage::{Expect::*, Stage, TCP, UDP, everywhere},
    tcp::{Talk, reply, request},
    world::Member,
};

#[test]
fn a_syn_over_a_closed_connection_chooses_anew() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "RST", request(net, RST).numbers(1001, 0));
        // The first choice takes no more: only a new choice can go to the other.
        s.world.set_backend(added.backends[talk.backend], 0, u32::MAX).unwrap();
        let again = s.forwarded("SYN from the same port", &request(net, SYN).numbers(77_000, 0));
        assert_eq!(again, 1 - talk.backend);
        let mut counts = [0, 0];
        counts[again] = 1;
        s.active("the new one", &added, &counts);
        assert_eq!(s.world.entries(), 2, "nothing is left of the old one");
        s.step("a late reply of the old one", reply(net, talk.backend, ACK), Pass);
    });
}

#[test]
fn a_syn_over_a_connection_that_both_have_finished_chooses_anew() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 2);
        let net = s.net;
        let talk = Talk::open(s);
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
        talk.reply(s, "FIN", reply(net, talk.backend, FIN | ACK).numbers(5001, 1002));
        s.world.set_backend(added.backends[talk.backend], 0, u32::MAX).unwrap();
        let again = s.forwarded("SYN from the same port", &request(net, SYN).numbers(77_000, 0));
        assert_eq!(again, 1 - talk.backend);
        let mut counts = [0, 0];
        counts[again] = 1;
        s.active("counted once", &added, &counts);
    });
}

/// The source port with which a packet of the client's leaves for the first backend: another of its own.
#[track_caller]
pub fn another_port(s: &mut Stage<'_>, packet: &Frame) -> u16 {
    let (client, to) = (s.net.client, (s.net.backends[0], 8080));
    let (_, port) = ours(s, packet, &[client], to);
    assert!((1024..30_000).contains(&port), "port {port}");
    port
}

#[test]
fn the_same_port_by_way_of_another_vip_is_given_another() {
    everywhere(|s| {
        let first = s.service(TCP, 80, 1);
        let net = s.net;
        let second = s.world.add(net.vip2, &[(TCP, 80)], &[Member::new(net.backends[0], 8080)]).unwrap();
        let talk = Talk::open(s);
        let other = |flags, seq, ack| eth().ip(net.client, net.vip2).tcp(40000, 80, flags).numbers(seq, ack);
        let port = another_port(s, &other(SYN, 9, 0));
        let answer = |s: &mut Stage<'_>, flags, seq, ack, len| {
            let frame =
                eth().ip(net.backends[0], net.client).tcp(8080, port, flags).numbers(seq, ack).fill(len);
            let wanted = frame.clone().from(net.vip2, 80).to(net.client, 40000);
            s.step("answer by way of the other VIP", frame, Becomes(wanted));
        };
        assert_eq!(another_port(s, &other(SYN, 9, 0)), port, "the same flow");
        answer(s, SYN | ACK, 700, 10, 0);
        answer(s, ACK, 701, 10, 31);
        assert_eq!(another_port(s, &other(ACK, 10, 732).fill(333)), port);
        s.active("the first", &first, &[1]);
        s.active("the second", &second, &[1]);
        assert_eq!(s.world.entries(), 4);
        talk.request(s, "the first goes on", request(net, ACK).numbers(1001, 5001).fill(9));
        talk.reply(s, "and is answered", reply(net, 0, ACK).numbers(5001, 1010).fill(90));

        assert_eq!(another_port(s, &other(FIN | ACK, 343, 732)), port);
        answer(s, FIN | ACK, 732, 344, 0);
        assert_eq!(another_port(s, &other(ACK, 344, 733)), port);
        s.active("the first is as it was", &first, &[1]);
        s.active("the second is over", &second, &[0]);
    });
}

#[test]
fn a_closed_connection_makes_room_for_one_by_way_of_another_vip() {
    everywhere(|s| {
        let first = s.service(TCP, 80, 1);
        let net = s.net;
        let second = s.world.add(net.vip2, &[(TCP, 80)], &[Member::new(net.backends[0], 8080)]).unwrap();
        let talk = Talk::open(s);
        talk.request(s, "the first ends", request(net, RST).numbers(1001, 0));
        let syn = eth().ip(net.client, net.vip2).tcp(40000, 80, SYN).numbers(9, 0);
        s.step("SYN", &syn, Becomes(syn.clone().to(net.backends[0], 8080)));
        s.active("the first", &first, &[0]);
        s.active("the second", &second, &[1]);
        let synack = reply(net, 0, SYN | ACK).numbers(5000, 10);
        s.step("its reply comes from its VIP", &synack, Becomes(synack.clone().from(net.vip2, 80)));
        assert_eq!(s.world.entries(), 2, "nothing is left of the first");
    });
}

#[test]
fn the_same_udp_port_by_way_of_another_vip_is_given_another() {
    everywhere(|s| {
        let first = s.service(UDP, 53, 1);
        let net = s.net;
        let second = s.world.add(net.vip2, &[(UDP, 53)], &[Member::new(net.backends[0], 8080)]).unwrap();
        let query = |vip| eth().ip(net.client, vip).udp(40000, 53).fill(33);
        s.forwarded("first", &query(net.vip));
        let port = another_port(s, &query(net.vip2));
        s.active("the first", &first, &[1]);
        s.active("the second", &second, &[1]);
        let answer = |port| eth().ip(net.backends[0], net.client).udp(8080, port).fill(77);
        let second = answer(port).from(net.vip2, 53).to(net.client, 40000);
        s.step("the second's answer", answer(port), Becomes(second));
        s.step("the first's", answer(40000), Becomes(answer(40000).from(net.vip, 53)));
        let bare = query(net.vip2).l4_sum(Sum::Is(0));
        assert_eq!(another_port(s, &bare), port, "no checksum stays none");
    });
}

#[test]
fn a_port_past_us_that_a_backend_knows_a_flow_by_is_another_and_comes_back() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let past = |flags| eth().ip(net.client, net.backends[0]).tcp(40000, 8080, flags).numbers(70, 0);
        s.step("before there is a flow", past(SYN), Pass);
        let talk = Talk::open(s);
        let port = another_port(s, &past(SYN));
        let synack = eth().ip(net.backends[0], net.client).tcp(8080, port, SYN | ACK).numbers(80, 71);
        s.step("its answer", &synack, Becomes(synack.clone().to(net.client, 40000)));
        assert_eq!(another_port(s, &past(ACK).numbers(71, 81).fill(8)), port);
        talk.request(s, "the flow goes on", request(net, ACK).numbers(1001, 5001).fill(9));
        talk.reply(s, "and is answered", reply(net, 0, ACK).numbers(5001, 1010).fill(90));
        s.active("what goes past us doesn't count", &added, &[1]);
        s.step("a stranger's", past(SYN).from(net.other, 40000), Pass);
        s.step("from another port", past(SYN).from(net.client, 40001), Pass);
        s.step("nothing that begins", past(ACK).to(net.backends[1], 8080), Pass);
        assert_eq!(s.world.entries(), 4);
    });
}

#[test]
fn datagrams_past_us_too() {
    everywhere(|s| {
        s.service(UDP, 53, 1);
        let net = s.net;
        let past = eth().ip(net.client, net.backends[0]).udp(40000, 8080).fill(12);
        s.step("before there is a flow", &past, Pass);
        s.forwarded("query", &eth().ip(net.client, net.vip).udp(40000, 53));
        let port = another_port(s, &past);
        let answer = eth().ip(net.backends[0], net.client).udp(8080, port).fill(99);
        s.step("its answer", &answer, Becomes(answer.clone().to(net.client, 40000)));
        let query = eth().ip(net.backends[0], net.client).udp(8080, 40000).fill(99);
        s.step("the query's", &query, Becomes(query.clone().from(net.vip, 53)));
    });
}

/// The client has a connection past us from the port: the backend answers a SYN from it with a bare ACK. The client has sent its SYN, and has heard that.
fn spoken_of_another(s: &mut Stage<'_>) -> super::world::Added {
    let added = s.service(TCP, 80, 1);
    let net = s.net;
    let talk = Talk { backend: 0 };
    talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
    talk.reply(s, "what the backend knows", reply(net, 0, ACK).numbers(70, 80));
    added
}

#[test]
fn a_port_by_which_the_backend_knows_a_connection_past_us_is_another() {
    everywhere(|s| {
        let added = spoken_of_another(s);
        let net = s.net;
        s.step("it would end that", request(net, RST).numbers(80, 0), Drop(Reason::StrayReset));
        s.active("it is still to be made", &added, &[1]);
        let port = another_port(s, &request(net, SYN).numbers(1000, 0));
        s.active("one", &added, &[1]);
        assert_eq!(s.world.entries(), 2, "nothing is left of the first attempt");
        for packet in [reply(net, 0, ACK), reply(net, 0, ACK).fill(50), reply(net, 0, FIN | ACK)] {
            s.step("that connection goes on", packet.numbers(70, 80), Pass);
        }
        let past = eth().ip(net.client, net.backends[0]).tcp(40000, 8080, ACK);
        s.step("both ways", past.numbers(80, 71).fill(5), Pass);
        let synack = eth().ip(net.backends[0], net.client).tcp(8080, port, SYN | ACK).numbers(5000, 1001);
        s.step("SYN-ACK", &synack, Becomes(synack.clone().from(net.vip, 80).to(net.client, 40000)));
        assert_eq!(another_port(s, &request(net, ACK).numbers(1001, 5001)), port);
        assert_eq!(another_port(s, &request(net, RST).numbers(1001, 0)), port, "now it may end");
        s.active("it has", &added, &[0]);
    });
}

#[test]
fn a_syn_that_is_said_again_is_enough_to_get_another_port() {
    everywhere(|s| {
        let added = spoken_of_another(s);
        let net = s.net;
        another_port(s, &request(net, SYN).numbers(1000, 0));
        s.active("one", &added, &[1]);
        assert_eq!(s.world.entries(), 2);
    });
}

#[test]
fn a_port_is_kept_while_the_backend_says_nothing_or_answers() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk { backend: 0 };
        let syn = || request(net, SYN).numbers(1000, 0);
        talk.request(s, "SYN", syn());
        talk.request(s, "the same again", syn());
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(5000, 1001));
        talk.request(s, "it was late", syn());
        talk.reply(s, "ACK", reply(net, 0, ACK).numbers(5001, 1001));
        talk.request(s, "and again", syn());
        talk.request(s, "the client's end", request(net, RST).numbers(1001, 0));
        s.active("reset", &added, &[0]);
        talk.request(s, "anew", syn());
        talk.request(s, "and given up", request(net, RST).numbers(1001, 0));
        s.active("reset", &added, &[0]);
    });
}

#[test]
fn an_earlier_connection_from_an_address_of_ours_is_ended_by_the_client() {
    everywhere(|s| {
        let net = s.net;
        s.world.forward = Forward::SNAT;
        s.world.set_sources(&[net.other], 2000, 100).unwrap();
        let added = s.service(TCP, 80, 1);
        let to = (net.backends[0], 8080);
        let syn = request(net, SYN).numbers(1000, 0);
        let mut near = (net.other, 0);
        // It may be another's: three other ports are tried before.
        for attempt in 0..=Direction::TRIED_MAX {
            near = ours(s, &syn, &[net.other], to);
            let stale = eth().ip(net.backends[0], near.0).tcp(8080, near.1, ACK).numbers(70, 80);
            let told = stale.clone().from(net.vip, 80).to(net.client, 40000);
            s.step("the backend knows it", &stale, Becomes(told));
            if attempt < Direction::TRIED_MAX {
                s.step("not ended", request(net, RST).numbers(80, 0), Drop(Reason::StrayReset));
            }
        }
        assert_eq!(ours(s, &request(net, RST).numbers(80, 0), &[net.other], to), near);
        s.active("the client still wants to connect", &added, &[1]);
        assert_eq!(ours(s, &syn, &[net.other], to), near, "where nothing is in the way any more");
        s.active("one", &added, &[1]);
    });
}
