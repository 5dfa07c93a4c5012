//! A million random and mutated packets: no wrong rewrite, and none lost that isn't ours.

use flowpin_tests::packet::{Frame, Outcome, build::flags::*, checksums_hold};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const PACKETS: u32 = 1_000_000;
const SEED: u64 = 20_261_120;

/// Seeds of mutation: every kind of packet that there is a table for.
fn corpus() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for n in [V4, V6] {
        for flags in [SYN, ACK, FIN | ACK, RST, SYN | ACK] {
            frames.push(to_vip(n, flags));
            frames.push(to_vip(n, flags).to(("198.51.100.1", 80)).from(("198.51.100.2", 9)));
        }
        frames.push(datagram(n, b"0123456789"));
        let mut tagged = to_vip(n, ACK).carrying(vec![3; 40]);
        tagged.tags = vec![(0x8100, 5)];
        frames.push(tagged);
        let mut reply = to_vip(n, ACK);
        (reply.src, reply.dst, reply.sport, reply.dport) =
            (n.backend.parse().unwrap(), n.client.parse().unwrap(), 8080, 40_000);
        frames.push(reply);
    }
    let mut options = to_vip(V4, ACK);
    options.options = vec![1; 12];
    frames.push(options);
    let mut extended = to_vip(V6, ACK);
    extended.extensions = vec![(0, vec![1, 4, 0, 0, 0, 0]), (60, vec![1, 4, 0, 0, 0, 0])];
    frames.push(extended);
    frames.iter().map(Frame::bytes).collect()
}

/// Does an address of ours stand anywhere in the packet?
fn names_us(bytes: &[u8]) -> bool {
    let octets = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(a) => a.octets().to_vec(),
        std::net::IpAddr::V6(a) => a.octets().to_vec(),
    };
    [V4.vip, V4.backend, V6.vip, V6.backend].iter().any(|a| {
        let needle = octets(a);
        bytes.windows(needle.len()).any(|w| w == needle)
    })
}

fn l3_of(bytes: &[u8]) -> usize {
    match u16::from_be_bytes([bytes[12], bytes[13]]) {
        0x8100 | 0x88a8 => 18,
        _ => 14,
    }
}

/// Which bytes translation may change: addresses, IPv4 checksum, ports, layer-4 checksum. Everything else must be as it was.
fn only_translated(before: &[u8], after: &[u8]) -> bool {
    let l3 = l3_of(before);
    let v4 = before[l3] >> 4 == 4;
    let l4 = if v4 { l3 + usize::from(before[l3] & 15) * 4 } else { l3 + 40 };
    let simple = v4 || matches!(before[l3 + 6], 6 | 17);
    before.len() == after.len()
        && before.iter().zip(after).enumerate().all(|(i, (a, b))| {
            a == b
                || match v4 {
                    true => (l3 + 10..l3 + 20).contains(&i),
                    false => (l3 + 8..l3 + 40).contains(&i),
                }
                // Behind extension headers the place isn't fixed; there the tables speak for translation.
                || !simple
                || (l4..l4 + 4).contains(&i)
                || (l4 + 6..l4 + 8).contains(&i)
                || (l4 + 16..l4 + 18).contains(&i)
        })
}

#[test]
fn a_million() {
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let corpus = corpus();
    let mut rig = Rig::new(8_192);
    for (id, n) in [(0, V4), (1, V6)] {
        let ports = [(80, Proto::TCP), (53, Proto::UDP)];
        rig.service(id, n.vip, &ports, Algorithm::LEAST_CONNECTIONS, &[(n.backend, Some(8080), 1, NO_LIMIT)]);
    }
    let (mut passed, mut translated, mut back, mut dropped) = (0u32, 0u32, 0u32, 0u32);
    for i in 0..PACKETS {
        let mut bytes = if i % 5 == 0 {
            let len = rng.random_range(14..200);
            (0..len).map(|_| rng.random()).collect::<Vec<u8>>()
        } else {
            corpus[rng.random_range(0..corpus.len())].clone()
        };
        let valid = i % 7 == 0;
        if !valid {
            for _ in 0..rng.random_range(1..5) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            if rng.random_ratio(1, 8) {
                bytes.truncate(rng.random_range(14..=bytes.len()));
            }
        }
        // The kernel makes no skb of a frame too short for its headers; XDP takes all.
        let face = FACES[rng.random_range(0..if bytes.len() < 60 { 2 } else { 3 })];
        match rig.run(face, &bytes) {
            Outcome::Pass(out) if out == bytes => passed += 1,
            Outcome::Pass(out) => {
                translated += 1;
                assert!(names_us(&bytes), "packet {i}, {face:?}: translated, and not ours: {bytes:x?}");
                assert!(only_translated(&bytes, &out), "packet {i}, {face:?}:\n{bytes:x?}\n{out:x?}");
                if valid && i % 5 != 0 && !matches!(bytes[l3_of(&bytes) + 6], 0 | 60) {
                    assert!(checksums_hold(&out, l3_of(&out)), "packet {i}, {face:?}: {out:x?}");
                }
            }
            Outcome::Back(out) => {
                back += 1;
                assert!(names_us(&bytes), "packet {i}, {face:?}: answered, and not ours: {bytes:x?}");
                assert!(checksums_hold(&out, l3_of(&out)), "packet {i}, {face:?}: {out:x?}");
            }
            Outcome::Drop => {
                dropped += 1;
                assert!(names_us(&bytes), "packet {i}, {face:?}: dropped, and not ours: {bytes:x?}");
            }
        }
    }
    println!("{passed} passed, {translated} translated, {back} answered, {dropped} dropped");
    assert!([passed, translated, back, dropped].iter().all(|n| *n > 1_000), "every fate is met");
}
