//! What is translated comes out with the new address and port, right checksums, and nothing else changed.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use flowpin_tests::packet::{Frame, L4, Outcome, build::flags::*};

use super::*;

/// One rig for all cases: it takes the verifier a second to load.
fn shared() -> MutexGuard<'static, Rig> {
    static RIG: LazyLock<Mutex<Rig>> = LazyLock::new(|| Mutex::new(rig()));
    RIG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In to the VIP, and the same frame as the backend must see it; back from the backend, and as the client must see it.
fn both_ways(what: &str, names: Names, forward: Frame, reply: Frame) {
    for face in FACES {
        let mut rig = shared();
        rig.clear();
        if matches!(forward.l4, L4::Tcp(f, ..) if f & SYN == 0) {
            rig.run(face, &to_vip(names, SYN).bytes());
        }
        let expected = forward.clone().to((names.backend, 8080)).bytes();
        assert_eq!(rig.run(face, &forward.bytes()), Outcome::Pass(expected), "{what}, forward, {face:?}");
        let expected = reply.clone().from((names.vip, forward.dport)).bytes();
        assert_eq!(rig.run(face, &reply.bytes()), Outcome::Pass(expected), "{what}, reply, {face:?}");
    }
}

fn reply_to(forward: &Frame, names: Names, flags: u8) -> Frame {
    let mut reply = forward.clone();
    (reply.src, reply.sport) = (names.backend.parse().unwrap(), 8080);
    (reply.dst, reply.dport) = (forward.src, forward.sport);
    if let L4::Tcp(f, ..) = &mut reply.l4 {
        *f = flags;
    }
    reply
}

#[test]
fn tcp() {
    for n in [V4, V6] {
        let syn = to_vip(n, SYN);
        both_ways("SYN", n, syn.clone(), reply_to(&syn, n, SYN | ACK));
        for size in [0, 1, 2, 3, 536, 1460] {
            let data = to_vip(n, ACK).carrying((0..size).map(|i| i as u8).collect());
            both_ways(&format!("{size} bytes"), n, data.clone(), reply_to(&data, n, ACK));
        }
        let mut options = to_vip(n, SYN);
        options.l4 = L4::Tcp(SYN, 9, 0, vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        both_ways("TCP options", n, options.clone(), reply_to(&options, n, SYN | ACK));
    }
}

#[test]
fn minimum_and_jumbo_sizes() {
    let mut short = to_vip(V4, ACK);
    short.padding = 6;
    assert_eq!(short.bytes().len(), 60);
    both_ways("padded to 60", V4, short.clone(), reply_to(&short, V4, ACK));
    for n in [V4, V6] {
        // The largest that a test run takes as linear data of an XDP program; longer ones are tested with real traffic.
        let large = to_vip(n, ACK).carrying(vec![0xa5; 3000]);
        both_ways("3000 bytes", n, large.clone(), reply_to(&large, n, ACK));
    }
}

#[test]
fn udp() {
    for n in [V4, V6] {
        let with = datagram(n, b"query");
        both_ways("UDP", n, with.clone(), reply_to(&with, n, 0));
        let mut without = with.clone();
        without.l4 = L4::Udp(false);
        both_ways("UDP without checksum", n, without.clone(), reply_to(&without, n, 0));
        both_ways("empty UDP", n, datagram(n, b""), reply_to(&datagram(n, b""), n, 0));
    }
}

/// A computed checksum of 0 is sent as 0xffff (RFC 768): find payloads for which it is 0 after translation.
#[test]
fn udp_checksum_that_becomes_zero() {
    let mut found = 0;
    for word in 0..=u16::MAX {
        let frame = datagram(V4, &word.to_be_bytes()).to((V4.backend, 8080));
        let bytes = frame.bytes();
        if bytes[40..42] == [0xff, 0xff] {
            found += 1;
            let forward = datagram(V4, &word.to_be_bytes());
            both_ways("checksum 0", V4, forward.clone(), reply_to(&forward, V4, 0));
        }
    }
    assert!(found > 0);
}

#[test]
fn ipv4_options() {
    for len in [4, 20, 40] {
        let mut frame = to_vip(V4, ACK).carrying(b"x".to_vec());
        frame.options = vec![1; len];
        both_ways(&format!("{len} bytes of options"), V4, frame.clone(), reply_to(&frame, V4, ACK));
    }
}

#[test]
fn ipv6_extension_headers() {
    let pad = |n: usize| [vec![1, (n - 2) as u8], vec![0; n - 2]].concat();
    let whole = [vec![0, 0], vec![0, 0, 0, 7]].concat();
    for (what, extensions) in [
        ("hop-by-hop", vec![(0, pad(6))]),
        ("destination options", vec![(60, pad(14))]),
        ("routing, none left", vec![(43, vec![4, 0, 0, 0, 0, 0])]),
        ("a whole packet in a fragment header", vec![(44, whole.clone())]),
        ("authentication", vec![(51, vec![0; 22])]),
        (
            "several",
            vec![(0, pad(6)), (60, pad(6)), (43, vec![4, 0, 0, 0, 0, 0]), (44, whole), (60, pad(30))],
        ),
    ] {
        let mut frame = to_vip(V6, ACK).carrying(b"data".to_vec());
        frame.extensions = extensions;
        both_ways(what, V6, frame.clone(), reply_to(&frame, V6, ACK));
    }
}

#[test]
fn vlan_tags_survive() {
    for n in [V4, V6] {
        for tags in [vec![(0x8100, 42)], vec![(0x88a8, 7), (0x8100, 42)]] {
            let mut frame = to_vip(n, ACK).carrying(b"tagged".to_vec());
            frame.tags = tags.clone();
            let reply = reply_to(&frame, n, ACK);
            // A test run hands a TC program the outer tag as part of the frame, as XDP sees it.
            both_ways(&format!("{tags:?}"), n, frame, reply);
        }
    }
}

/// On virtual devices the checksum of a local sender is only begun; it must be left begun, for the new addresses.
#[test]
fn partial_checksums() {
    for n in [V4, V6] {
        let begun = |frame: &Frame| {
            let mut bytes = frame.bytes();
            let l3 = 14;
            let l4 = if n.vip.contains(':') { l3 + 40 } else { l3 + 20 };
            let length = (bytes.len() - l4) as u16;
            let (src, dst) = (frame.src, frame.dst);
            let words = |ip: std::net::IpAddr| match ip {
                std::net::IpAddr::V4(a) => a.octets().to_vec(),
                std::net::IpAddr::V6(a) => a.octets().to_vec(),
            };
            let all = [words(src), words(dst), vec![0, 6], length.to_be_bytes().to_vec()].concat();
            let mut sum: u32 = all.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            bytes[l4 + 16..l4 + 18].copy_from_slice(&(sum as u16).to_be_bytes());
            bytes
        };
        let frame = to_vip(n, SYN);
        let expected = begun(&frame.clone().to((n.backend, 8080)));
        assert_eq!(rig().run(Face::Virtual, &begun(&frame)), Outcome::Pass(expected));
    }
}

#[test]
fn a_port_that_the_backend_does_not_name_stays() {
    for face in FACES {
        let mut rig = Rig::new(64);
        let ports: Vec<_> = (8001..=8003).map(|p| (p, Proto::TCP)).collect();
        rig.service(0, V4.vip, &ports, Algorithm::LEAST_CONNECTIONS, &[(V4.backend, None, 1, NO_LIMIT)]);
        for port in 8001..=8003 {
            let syn = Frame::tcp((V4.client, 40_000), (V4.vip, port), SYN);
            let expected = syn.clone().to((V4.backend, port)).bytes();
            assert_eq!(rig.run(face, &syn.bytes()), Outcome::Pass(expected));
        }
        let beside = Frame::tcp((V4.client, 40_000), (V4.vip, 8004), SYN).bytes();
        assert_eq!(rig.run(face, &beside), Outcome::Pass(beside.clone()));
    }
}

#[test]
fn counters_count_both_ways() {
    let rig = rig();
    for face in FACES {
        rig.run(face, &to_vip(V4, SYN).bytes());
        rig.run(face, &reply_to(&to_vip(V4, SYN), V4, SYN | ACK).bytes());
        rig.run(face, &to_vip(V4, ACK).carrying(vec![0; 100]).bytes());
    }
    let c = rig.counters(0, 0);
    assert_eq!(
        (c.connections, c.packets_in, c.bytes_in, c.packets_out, c.bytes_out),
        (1, 6, 3 * (40 + 140), 3, 3 * 40)
    );
}
