//! A frame, as the packet path parses and translates it.

use lb_common::abi::{Addr, Flow, PortBe, V4, V6};
use lb_ebpf::{
    packet::SlicePacket,
    parse::{Header, Layer3, ParseError, Parsed, ethernet},
    rewrite::{Rewrite, Translation, translate},
};

/// What parsing lets through lies within the frame; a translation changes nothing but its fields, and one back makes the
/// frame that was.
pub fn packet(frame: &[u8]) {
    let mut bytes = frame.to_vec();
    match ethernet(&SlicePacket::new(&mut bytes)) {
        Layer3::V4(l3) => at::<V4>(&mut bytes, l3),
        Layer3::V6(l3) => at::<V6>(&mut bytes, l3),
        Layer3::Other => {}
    }
}

fn at<V: Header + Rewrite>(bytes: &mut [u8], l3: usize) {
    let before = bytes.to_vec();
    let mut parsed = Parsed::default();
    match V::parse(&SlicePacket::new(bytes), l3, &mut parsed) {
        Ok(()) | Err(ParseError::FirstFragment) => {}
        Err(_) => return,
    }
    assert_eq!(parsed.l3(), l3);
    assert!(l3 + parsed.bytes as usize <= bytes.len() && parsed.l4() > l3);
    assert_eq!(parsed.l4() + parsed.room(), l3 + parsed.bytes as usize);
    assert!(parsed.room() >= 8 && parsed.headers() <= parsed.bytes as usize);
    let (addr, port) = (parsed.key.dst, parsed.key.dport);
    let to = |nat_addr, nat_port| Translation::of(&Flow::<V::Addr> { nat_addr, nat_port, ..Flow::default() });
    let other = V::Addr::from_words([0x0102_0304; 4]);
    let done = translate::<V, _>(&mut SlicePacket::new(bytes), &parsed, &to(other, PortBe::new(4_711)));
    // Of TCP's header all is there; UDP's has its checksum where it is looked for.
    assert!(done.is_some());
    let mut again = Parsed::default();
    match V::parse(&SlicePacket::new(bytes), l3, &mut again) {
        Ok(()) | Err(ParseError::FirstFragment) => {}
        Err(_) => panic!("a translated packet isn't one any more"),
    }
    assert!(again.key.dst == other && again.key.dport == PortBe::new(4_711));
    assert!(again.key.src == parsed.key.src && again.key.sport == parsed.key.sport);
    assert!(translate::<V, _>(&mut SlicePacket::new(bytes), &again, &to(addr, port)).is_some());
    // One's complement has two zeros: a checksum may come back as the other one.
    for (i, (now, then)) in bytes.chunks(2).zip(before.chunks(2)).enumerate() {
        let zeros = |pair: &[u8]| pair == [0, 0] || pair == [0xff, 0xff];
        assert!(now == then || (zeros(now) && zeros(then)), "bytes {}: {then:?} are {now:?}", 2 * i);
    }
}
