//! Strays that are carried on under consistent hashing: one segment without SYN is no connection before the backend has said so.

use lb_common::{
    abi::Reason,
    flow_state::{Phase, Word},
};

use super::{
    build::{ACK, FIN, PSH, RST, SYN},
    stage::{Expect::*, Stage, TCP, everywhere},
    tcp::{Talk, reply, request},
    world::{Added, Member},
};

/// A service with one backend, and a segment in the middle of a connection.
fn stray(s: &mut Stage<'_>, flags: u8) -> (Added, Talk) {
    let members = [Member::new(s.net.backends[0], 8080)];
    let added = s.world.add_hashed(s.net.vip, &[(TCP, 80)], &members).expect("a service is added");
    let talk = Talk { backend: 0 };
    talk.request(s, "stray", request(s.net, flags).numbers(3000, 7000).fill(10));
    (added, talk)
}

fn phase(s: &Stage<'_>) -> Phase {
    let v4 = s.world.flows4.entries().into_iter().find(|flow| flow.direction.is_forward());
    let v6 = s.world.flows6.entries().into_iter().find(|flow| flow.direction.is_forward());
    v4.map(|flow| Word(flow.state)).or(v6.map(|flow| Word(flow.state))).expect("a flow").phase()
}

#[test]
fn the_backends_acknowledgement_opens_it() {
    everywhere(|s| {
        let (added, talk) = stray(s, ACK | PSH);
        let net = s.net;
        assert_eq!(phase(s), Phase::PROVISIONAL);
        s.active("it counts meanwhile", &added, &[1]);
        talk.request(s, "whatever its client says", request(net, ACK | PSH).numbers(3010, 7000).fill(10));
        talk.request(s, "one more", request(net, ACK).numbers(3020, 7000));
        assert_eq!(phase(s), Phase::PROVISIONAL);
        talk.reply(s, "ACK", reply(net, 0, ACK).numbers(7000, 3020));
        assert_eq!(phase(s), Phase::ESTABLISHED);
        // From here on numbers count.
        talk.request(s, "forged", request(net, RST).numbers(0x9000_0000, 0));
        talk.reply(s, "forged", reply(net, 0, RST).numbers(0x9000_0000, 0));
        assert_eq!(phase(s), Phase::ESTABLISHED);
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(3020, 7000));
        talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(7000, 3021));
        talk.request(s, "ACK", request(net, ACK).numbers(3021, 7001));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn the_backends_refusal_ends_it() {
    everywhere(|s| {
        let (added, talk) = stray(s, ACK);
        talk.reply(s, "RST", reply(s.net, 0, RST).numbers(7000, 0));
        assert_eq!(phase(s), Phase::CLOSED);
        s.active("over", &added, &[0]);
        assert_eq!(s.world.counters(added.backends[0]).expect("counters").refused, 0, "nobody was refused");
    });
}

#[test]
fn a_syn_over_it_begins_anew() {
    everywhere(|s| {
        let (added, talk) = stray(s, ACK);
        let net = s.net;
        talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
        assert_eq!(phase(s), Phase::SYN_SENT);
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(5000, 1001));
        talk.request(s, "ACK", request(net, ACK).numbers(1001, 5001));
        assert_eq!(phase(s), Phase::ESTABLISHED);
        s.active("one", &added, &[1]);
    });
}

#[test]
fn a_fin_promotes_nothing_and_isnt_forgotten() {
    everywhere(|s| {
        for first in [true, false] {
            s.world.reset().expect("maps can be emptied");
            let (added, talk) = stray(s, if first { FIN | ACK } else { ACK });
            let net = s.net;
            if !first {
                talk.request(s, "FIN", request(net, FIN | ACK).numbers(3010, 7000));
            }
            assert_eq!(phase(s), Phase::PROVISIONAL);
            talk.reply(s, "ACK", reply(net, 0, ACK).numbers(7000, 3011));
            assert_eq!(phase(s), Phase::CLOSING);
            talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(7000, 3011));
            talk.request(s, "ACK", request(net, ACK).numbers(3011, 7001));
            s.active("closed", &added, &[0]);
        }
    });
}

#[test]
fn a_fin_ahead_of_lost_data_is_kept() {
    everywhere(|s| {
        let (added, talk) = stray(s, ACK);
        let net = s.net;
        talk.request(s, "data and FIN", request(net, FIN | ACK).numbers(3010, 7000).fill(100));
        talk.reply(s, "ACK of what came before", reply(net, 0, ACK).numbers(7000, 3010));
        assert_eq!(phase(s), Phase::CLOSING);
        talk.reply(s, "ACK of it", reply(net, 0, ACK).numbers(7000, 3111));
        talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(7000, 3111));
        talk.request(s, "ACK", request(net, ACK).numbers(3111, 7001));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn a_forged_fin_before_it_is_open_closes_nothing() {
    everywhere(|s| {
        let (added, talk) = stray(s, FIN | ACK);
        let net = s.net;
        talk.reply(s, "ACK of the true client's", reply(net, 0, ACK).numbers(7000, 0x5000_0000));
        assert_eq!(phase(s), Phase::ESTABLISHED);
        talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(7000, 0x5000_0000));
        talk.request(s, "ACK", request(net, ACK).numbers(0x5000_0000, 7001));
        s.active("it may go on sending", &added, &[1]);
    });
}

#[test]
fn a_reset_is_no_stray_that_is_carried_on() {
    everywhere(|s| {
        let members = [Member::new(s.net.backends[0], 8080)];
        s.world.add_hashed(s.net.vip, &[(TCP, 80)], &members).expect("a service is added");
        s.step("RST", request(s.net, RST).numbers(3000, 0), Drop(Reason::StrayReset));
        assert_eq!(s.world.entries(), 0);
    });
}
