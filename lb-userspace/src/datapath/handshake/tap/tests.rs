use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;
use socket2::SockRef;

use super::*;
use crate::datapath::segment::Segment;

const MARK: u16 = 0xbeef;
const ACKNOWLEDGED: u32 = 0xbeef_0002;

fn packet(v6: bool, flags: u8, acknowledgement: u32) -> Vec<u8> {
    let ends = if v6 { ["[fd96::10]:80", "[fd02::1]:40000"] } else { ["10.96.0.10:80", "10.2.0.1:40000"] };
    let [from, to] = ends.map(|end| end.parse().unwrap());
    Segment { from, to, sequence: 1, acknowledgement, flags, largest: Some(1440) }.packet()
}

/// The same with four bytes of options before TCP.
fn with_options(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] = 0x46;
    packet.splice(20..20, [1, 1, 1, 1]);
    packet
}

/// Which of these a filter lets through. It is run on what a datagram is made of, as it is on packets.
fn passed(filter: &[SockFilter], packets: &[Vec<u8>]) -> Vec<bool> {
    let (send, receive) = UnixDatagram::pair().unwrap();
    SockRef::from(&receive).attach_filter(filter).unwrap();
    receive.set_nonblocking(true).unwrap();
    let goes = |packet: &Vec<u8>| {
        // What is filtered out is refused to the sender.
        let _ = send.send(packet);
        receive.recv(&mut [0; 128]).is_ok()
    };
    packets.iter().map(goes).collect()
}

#[test]
fn only_answers_with_the_mark_get_through() {
    for v6 in [false, true] {
        let of = |flags, acknowledgement| packet(v6, flags, acknowledgement);
        let answers =
            [of(SYN | ACK, ACKNOWLEDGED), of(RST | ACK, ACKNOWLEDGED), of(SYN | ACK | 0x40, ACKNOWLEDGED)];
        let mut udp = of(SYN | ACK, ACKNOWLEDGED);
        udp[if v6 { 6 } else { 9 }] = 17;
        let others = [
            of(SYN, ACKNOWLEDGED),
            of(ACK, ACKNOWLEDGED),
            of(RST, ACKNOWLEDGED),
            of(ACK | 1, ACKNOWLEDGED),
            of(SYN | ACK, 0xbeee_0002),
            of(SYN | ACK, 0x0002_beef),
            udp,
            of(SYN | ACK, ACKNOWLEDGED)[..if v6 { 52 } else { 32 }].to_vec(),
        ];
        let filter = if v6 { filter_v6(MARK) } else { filter_v4(MARK) };
        assert_eq!(passed(&filter, &answers), [true; 3], "v6: {v6}");
        assert_eq!(passed(&filter, &others), [false; 8], "v6: {v6}");
    }
    let whole = packet(false, SYN | ACK, ACKNOWLEDGED);
    let mut fragment = whole.clone();
    fragment[7] = 1;
    assert_eq!(passed(&filter_v4(MARK), &[with_options(whole), fragment]), [true, false]);
}

#[test]
fn an_answer_is_told_by_all_of_its_numbers() {
    for (packet, ends) in [
        (packet(false, SYN | ACK, ACKNOWLEDGED), ["10.96.0.10:80", "10.2.0.1:40000"]),
        (with_options(packet(false, SYN | ACK, ACKNOWLEDGED)), ["10.96.0.10:80", "10.2.0.1:40000"]),
        (packet(true, SYN | ACK, ACKNOWLEDGED), ["[fd96::10]:80", "[fd02::1]:40000"]),
    ] {
        let [from, to] = ends.map(|end| end.parse().unwrap());
        let expected = Expected { from, to, acknowledgement: ACKNOWLEDGED };
        assert_eq!(understood(&packet), Some((expected, Answer::Accepted)));
    }
    let (_, refused) = understood(&packet(false, RST | ACK, ACKNOWLEDGED)).unwrap();
    assert_eq!(refused, Answer::Refused);
    assert_eq!(understood(&packet(false, RST, ACKNOWLEDGED)), None);
}

proptest! {
    #[test]
    fn whatever_comes_is_no_panic(bytes: Vec<u8>) {
        let _ = understood(&bytes);
    }
}
