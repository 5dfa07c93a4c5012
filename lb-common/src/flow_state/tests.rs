use proptest::prelude::*;

use super::{flags::*, *};

const TAG: u64 = 0xabcd_1234_5678;

struct Conn {
    word: Word,
    fin: [u32; 2],
}

impl Conn {
    fn syn() -> Self {
        Self { word: Word::new(Phase::SYN_SENT, TAG), fin: [0; 2] }
    }
    fn open() -> Self {
        let mut c = Self::syn();
        c.backend(SYN | ACK, 500, 101, 0);
        c.client(ACK, 101, 501, 0);
        assert_eq!(c.word.phase(), Phase::ESTABLISHED);
        c
    }
    fn see(&mut self, from_client: bool, s: Segment) -> Phase {
        if s.flags & FIN != 0 {
            self.fin[usize::from(!from_client)] = s.end();
        }
        self.word = next(self.word, from_client, &s, self.fin[0], self.fin[1]);
        assert_eq!(self.word.tag(), TAG);
        self.word.phase()
    }
    fn client(&mut self, flags: u8, seq: u32, ack: u32, len: u32) -> Phase {
        self.see(true, Segment { flags, seq, ack, len })
    }
    fn backend(&mut self, flags: u8, seq: u32, ack: u32, len: u32) -> Phase {
        self.see(false, Segment { flags, seq, ack, len })
    }
}

#[test]
fn handshake_needs_the_backends_answer_and_the_clients() {
    let mut c = Conn::syn();
    assert_eq!(c.client(ACK, 101, 501, 0), Phase::SYN_SENT, "an ACK without a SYN-ACK opens nothing");
    assert_eq!(c.backend(SYN | ACK, 500, 101, 0), Phase::SYN_SENT);
    assert!(c.word.answered());
    assert_eq!(c.client(SYN, 100, 0, 0), Phase::SYN_SENT, "a retransmitted SYN opens nothing");
    assert_eq!(c.client(ACK, 101, 501, 0), Phase::ESTABLISHED);
}

#[test]
fn normal_close_ends_with_the_last_ack() {
    let mut c = Conn::open();
    assert_eq!(c.client(FIN | ACK, 101, 501, 10), Phase::CLOSING);
    assert_eq!(c.backend(ACK, 501, 112, 0), Phase::CLOSING);
    assert_eq!(c.backend(FIN | ACK, 501, 112, 0), Phase::CLOSING);
    assert_eq!(c.client(ACK, 112, 502, 0), Phase::CLOSED);
}

#[test]
fn simultaneous_close() {
    let mut c = Conn::open();
    c.client(FIN | ACK, 101, 501, 0);
    assert_eq!(c.backend(FIN | ACK, 501, 101, 0), Phase::CLOSING);
    assert_eq!(c.backend(ACK, 502, 102, 0), Phase::CLOSING);
    assert_eq!(c.client(ACK, 102, 502, 0), Phase::CLOSED);
}

#[test]
fn half_close_stays_open_while_the_other_side_talks() {
    let mut c = Conn::open();
    c.client(FIN | ACK, 101, 501, 0);
    c.backend(ACK, 501, 102, 0);
    assert!(c.word.half_closed());
    for i in 0..100 {
        assert_eq!(c.backend(ACK, 501 + i * 1000, 102, 1000), Phase::CLOSING);
        assert_eq!(c.client(ACK, 102, 1501 + i * 1000, 0), Phase::CLOSING);
    }
    c.backend(FIN | ACK, 100_501, 102, 0);
    assert_eq!(c.client(ACK, 102, 100_502, 0), Phase::CLOSED);
}

#[test]
fn a_fin_ahead_of_lost_data_is_not_acknowledged_by_older_acks() {
    let mut c = Conn::open();
    c.client(FIN | ACK, 1101, 501, 0);
    c.backend(FIN | ACK, 501, 101, 0);
    assert_eq!(c.client(ACK, 1102, 502, 0), Phase::CLOSING, "the backend hasn't the data before the FIN yet");
    assert_eq!(c.backend(ACK, 502, 1102, 0), Phase::CLOSED);
}

#[test]
fn sequence_numbers_wrap() {
    let mut c = Conn::open();
    c.client(FIN | ACK, u32::MAX - 4, 501, 10);
    assert_eq!(c.fin[0], 6);
    c.backend(FIN | ACK, u32::MAX, 6, 0);
    assert_eq!(c.client(ACK, 6, 0, 0), Phase::CLOSED);
}

#[test]
fn reset_closes_from_anywhere() {
    assert_eq!(Conn::syn().backend(RST | ACK, 0, 101, 0), Phase::CLOSED);
    assert_eq!(Conn::open().client(RST, 101, 0, 0), Phase::CLOSED);
    let mut c = Conn::open();
    c.backend(FIN | ACK, 501, 101, 0);
    assert_eq!(c.client(RST | ACK, 101, 501, 0), Phase::CLOSED);
}

#[test]
fn client_closes_with_its_first_ack() {
    let mut c = Conn::syn();
    c.backend(SYN | ACK, 500, 101, 0);
    assert_eq!(c.client(FIN | ACK, 101, 501, 0), Phase::CLOSING);
}

proptest! {
    /// Whatever arrives in whatever order: a flow stops counting at most once and never starts again.
    #[test]
    fn counts_down_at_most_once(segments in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u32>(), any::<u32>(), 0u32..3000), 0..60)) {
        let mut c = Conn::syn();
        let mut ended = 0;
        for (from_client, flags, seq, ack, len) in segments {
            let before = c.word;
            c.see(from_client, Segment { flags, seq, ack, len });
            prop_assert!(before.counted() || !c.word.counted());
            prop_assert!(c.word.phase() >= before.phase());
            ended += u32::from(before.counted() && !c.word.counted());
        }
        prop_assert!(ended <= 1);
    }

    #[test]
    fn udp_closed_and_gone_do_not_move(flags: u8, from_client: bool, phase in prop::sample::select(vec![Phase::UDP, Phase::CLOSED, Phase::GONE])) {
        let word = Word::new(phase, TAG);
        prop_assert_eq!(next(word, from_client, &Segment { flags, seq: 1, ack: 2, len: 3 }, 0, 0), word);
    }
}

#[test]
fn an_answer_is_data_beyond_what_the_client_had_when_it_asked() {
    assert!(!unanswered(0, 0), "nobody asked");
    assert!(unanswered(5_001, 0), "asked, and nothing was ever said");
    assert!(unanswered(5_101, 5_101), "asked after the banner, nothing since");
    assert!(!unanswered(5_101, 5_201));
    assert!(!unanswered(u32::MAX, 3), "numbers wrap");
    assert_eq!(further(0, 7), 7);
    assert_eq!(further(7, 5), 7, "sent again");
    assert_eq!(further(u32::MAX - 1, 4), 4);
    assert_eq!(further(u32::MAX - 1, 0), 1, "0 would mean nothing");
}

#[test]
fn being_bound_survives_every_move() {
    let mut conn = Conn { word: Word::new(Phase::SYN_SENT, TAG).bound_if(true), fin: [0; 2] };
    conn.backend(SYN | ACK, 500, 101, 0);
    conn.client(ACK, 101, 501, 0);
    conn.client(FIN | ACK, 101, 501, 0);
    conn.backend(FIN | ACK, 501, 102, 0);
    assert_eq!(conn.client(ACK, 102, 502, 0), Phase::CLOSED);
    assert!(conn.word.bound() && !Word::new(Phase::UDP, TAG).bound_if(false).bound());
}

#[test]
fn of_a_one_sided_connection_only_the_client_is_heard() {
    let segment = |flags| Segment { flags, seq: 100, ack: 500, len: 0 };
    let step = |word: Word, flags| next_one_sided(word, &segment(flags)).phase();
    let syn = Word::new(Phase::SYN_SENT, TAG);
    assert_eq!(step(syn, SYN), Phase::SYN_SENT, "sent again");
    assert_eq!(step(syn, ACK), Phase::ESTABLISHED);
    assert_eq!(step(syn, RST), Phase::CLOSED);
    let open = Word::new(Phase::ESTABLISHED, TAG);
    assert_eq!(step(open, ACK), Phase::ESTABLISHED);
    assert_eq!(step(open, FIN | ACK), Phase::CLOSED, "it has said all, and counts no longer");
    assert_eq!(step(open, RST | ACK), Phase::CLOSED);
    for over in [Phase::CLOSED, Phase::RESET, Phase::GONE, Phase::UDP] {
        assert_eq!(step(Word::new(over, TAG), FIN | ACK), over);
    }
}

proptest! {
    #[test]
    fn a_one_sided_connection_counts_down_at_most_once(bits in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut word = Word::new(Phase::SYN_SENT, TAG);
        let mut ended = 0;
        for flags in bits {
            let before = word;
            word = next_one_sided(word, &Segment { flags, seq: 1, ack: 2, len: 3 });
            prop_assert!(before.counted() || !word.counted());
            prop_assert_eq!(word.tag(), before.tag());
            ended += u32::from(before.counted() && !word.counted());
        }
        prop_assert!(ended <= 1);
    }
}
