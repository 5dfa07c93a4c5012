//! Frames at random: mostly well-formed and about the same few addresses and ports, so that flows open, talk, close and are
//! opened again; often mutated; sometimes nothing but noise.

use std::net::IpAddr;

use rand::{Rng, RngExt, rngs::StdRng};

use crate::packet::{
    build::{ACK, FIN, Frame, PSH, RST, SYN, Sum, eth},
    stage::Net,
};

use super::read::Key;

/// Ports that clients use.
const CLIENT_PORTS: u16 = 24;

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn one_in(rng: &mut StdRng, n: u32) -> bool {
    rng.random_range(0..n) == 0
}

/// Addresses of clients: the net's and some beside it.
fn client(rng: &mut StdRng, net: &Net) -> IpAddr {
    let n = rng.random_range(0..4u8);
    match net.client {
        IpAddr::V4(a) => {
            let o = a.octets();
            IpAddr::from([o[0], o[1], o[2], o[3] + n])
        }
        IpAddr::V6(a) => {
            let mut o = a.octets();
            o[15] += n;
            IpAddr::from(o)
        }
    }
}

fn flags(rng: &mut StdRng) -> u8 {
    match rng.random_range(0..20) {
        0..5 => SYN,
        5..8 => SYN | ACK,
        8..13 => ACK,
        13 => ACK | PSH,
        14..17 => FIN | ACK,
        17 => RST,
        18 => RST | ACK,
        _ => rng.random(),
    }
}

/// A frame that makes sense, for the most part. `answers`: to flows that got another port.
fn sensible(rng: &mut StdRng, net: &Net, answers: &[Key]) -> Frame {
    let mut f = eth();
    for _ in 0..pick(rng, &[0, 0, 0, 0, 0, 1, 2, 3]) {
        f = if rng.random() { f.vlan(rng.random()) } else { f.qinq(rng.random()) };
    }
    let client = (client(rng, net), 40_000 + rng.random_range(0..CLIENT_PORTS));
    let vip = (pick(rng, &[net.vip, net.vip, net.vip2]), pick(rng, &[80, 80, 81, 82, 53, 443]));
    let backend = (pick(rng, &net.backends), pick(rng, &[8080, 8080, 8081, 8082, 9000]));
    let other = (net.other, rng.random());
    let answer = answers.get(rng.random_range(0..answers.len().max(1)));
    let answer = answer.filter(|answer| answer.src.0.is_ipv4() == net.vip.is_ipv4());
    let (src, dst) = match rng.random_range(0..20) {
        0..10 => (client, vip),
        10..15 => (backend, client),
        15..17 => answer.map_or((backend, client), |answer| (answer.src, answer.dst)),
        17 => (client, backend),
        18 => (other, vip),
        _ => (client, other),
    };
    f = f.ip(src.0, dst.0).ttl(rng.random()).tos(rng.random()).id(rng.random_range(0..4));
    if one_in(rng, 8) {
        f = header_extras(rng, f, net.vip.is_ipv4());
    }
    let f = match rng.random_range(0..20) {
        0..13 => {
            let seq = pick(rng, &[1000, 1001, 5000, 5001, u32::MAX, 0]);
            let ack = pick(rng, &[1001, 1002, 5001, 5002, 0, 1]);
            f.tcp(src.1, dst.1, flags(rng)).numbers(seq, ack).window(rng.random())
        }
        13..19 => f.udp(src.1, dst.1),
        _ if rng.random() => f.icmp(if net.vip.is_ipv4() { 8 } else { 128 }, 0),
        _ => f.proto(rng.random()),
    };
    let f = f.fill(pick(rng, &[0, 0, 0, 1, 2, 7, 100, 1400]));
    match rng.random_range(0..12) {
        0 => f.l4_sum(Sum::Is(0)),
        1 => f.l4_sum(Sum::Is(rng.random())),
        2 => f.l4_sum(Sum::Partial),
        3 => f.l4_sum(Sum::Is(0xffff)),
        4 => f.minimum(),
        5 => f.trailer(rng.random_range(0..40)),
        _ => f,
    }
}

/// Options, extension headers, fragments.
fn header_extras(rng: &mut StdRng, mut f: Frame, v4: bool) -> Frame {
    if v4 {
        if rng.random() {
            let mut options = vec![1u8; 4 * rng.random_range(1..=10)];
            rng.fill_bytes(&mut options);
            f = f.options(&options);
        }
        if one_in(rng, 3) {
            f = f.fragment(pick(rng, &[0, 0x2000, 0x4000, 0x2001, 1, 0x1fff, 0x8000]));
        }
        return f;
    }
    let most = pick(rng, &[1, 2, 9]);
    for _ in 0..rng.random_range(1..=most) {
        f = match rng.random_range(0..6) {
            0 => f.padding(0, rng.random_range(1..4)),
            1 => f.padding(60, pick(rng, &[1, 2, 3, 30])),
            2 => f.extension(43, &[0, 4, pick(rng, &[0, 0, 1]), 0, 0, 0, 0]),
            3 => f.fragment6(pick(rng, &[0, 0, 0, 1, 0x1fff]), rng.random()),
            4 => f.extension(51, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            _ => f.padding(60, 1),
        };
    }
    f
}

/// The shortest: an Ethernet header.
const LEAST: usize = 14;

/// The next frame.
pub fn frame(rng: &mut StdRng, net: &Net, answers: &[Key]) -> Vec<u8> {
    if one_in(rng, 40) {
        let mut noise = vec![0; rng.random_range(LEAST..200)];
        rng.fill_bytes(&mut noise);
        return noise;
    }
    let mut bytes = sensible(rng, net, answers).bytes();
    if one_in(rng, 3) {
        mutate(rng, &mut bytes);
    }
    bytes
}

/// Spoils a frame: bits and bytes of its headers, its length.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..=3) {
        let head = bytes.len().min(110);
        let at = rng.random_range(0..head);
        match rng.random_range(0..8) {
            0..3 => bytes[at] ^= 1 << rng.random_range(0..8),
            3 => bytes[at] = rng.random(),
            4 => bytes[at] = pick(rng, &[0, 1, 4, 5, 6, 17, 43, 44, 60, 0x45, 0x60, 0x81, 0xff]),
            5 => bytes.truncate(rng.random_range(LEAST..=bytes.len().max(LEAST))),
            6 => {
                let mut more = vec![0; rng.random_range(1..30)];
                rng.fill_bytes(&mut more);
                bytes.extend(more);
            }
            // A whole 16-bit field: lengths, offsets.
            _ => {
                let at = at.min(bytes.len() - 2) & !1;
                bytes[at..at + 2]
                    .copy_from_slice(&pick(rng, &[0u16, 8, 20, 28, 40, 60, 0xffff]).to_be_bytes());
            }
        }
    }
}
