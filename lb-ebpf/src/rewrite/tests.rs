use core::net::Ipv4Addr;

use lb_common::abi::Addr4;
use proptest::prelude::*;

use super::*;
use crate::{
    packet::SlicePacket,
    parse::{Header, Parsed},
};

/// Sum of a packet's TCP or UDP part with its pseudo-header: 0 (or all ones) if the checksum is right.
fn folded(bytes: &[u8]) -> u16 {
    let word = |c: &[u8]| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)]));
    let l4 = &bytes[34..];
    let pseudo = bytes[26..34].chunks(2).map(word).sum::<u32>() + u32::from(bytes[23]) + l4.len() as u32;
    checksum::fold(l4.chunks(2).map(word).sum::<u32>() + pseudo)
}

proptest! {
    /// There and back again: a translated packet has right checksums, and its translation back is the packet that was.
    #[test]
    fn there_and_back(client: u32, vip: u32, backend: u32, ports: (u16, u16, u16), udp: bool, payload in prop::collection::vec(any::<u8>(), 0..64)) {
        let header = if udp { 8 } else { 20 };
        let total = (20 + header + payload.len()) as u16;
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0, 0x45, 0]);
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, if udp { 17 } else { 6 }, 0, 0]);
        bytes.extend(client.to_be_bytes());
        bytes.extend(vip.to_be_bytes());
        bytes.extend(ports.0.to_be_bytes());
        bytes.extend(ports.1.to_be_bytes());
        if udp {
            bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        }
        bytes.extend(&payload);
        let at = 34 + if udp { UDP_CHECK } else { TCP_CHECK };
        let check = match !folded(&bytes) {
            0 => 0xffff,
            c => c,
        };
        bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
        let before = bytes.clone();

        let v = (Addr4::from(Ipv4Addr::from(vip)), PortBe::new(ports.1));
        let b = (Addr4::from(Ipv4Addr::from(backend)), PortBe::new(ports.2));
        let mut parsed = Parsed::default();
        prop_assert!(V4::parse(&SlicePacket::new(&mut bytes), 14, &mut parsed).is_ok());
        translate::<V4, _>(&mut SlicePacket::new(&mut bytes), &parsed, &Translation { destination: true, addr: b.0, port: b.1 }).unwrap();
        prop_assert_eq!(&bytes[30..34], &backend.to_be_bytes());
        prop_assert_eq!(&bytes[36..38], &ports.2.to_be_bytes());
        prop_assert_eq!(folded(&bytes), 0xffff);

        // Turned round, so that what was the destination is the source that a reply's entry translates.
        let turn = |bytes: &mut [u8]| {
            for i in 0..4 {
                bytes.swap(26 + i, 30 + i);
            }
            bytes.swap(34, 36);
            bytes.swap(35, 37);
        };
        turn(&mut bytes);
        let mut parsed = Parsed::default();
        prop_assert!(V4::parse(&SlicePacket::new(&mut bytes), 14, &mut parsed).is_ok());
        translate::<V4, _>(&mut SlicePacket::new(&mut bytes), &parsed, &Translation { destination: false, addr: v.0, port: v.1 }).unwrap();
        turn(&mut bytes);
        // The IPv4 checksum started as 0, not as a right one; it has been moved there and back like the rest.
        prop_assert_eq!(&bytes[..24], &before[..24]);
        prop_assert_eq!(&bytes[26..at], &before[26..at]);
        prop_assert_eq!(&bytes[at + 2..], &before[at + 2..]);
        prop_assert_eq!(folded(&bytes), 0xffff);
    }
}
