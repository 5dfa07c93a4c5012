//! Closing: every order in which a connection can end, and what it does to the active count.

use lb_common::{
    abi::{Addr4, Addr6, Flow, FlowKey, PortBe, Reason},
    flow_state::{Phase, Word},
};

use super::{
    build::{ACK, FIN, PSH, RST, SYN},
    stage::{Expect::*, Stage, TCP, everywhere},
    tcp::{Talk, reply, request},
    world::Added,
};

fn opened(s: &mut Stage<'_>) -> (Added, Talk) {
    let added = s.service(TCP, 80, 1);
    let talk = Talk::open(s);
    s.active("open", &added, &[1]);
    (added, talk)
}

#[test]
fn client_closes_first() {
    everywhere(|s| {
        let (added, talk) = opened(s);
        let net = s.net;
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
        s.active("half closed", &added, &[1]);
        talk.reply(s, "ACK of FIN", reply(net, 0, ACK).numbers(5001, 1002));
        s.active("half closed, acknowledged", &added, &[1]);
        talk.reply(s, "FIN back", reply(net, 0, FIN | ACK).numbers(5001, 1002));
        s.active("both have said FIN", &added, &[1]);
        talk.request(s, "last ACK", request(net, ACK).numbers(1002, 5002));
        s.active("closed", &added, &[0]);
        talk.reply(s, "late duplicate FIN", reply(net, 0, FIN | ACK).numbers(5001, 1002));
        talk.request(s, "and its ACK", request(net, ACK).numbers(1002, 5002));
        s.active("stays closed", &added, &[0]);
        assert_eq!(s.world.entries(), 2, "lingers for late packets");
    });
}

#[test]
fn backend_closes_first() {
    everywhere(|s| {
        let (added, talk) = opened(s);
        let net = s.net;
        talk.reply(s, "data and FIN", reply(net, 0, FIN | ACK | PSH).numbers(5001, 1001).fill(100));
        talk.request(s, "ACK of the data only", request(net, ACK).numbers(1001, 5101));
        s.active("the FIN itself isn't acknowledged", &added, &[1]);
        talk.request(s, "FIN and ACK in one", request(net, FIN | ACK).numbers(1001, 5102));
        s.active("one ACK is missing", &added, &[1]);
        talk.reply(s, "last ACK", reply(net, 0, ACK).numbers(5102, 1002));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn both_close_at_once() {
    everywhere(|s| {
        let (added, talk) = opened(s);
        let net = s.net;
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
        talk.reply(s, "FIN crosses", reply(net, 0, FIN | ACK).numbers(5001, 1001));
        s.active("neither is acknowledged", &added, &[1]);
        talk.reply(s, "ACK", reply(net, 0, ACK).numbers(5002, 1002));
        talk.request(s, "ACK", request(net, ACK).numbers(1002, 5002));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn half_closed_goes_on_in_the_other_direction() {
    everywhere(|s| {
        let (added, talk) = opened(s);
        let net = s.net;
        talk.request(s, "request and FIN", request(net, FIN | ACK | PSH).numbers(1001, 5001).fill(50));
        let mut seq = 5001u32;
        for i in 0..20 {
            talk.reply(s, "answer", reply(net, 0, ACK).numbers(seq, 1052).fill(1000 + i));
            seq += 1000 + i as u32;
            talk.request(s, "its ACK", request(net, ACK).numbers(1052, seq));
        }
        s.active("still open one way", &added, &[1]);
        talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(seq, 1052));
        talk.request(s, "ACK", request(net, ACK).numbers(1052, seq + 1));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn sequence_numbers_wrap() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let (net, talk) = (s.net, Talk { backend: 0 });
        talk.request(s, "SYN", request(net, SYN).numbers(u32::MAX - 1, 0));
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(0xffff_ffef, u32::MAX));
        talk.request(
            s,
            "FIN at the end of the space",
            request(net, FIN | ACK).numbers(u32::MAX, 0xffff_fff0),
        );
        talk.reply(s, "an ACK from before", reply(net, 0, FIN | ACK).numbers(0xffff_fff0, u32::MAX));
        s.active("not acknowledged yet", &added, &[1]);
        talk.reply(s, "ACK 0", reply(net, 0, ACK).numbers(0xffff_fff1, 0));
        talk.request(s, "ACK", request(net, ACK).numbers(0, 0xffff_fff1));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn a_reset_by_either_side_closes() {
    everywhere(|s| {
        let (added, talk) = opened(s);
        let net = s.net;
        talk.request(s, "RST by the client", request(net, RST).numbers(1001, 0));
        s.active("closed", &added, &[0]);
        talk.reply(s, "RST crosses", reply(net, 0, RST | ACK).numbers(5001, 1001));
        s.active("counted once", &added, &[0]);

        s.world.reset().unwrap();
        let (added, talk) = opened(s);
        talk.reply(s, "RST by the backend", reply(net, 0, RST).numbers(5001, 0));
        s.active("closed", &added, &[0]);
        talk.request(s, "data that was under way", request(net, ACK).numbers(1001, 5001).fill(10));
        s.active("stays closed", &added, &[0]);
    });
}

#[test]
fn a_refused_connection_does_not_count() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk { backend: 0 };
        talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
        s.active("tried", &added, &[1]);
        talk.reply(s, "RST: nobody listens", reply(net, 0, RST | ACK).numbers(0, 1001));
        s.active("refused", &added, &[0]);
    });
}

#[test]
fn only_the_answer_to_a_synack_opens() {
    everywhere(|s| {
        s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk { backend: 0 };
        talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
        talk.request(s, "an ACK before the SYN-ACK", request(net, ACK).numbers(1001, 77));
        assert_eq!(phase(s), Phase::SYN_SENT, "a spoofed handshake stays half-open");
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(5000, 1001));
        assert_eq!(phase(s), Phase::SYN_SENT);
        talk.request(s, "ACK", request(net, ACK).numbers(1001, 5001));
        assert_eq!(phase(s), Phase::ESTABLISHED);
    });
}

#[test]
fn a_packet_of_a_flow_that_is_being_removed_is_dropped() {
    everywhere(|s| {
        let (_, _) = opened(s);
        let net = s.net;
        set_phase(s, Phase::GONE);
        s.step("a FIN at that instant", request(net, FIN | ACK).numbers(1001, 5001), Drop(Reason::FlowBusy));
        s.step("a SYN at that instant", request(net, SYN), Drop(Reason::FlowBusy));
    });
}

fn key4() -> FlowKey<Addr4> {
    let (std::net::IpAddr::V4(c), std::net::IpAddr::V4(v)) =
        (super::stage::NET4.client, super::stage::NET4.vip)
    else {
        unreachable!("IPv4")
    };
    FlowKey::new(c.into(), v.into(), PortBe::new(40000), PortBe::new(80), TCP)
}

fn key6() -> FlowKey<Addr6> {
    let (std::net::IpAddr::V6(c), std::net::IpAddr::V6(v)) =
        (super::stage::NET6.client, super::stage::NET6.vip)
    else {
        unreachable!("IPv6")
    };
    FlowKey::new(c.into(), v.into(), PortBe::new(40000), PortBe::new(80), TCP)
}

/// The phase of the connection of [`request`].
pub fn phase(s: &Stage<'_>) -> Phase {
    let state = if s.net.vip.is_ipv4() {
        s.world.flows4.get(&key4()).expect("the flow is there").state
    } else {
        s.world.flows6.get(&key6()).expect("the flow is there").state
    };
    Word(state).phase()
}

fn set_phase(s: &mut Stage<'_>, phase: Phase) {
    if s.net.vip.is_ipv4() {
        let flow = s.world.flows4.get(&key4()).unwrap();
        let state = Word(flow.state).with(phase).0;
        s.world.flows4.replace(Flow { state, ..flow }).unwrap();
    } else {
        let flow = s.world.flows6.get(&key6()).unwrap();
        let state = Word(flow.state).with(phase).0;
        s.world.flows6.replace(Flow { state, ..flow }).unwrap();
    }
}
