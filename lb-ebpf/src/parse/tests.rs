use lb_common::abi::{V4, V6};
use proptest::prelude::*;

use super::*;
use crate::packet::SlicePacket;

/// A frame of 20 + 20 bytes of IPv4 and TCP behind these layer-2 bytes.
fn frame(l2: &[u8], flags: u8) -> Vec<u8> {
    let mut out = l2.to_vec();
    out.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 7, 10, 96, 0, 10]);
    out.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 100, 0, 0, 0, 200, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    out
}

fn ethernet_of(kinds: &[u16]) -> Vec<u8> {
    let mut out = vec![0; 12];
    for (i, kind) in kinds.iter().enumerate() {
        out.extend(kind.to_be_bytes());
        if i + 1 < kinds.len() {
            out.extend([0, 5]);
        }
    }
    out
}

fn v4(bytes: &mut [u8], l3: usize) -> Result<Parsed<Addr4>, ParseError> {
    let mut parsed = Parsed::default();
    V4::parse(&SlicePacket::new(bytes), l3, &mut parsed).map(|()| parsed)
}

#[test]
fn ethernet_and_tags() {
    for (kinds, at) in [(&[0x0800][..], 14), (&[0x8100, 0x0800], 18), (&[0x88a8, 0x8100, 0x0800], 22)] {
        let mut bytes = frame(&ethernet_of(kinds), flags::ACK);
        assert!(matches!(ethernet(&SlicePacket::new(&mut bytes)), Layer3::V4(l3) if l3 == at));
    }
    let mut three = frame(&ethernet_of(&[0x8100, 0x8100, 0x8100, 0x0800]), flags::ACK);
    assert!(matches!(ethernet(&SlicePacket::new(&mut three)), Layer3::Other), "no more than two tags");
    assert!(matches!(ethernet(&SlicePacket::new(&mut [0; 13])), Layer3::Other));
}

#[test]
fn a_segment() {
    let mut bytes = frame(&ethernet_of(&[0x0800]), flags::SYN);
    let parsed = v4(&mut bytes, 14).ok().unwrap();
    assert_eq!((parsed.l3(), parsed.l4(), parsed.bytes, parsed.room()), (14, 34, 40, 20));
    assert_eq!((parsed.key.sport.get(), parsed.key.dport.get(), parsed.key.proto), (40_000, 80, Proto::TCP));
    assert_eq!(parsed.segment, Segment { flags: flags::SYN, seq: 100, ack: 200, len: 0 });
    assert!(parsed.segment.opens());
}

#[test]
fn impossible_flags() {
    for bits in [0, flags::FIN, flags::SYN | flags::FIN, flags::SYN | flags::RST] {
        let mut bytes = frame(&ethernet_of(&[0x0800]), bits);
        assert!(v4(&mut bytes, 14).is_err_and(|why| why == ParseError::Malformed), "{bits:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever the bytes: what parsing lets through lies within the frame, and within what its offsets can say.
    #[test]
    fn offsets_stay_inside(mut bytes in prop::collection::vec(any::<u8>(), 80..200), v6: bool, tcp: bool, at: prop::sample::Index, value: u8) {
        // A good packet, but for one byte.
        let l4 = if v6 { 54 } else { 34 };
        let size = |from: usize| ((bytes.len() - from) as u16).to_be_bytes();
        let (total, payload, udp) = (size(14), size(54), size(l4));
        if v6 {
            (bytes[14], bytes[20]) = (0x60, if tcp { 6 } else { 17 });
            bytes[18..20].copy_from_slice(&payload);
        } else {
            (bytes[14], bytes[20], bytes[21], bytes[23]) = (0x45, 0, 0, if tcp { 6 } else { 17 });
            bytes[16..18].copy_from_slice(&total);
        }
        if tcp {
            (bytes[l4 + 12], bytes[l4 + 13]) = (0x50, flags::ACK);
        } else {
            bytes[l4 + 4..l4 + 6].copy_from_slice(&udp);
        }
        let at = at.index(bytes.len());
        bytes[at] = value;
        let len = bytes.len();
        let (at, room, bytes) = if v6 {
            let mut parsed = Parsed::default();
            let done = V6::parse(&SlicePacket::new(&mut bytes), 14, &mut parsed);
            prop_assume!(done.is_ok());
            (parsed.l4(), parsed.room(), parsed.bytes as usize)
        } else {
            let parsed = v4(&mut bytes, 14);
            prop_assume!(parsed.is_ok());
            let parsed = parsed.ok().unwrap();
            (parsed.l4(), parsed.room(), parsed.bytes as usize)
        };
        prop_assert!(14 + bytes <= len);
        prop_assert_eq!(at + room, 14 + bytes);
        prop_assert!(room >= 8);
    }
}
