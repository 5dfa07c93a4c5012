//! Segments of people who see nothing of a connection, and so don't know its numbers: they are carried on, and move nothing.

use super::{
    build::{ACK, FIN, PSH, RST, SYN},
    stage::{Net, Stage, TCP, everywhere},
    tcp::{Talk, reply, request},
    world::Added,
};

/// Numbers that are nobody's here.
const WRONG: [(u32, u32); 3] =
    [(0x7000_0000, 0x9000_0000), (0x4000_0000, 0x1234_5678), (0xc000_0000, 0xdead_beef)];

/// A service with one backend, and a SYN that it has answered.
fn answered(s: &mut Stage<'_>) -> (Added, Talk) {
    let added = s.service(TCP, 80, 1);
    let (net, talk) = (s.net, Talk { backend: 0 });
    talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
    talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(5000, 1001));
    (added, talk)
}

/// What the backend has made of its clients so far: accepted, refused.
#[track_caller]
fn signs(s: &Stage<'_>, scene: &str, added: &Added, accepted: u64, refused: u64) {
    let counted = s.world.counters(added.backends[0]).expect("counters are read");
    assert_eq!((counted.accepted, counted.refused), (accepted, refused), "{scene}");
}

/// Everything there is to be forged, from either side.
fn forge(s: &mut Stage<'_>, talk: &Talk, net: &'static Net) {
    for (seq, ack) in WRONG {
        for flags in [RST, RST | ACK, FIN | ACK, FIN | ACK | PSH, ACK] {
            talk.request(s, "forged, from the client", request(net, flags).numbers(seq, ack));
            talk.reply(s, "forged, from the backend", reply(net, 0, flags).numbers(seq, ack));
        }
        // Half of it right is not enough.
        talk.request(s, "forged", request(net, FIN | ACK).numbers(1001, ack));
        talk.reply(s, "forged", reply(net, 0, RST | ACK).numbers(5001, ack));
        talk.request(s, "forged, over it", request(net, SYN).numbers(seq, 0));
        talk.reply(s, "forged, over it", reply(net, 0, SYN | ACK).numbers(seq, ack));
    }
}

#[test]
fn a_handshake_isnt_finished_by_who_hasnt_seen_its_answer() {
    everywhere(|s| {
        let (added, talk) = answered(s);
        let net = s.net;
        for (seq, ack) in WRONG {
            for flags in [ACK, ACK | PSH, FIN | ACK, RST | ACK] {
                talk.request(s, "both wrong", request(net, flags).numbers(seq, ack));
                talk.request(s, "the answer unseen", request(net, flags).numbers(1001, ack));
                talk.request(s, "another's begin", request(net, flags).numbers(seq, 5001));
            }
        }
        signs(s, "nobody has taken it up", &added, 0, 0);
        s.active("half-open", &added, &[1]);
        talk.request(s, "ACK", request(net, ACK).numbers(1001, 5001));
        signs(s, "its client has", &added, 1, 0);
    });
}

#[test]
fn an_open_connection_stays_open() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let talk = Talk::open(s);
        let net = s.net;
        forge(s, &talk, net);
        s.active("open", &added, &[1]);
        talk.request(s, "request", request(net, ACK | PSH).numbers(1001, 5001).fill(100));
        talk.reply(s, "answer", reply(net, 0, ACK | PSH).numbers(5001, 1101).fill(1000));
        forge(s, &talk, net);
        s.active("still open", &added, &[1]);
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(1101, 6001));
        forge(s, &talk, net);
        s.active("half closed", &added, &[1]);
        talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(6001, 1102));
        s.active("not all is acknowledged", &added, &[1]);
        talk.request(s, "ACK", request(net, ACK).numbers(1102, 6002));
        s.active("closed", &added, &[0]);
    });
}

#[test]
fn a_backend_is_no_worse_for_what_others_say() {
    everywhere(|s| {
        let (added, talk) = answered(s);
        let net = s.net;
        // It answers an acknowledgement of what it never said with a RST, and goes on waiting.
        talk.request(s, "made up", request(net, ACK).numbers(1001, 77));
        talk.reply(s, "as the standard has it", reply(net, 0, RST).numbers(77, 0));
        signs(s, "neither", &added, 0, 0);
        s.active("half-open", &added, &[1]);
        talk.reply(s, "it gives up", reply(net, 0, RST).numbers(5001, 0));
        signs(s, "who has accepted hasn't refused", &added, 0, 0);
        s.active("over", &added, &[0]);
    });
}

#[test]
fn a_refusal_is_an_answer_to_the_syn() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let (net, talk) = (s.net, Talk { backend: 0 });
        talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
        talk.reply(s, "of another connection", reply(net, 0, RST | ACK).numbers(0, 0x9000_0000));
        s.active("half-open", &added, &[1]);
        talk.reply(s, "refused", reply(net, 0, RST | ACK).numbers(0, 1001));
        signs(s, "refused", &added, 0, 1);
        s.active("over", &added, &[0]);
    });
}

#[test]
fn who_begins_anew_before_an_answer_gets_through() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let (net, talk) = (s.net, Talk { backend: 0 });
        talk.request(s, "SYN", request(net, SYN).numbers(1000, 0));
        talk.request(s, "given up, and the same port again", request(net, SYN).numbers(0x8000_0000, 0));
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(5000, 0x8000_0001));
        talk.request(s, "ACK", request(net, ACK).numbers(0x8000_0001, 5001));
        signs(s, "open", &added, 1, 0);
        talk.request(s, "RST", request(net, RST).numbers(0x8000_0001, 0));
        s.active("over", &added, &[0]);
    });
}

#[test]
fn an_answer_may_come_with_other_numbers_the_second_time() {
    everywhere(|s| {
        let (added, talk) = answered(s);
        let net = s.net;
        // SYN cookies: each answer has numbers of its own, and the client takes up one of them.
        talk.reply(s, "again", reply(net, 0, SYN | ACK).numbers(0x7000_0000, 1001));
        talk.request(s, "ACK of the first", request(net, ACK).numbers(1001, 5001));
        signs(s, "open", &added, 1, 0);
        talk.reply(s, "RST", reply(net, 0, RST).numbers(5001, 0));
        s.active("over", &added, &[0]);
    });
}

#[test]
fn a_syn_over_a_connection_goes_where_the_connection_goes() {
    everywhere(|s| {
        for finished in [false, true] {
            s.world.reset().expect("maps can be emptied");
            let added = s.service(TCP, 80, 2);
            let net = s.net;
            let talk = Talk::open(s);
            let b = talk.backend;
            if finished {
                talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
            }
            let mut counts = [0, 0];
            counts[b] = 1;
            // Only a new choice can go to the other.
            s.world.set_backend(added.backends[b], 0, u32::MAX).expect("it drains");
            let syn = request(net, SYN).numbers(0x9000_0000, 0);
            talk.request(s, "SYN", syn.clone());
            talk.reply(s, "whose is that?", reply(net, b, ACK).numbers(5001, 1001));
            s.active("it is still open", &added, &counts);
            talk.request(s, "SYN", syn.clone());
            talk.reply(s, "not to this", reply(net, b, RST | ACK).numbers(0, 0x9100_0000));
            s.active("it is still open", &added, &counts);
            talk.reply(
                s,
                "the backend knows nothing of it",
                reply(net, b, RST | ACK).numbers(0, 0x9000_0001),
            );
            s.active("over", &added, &[0, 0]);
            assert_eq!(s.forwarded("SYN", &syn), 1 - b, "chosen anew");
        }
    });
}

#[test]
fn a_backend_may_accept_a_connection_over_one_that_it_has_forgotten() {
    everywhere(|s| {
        for finished in [false, true] {
            s.world.reset().expect("maps can be emptied");
            let added = s.service(TCP, 80, 1);
            let net = s.net;
            let talk = Talk::open(s);
            if finished {
                talk.request(s, "FIN", request(net, FIN | ACK).numbers(1001, 5001));
            }
            talk.request(s, "SYN", request(net, SYN).numbers(0x9000_0000, 0));
            talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(0x2000_0000, 0x9000_0001));
            talk.request(s, "made up", request(net, ACK).numbers(1001, 5001));
            signs(s, "not taken up", &added, 1, 0);
            talk.request(s, "ACK", request(net, ACK).numbers(0x9000_0001, 0x2000_0001));
            signs(s, "taken up", &added, 2, 0);
            s.active("one", &added, &[1]);
            talk.reply(s, "of the one before", reply(net, 0, RST).numbers(5001, 0));
            s.active("still", &added, &[1]);
            talk.reply(s, "RST", reply(net, 0, RST).numbers(0x2000_0001, 0));
            s.active("over", &added, &[0]);
            talk.reply(s, "late", reply(net, 0, SYN | ACK).numbers(0x2000_0000, 0x9000_0001));
            s.active("over is over", &added, &[0]);
        }
    });
}

#[test]
fn a_new_connection_over_a_long_one_counts_from_its_own_numbers() {
    everywhere(|s| {
        let added = s.service(TCP, 80, 1);
        let net = s.net;
        let talk = Talk::open(s);
        let mut seq = 5001u32;
        for _ in 0..1_000 {
            talk.reply(s, "data", reply(net, 0, ACK).numbers(seq, 1001).fill(1_400));
            seq += 1_400;
        }
        // With data, as TCP Fast Open has it: half of it is taken.
        talk.request(s, "SYN", request(net, SYN).numbers(0x9000_0000, 0).fill(100));
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(0x2000_0000, 0x9000_0033));
        talk.request(s, "ACK", request(net, ACK).numbers(0x9000_0033, 0x2000_0001));
        signs(s, "taken up", &added, 2, 0);
        talk.request(s, "FIN", request(net, FIN | ACK).numbers(0x9000_0065, 0x2000_0001));
        talk.reply(s, "FIN", reply(net, 0, FIN | ACK).numbers(0x2000_0001, 0x9000_0066));
        talk.request(s, "ACK", request(net, ACK).numbers(0x9000_0066, 0x2000_0002));
        s.active("over", &added, &[0]);
    });
}

#[test]
fn who_begins_anew_after_an_answer_that_was_lost_gets_through() {
    everywhere(|s| {
        let (added, talk) = answered(s);
        let net = s.net;
        talk.request(s, "given up, and the same port again", request(net, SYN).numbers(0x8000_0000, 0));
        talk.reply(s, "of another", reply(net, 0, SYN | ACK).numbers(0x7000_0000, 0xc000_0000));
        talk.reply(s, "SYN-ACK", reply(net, 0, SYN | ACK).numbers(0x2000_0000, 0x8000_0001));
        talk.request(s, "ACK", request(net, ACK).numbers(0x8000_0001, 0x2000_0001));
        signs(s, "open", &added, 1, 0);
        talk.reply(s, "its answer said again", reply(net, 0, SYN | ACK).numbers(0x2000_0000, 0x8000_0001));
        talk.request(s, "ACK", request(net, ACK).numbers(0x8000_0001, 0x2000_0001));
        signs(s, "open once", &added, 1, 0);
        talk.request(s, "RST", request(net, RST).numbers(0x8000_0001, 0));
        s.active("over", &added, &[0]);
    });
}
