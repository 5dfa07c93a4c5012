use proptest::prelude::*;

use super::*;
use crate::flow_state::flags::*;

const SYN_SENT: Word = Word::new(Phase::SYN_SENT, 7);
const OPEN: Word = Word::new(Phase::ESTABLISHED, 7);

fn side(number: u32, packets: u32, payload: u64) -> Side {
    Side { number, finished: false, bytes: payload + u64::from(packets) * 52 }
}

const fn segment(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment { flags, seq, ack, len: 0 }
}

#[test]
fn a_handshake_with_its_own_numbers() {
    let client = side(1001, 1, 0);
    let believed =
        |from_client, segment, backend| believable(SYN_SENT, from_client, &segment, &client, &backend);
    let silent = Side::default();
    assert!(believed(false, segment(SYN | ACK, 9_000_000, 1001), silent));
    assert!(!believed(false, segment(SYN | ACK, 9_000_000, 500_000), silent), "of another connection");
    assert!(believed(false, segment(RST | ACK, 0, 1001), silent), "a refusal");
    assert!(!believed(false, segment(RST | ACK, 0, 2_000_000), silent));
    let answered = side(9_000_001, 1, 0);
    assert!(believed(true, segment(ACK, 1001, 9_000_001), answered));
    assert!(!believed(true, segment(ACK, 1001, 77), answered), "it hasn't seen the answer");
    assert!(!believed(true, segment(ACK, 3_000_000, 9_000_001), answered));
    // What a backend says to an acknowledgement of what it never sent: it goes on waiting.
    assert!(!believed(false, segment(RST, 77, 0), answered));
    assert!(believed(false, segment(RST, 9_000_001, 0), answered));
}

#[test]
fn after_a_fin_numbers_are_around_it() {
    let finished = Side { number: 5_000, finished: true, bytes: 400 };
    assert!(finished.admits(4_999) && finished.admits(5_000));
    assert!(!finished.admits(5_000 + (1 << 17)) && !finished.admits(5_000u32.wrapping_sub(1 << 17)));
}

#[test]
fn without_a_number_anything_is_believed() {
    assert!(Side { bytes: 100, ..Side::default() }.admits(0xdead_beef));
}

#[test]
fn a_guess_hits_a_short_connection_seldom() {
    // 200 requests of 100 bytes.
    let client = side(0x1234_5678, 200, 20_000);
    let hits = (0..1u32 << 20).filter(|i| client.admits(i.wrapping_mul(4093))).count();
    assert!(hits < (1 << 20) / 30_000, "{hits} of 2^20");
}

proptest! {
    /// Whatever was sent, lost on the way here, sent again or is still under way: the true numbers are admitted.
    #[test]
    fn true_numbers_are_admitted(
        start in 1u32..,
        payload in prop_oneof![0u64..100_000, 0..1u64 << 33],
        size in 1u64..1_460,
        again in 0u64..20,
        under_way in 0.0f64..1.0,
    ) {
        let packets = payload / size + 1;
        // Some percent of all is sent twice; headers come on top.
        let bytes = payload + payload * again / 100 + packets * (100 + again) / 100 * 52;
        let side = Side { number: start, finished: false, bytes };
        let next = start.wrapping_add(payload as u32);
        prop_assert!(side.admits(next), "the next to be sent");
        prop_assert!(side.admits(next.wrapping_sub(1)) || payload == 0, "a keepalive's");
        let window = payload.min(UNDER_WAY / 2) as f64;
        let acknowledged = next.wrapping_sub((window * under_way) as u32);
        prop_assert!(side.admits(acknowledged), "an acknowledgement of what had arrived");
        let lost = (payload.min(SLACK / 2) as f64 * under_way) as u32;
        prop_assert!(side.admits(next.wrapping_add(lost)), "after some that were lost before they came by");
    }

    #[test]
    fn a_syn_and_what_has_no_numbers_yet_are_believed(seq: u32, ack: u32, bytes in 0u64..1 << 20) {
        let side = Side { number: 9, finished: false, bytes };
        prop_assert!(believable(OPEN, true, &segment(SYN, seq, ack), &side, &side));
        prop_assert!(believable(OPEN, false, &segment(RST, seq, ack), &side, &Side::default()));
    }
}
