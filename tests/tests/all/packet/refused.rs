//! What is refused is answered as a host would answer it, and counted; what isn't ours is not touched.

use flowpin_tests::packet::{Frame, L4, Outcome, build::flags::*, checksums_hold};
use lb_common::abi::Reason;

use super::*;

/// The RST that answers `to`.
fn reset(to: &Frame, seq: u32, ack: u32, flags: u8) -> Frame {
    let mut rst =
        Frame { options: vec![], extensions: vec![], payload: vec![], padding: 0, ttl: 64, ..to.clone() };
    (rst.src, rst.dst, rst.sport, rst.dport) = (to.dst, to.src, to.dport, to.sport);
    (rst.smac, rst.dmac) = (to.dmac, to.smac);
    rst.fragment = (0, 0x4000);
    rst.l4 = L4::Tcp(flags, seq, ack, vec![]);
    rst
}

/// The builder's window is not 0; a RST's is.
fn without_window(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let at = bytes.len() - 6;
    let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let check = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
    let mut sum = u32::from(!check) + u32::from(!old);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at..at + 2].fill(0);
    bytes[at + 2..at + 4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes
}

#[test]
fn strays_are_answered_with_rst() {
    for face in FACES {
        for n in [V4, V6] {
            let rig = rig();
            let ack = to_vip(n, ACK).numbered(5, 77).carrying(vec![1; 10]);
            let expected = without_window(&reset(&ack, 77, 0, RST));
            assert_eq!(rig.run(face, &ack.bytes()), Outcome::Back(expected), "{face:?}");
            let synack = to_vip(n, SYN | ACK).numbered(5, 77);
            let expected = without_window(&reset(&synack, 77, 0, RST));
            assert_eq!(rig.run(face, &synack.bytes()), Outcome::Back(expected), "{face:?}");
            assert_eq!(rig.reason(Reason::Stray), 2);
            assert_eq!(rig.run(face, &to_vip(n, RST).bytes()), Outcome::Drop, "a RST is never answered");
            assert_eq!(rig.reason(Reason::StrayReset), 1);
        }
    }
}

#[test]
fn a_stray_under_consistent_hashing_is_forwarded() {
    for face in FACES {
        let mut rig = Rig::new(64);
        let pool = [("10.2.0.2", None, 1, NO_LIMIT), ("10.2.1.2", None, 1, NO_LIMIT)];
        rig.service(0, V4.vip, &[(80, Proto::TCP)], Algorithm::CONSISTENT_HASH, &pool);
        let Outcome::Pass(first) = rig.run(face, &to_vip(V4, SYN).bytes()) else { panic!("a SYN passes") };
        // Another node, or this one after it lost its table: the same backend.
        let mut other = Rig::new(64);
        other.service(0, V4.vip, &[(80, Proto::TCP)], Algorithm::CONSISTENT_HASH, &pool);
        let Outcome::Pass(stray) = other.run(face, &to_vip(V4, ACK).bytes()) else {
            panic!("a stray passes")
        };
        assert_eq!(first[30..34], stray[30..34]);
        assert_eq!(other.active(0, 0) + other.active(0, 1), 1);
    }
}

#[test]
fn no_backend() {
    for face in FACES {
        for n in [V4, V6] {
            let mut rig = Rig::new(64);
            let ports = [(80, Proto::TCP), (53, Proto::UDP)];
            rig.service(0, n.vip, &ports, Algorithm::LEAST_CONNECTIONS, &[(n.backend, None, 0, NO_LIMIT)]);
            let syn = to_vip(n, SYN).numbered(41, 0);
            let expected = without_window(&reset(&syn, 0, 42, RST | ACK));
            assert_eq!(rig.run(face, &syn.bytes()), Outcome::Back(expected), "{face:?}");
            unreachable_for(&rig, face, n);
            assert_eq!(rig.reason(Reason::NoBackend), 2);
        }
    }
}

/// RFC 792, RFC 4443: who, what, and the headers quoted as they came.
fn unreachable_for(rig: &Rig, face: Face, n: Names) {
    let query = datagram(n, b"a question");
    let sent = query.bytes();
    let Outcome::Back(icmp) = rig.run(face, &sent) else { panic!("{face:?}: not answered") };
    let (header, kind, quoted) = if n.vip.contains(':') { (40, [1, 4], 48) } else { (20, [3, 3], 28) };
    assert_eq!(icmp.len(), 14 + header + 8 + quoted);
    assert_eq!((&icmp[..6], &icmp[6..12]), (&query.smac[..], &query.dmac[..]));
    assert_eq!(icmp[14 + header..14 + header + 2], kind);
    assert_eq!(icmp[14 + header + 8..], sent[14..14 + quoted], "the quotation");
    assert!(checksums_hold(&icmp, 14), "{face:?}: checksums");
    let (src, dst) = if header == 40 { (22..38, 38..54) } else { (26..30, 30..34) };
    assert_eq!((&icmp[src.clone()], &icmp[dst.clone()]), (&sent[dst], &sent[src]));
}

#[test]
fn unreachables_are_rate_limited() {
    let mut rig = Rig::new(64);
    rig.service(0, V4.vip, &[(53, Proto::UDP)], Algorithm::LEAST_CONNECTIONS, &[]);
    let query = datagram(V4, b"?").bytes();
    let answered = (0..10_000).filter(|_| rig.run(Face::Xdp, &query) != Outcome::Drop).count();
    assert!(answered < 5_000, "{answered} of 10,000 in a moment");
    assert_eq!(rig.reason(Reason::Unanswered), 10_000 - answered as u64);
}

#[test]
fn backends_full() {
    for face in FACES {
        let mut rig = Rig::new(64);
        rig.service(
            0,
            V4.vip,
            &[(80, Proto::TCP)],
            Algorithm::LEAST_CONNECTIONS,
            &[(V4.backend, None, 1, 2)],
        );
        let syn = |port| Frame::tcp((V4.client, port), (V4.vip, 80), SYN).bytes();
        let fates: Vec<bool> =
            (1..=4).map(|port| matches!(rig.run(face, &syn(port)), Outcome::Pass(_))).collect();
        assert_eq!(fates, [true, true, false, false]);
        assert_eq!((rig.active(0, 0), rig.reason(Reason::BackendsFull)), (2, 2));
    }
}

#[test]
fn table_full() {
    for face in FACES {
        let mut rig = Rig::new(64);
        rig.service(
            0,
            V4.vip,
            &[(80, Proto::TCP), (53, Proto::UDP)],
            Algorithm::LEAST_CONNECTIONS,
            &[(V4.backend, Some(8080), 1, NO_LIMIT)],
        );
        let syn = |port| Frame::tcp((V4.client, port), (V4.vip, 80), SYN).bytes();
        let pinned =
            (1..=200).filter(|port| matches!(rig.run(face, &syn(*port)), Outcome::Pass(_))).count() as u64;
        assert!(pinned >= 30, "{pinned} flows in a table of 64 entries");
        assert_eq!(rig.reason(Reason::TableFull), 200 - pinned, "the rest is refused");
        assert_eq!(u64::from(rig.active(0, 0)), pinned, "and not counted");
        assert_eq!(rig.flows4().len() as u64, 2 * pinned, "and leaves nothing behind");
        assert_eq!(rig.run(face, &Frame::udp((V4.client, 9), (V4.vip, 53), b"x").bytes()), Outcome::Drop);
        // What is open stays open.
        let ack = Frame::tcp((V4.client, 1), (V4.vip, 80), ACK).bytes();
        assert!(matches!(rig.run(face, &ack), Outcome::Pass(_)));
    }
}

#[test]
fn fragments() {
    for face in FACES {
        let rig = rig();
        for (what, field) in [("first", 0x2000), ("middle", 0x2010), ("last", 0x0010)] {
            let mut frame = datagram(V4, &[7; 64]);
            frame.fragment = (9, field);
            assert_eq!(rig.run(face, &frame.bytes()), Outcome::Drop, "{what} to a VIP, {face:?}");
            let elsewhere = frame.clone().to(("198.51.100.1", 53)).bytes();
            assert_eq!(rig.run(face, &elsewhere), Outcome::Pass(elsewhere.clone()), "{what} to others");
        }
        for field in [0x0001u16, 0x0008, 0x0009] {
            let mut frame = datagram(V6, &[7; 64]);
            frame.extensions = vec![(44, [field.to_be_bytes().to_vec(), vec![0, 0, 0, 9]].concat())];
            assert_eq!(rig.run(face, &frame.bytes()), Outcome::Drop, "{field:#x} to a VIP, {face:?}");
        }
        assert_eq!(rig.reason(Reason::Fragment), 6);
        rig.run(face, &datagram(V4, b"x").bytes());
        let mut reply = Frame::udp((V4.backend, 8080), (V4.client, 40_000), &[7; 64]);
        reply.fragment = (9, 0x2000);
        assert_eq!(rig.run(face, &reply.bytes()), Outcome::Drop, "the first fragment of a reply");
    }
}

#[test]
fn malformed() {
    for face in FACES {
        let rig = rig();
        let mut count = 0;
        let mut dropped = |what: &str, bytes: &[u8]| {
            assert_eq!(rig.run(face, bytes), Outcome::Drop, "{what}, {face:?}");
            count += 1;
            assert_eq!(rig.reason(Reason::Malformed), count, "{what}");
        };
        for (what, at, value) in [
            ("IPv4 header length 4", 14, 0x41),
            ("IPv4 total length 0x2x", 16, 0x20),
            ("TCP data offset 0", 46, 0x00),
            ("TCP data offset beyond the packet", 46, 0xf0),
            ("SYN+FIN", 47, SYN | FIN),
            ("SYN+RST", 47, SYN | RST),
            ("no flags", 47, 0),
            ("FIN alone", 47, FIN),
        ] {
            let mut bytes = to_vip(V4, ACK).bytes();
            bytes[at] = value;
            dropped(what, &bytes);
        }
        let bytes = to_vip(V4, ACK).bytes();
        dropped("cut in the TCP header", &bytes[..bytes.len() - 1]);
        let mut bytes = datagram(V4, b"abc").bytes();
        bytes[38..40].copy_from_slice(&[0, 4]);
        dropped("UDP length 4", &bytes);
        let mut bytes = datagram(V6, b"abc").bytes();
        bytes[58..60].copy_from_slice(&[1, 0]);
        dropped("UDP length beyond the packet", &bytes);
        let mut frame = to_vip(V6, ACK);
        frame.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0]); 9];
        dropped("too many extension headers", &frame.bytes());
        frame.extensions = vec![(43, vec![4, 1, 0, 0, 0, 0])];
        dropped("a routing header with a segment left", &frame.bytes());
    }
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 46]].concat();
    let mut icmp = to_vip(V4, 0);
    (icmp.l4, icmp.payload) = (L4::Raw(1), vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    for face in FACES {
        let rig = rig();
        for (what, bytes) in [
            ("ARP", arp.clone()),
            ("another port of the VIP", to_vip(V4, SYN).to((V4.vip, 81)).bytes()),
            ("another protocol of the port", Frame::udp((V4.client, 9), (V4.vip, 80), b"x").bytes()),
            ("another address", to_vip(V6, SYN).to(("fd96::11", 80)).bytes()),
            ("a ping to the VIP", icmp.bytes()),
            (
                "a backend's own connections",
                Frame::tcp((V4.backend, 8080), ("198.51.100.1", 443), SYN).bytes(),
            ),
            ("broken, but to others", [&to_vip(V4, 0).to(("198.51.100.1", 80)).bytes()[..]].concat()),
        ] {
            assert_eq!(rig.run(face, &bytes), Outcome::Pass(bytes.clone()), "{what}, {face:?}");
        }
        assert_eq!(Reason::ALL.map(|r| rig.reason(r)), [0; Reason::COUNT]);
    }
}
