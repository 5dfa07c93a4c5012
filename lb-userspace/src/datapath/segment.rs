//! TCP segments in IP packets, byte by byte, for sockets that leave headers to who sends.

use std::net::{IpAddr, SocketAddr};

use lb_common::checksum;

/// Protocol numbers (RFC 1700, RFC 2003, RFC 2473).
const TCP: u8 = 6;
const IPIP: u8 = 4;
const IPV6: u8 = 41;
/// TTL, or hop limit.
const HOPS: u8 = 64;
/// Bytes of a TCP header without options.
const TCP_LEN: usize = 20;

/// A segment without data.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source.
    pub from: SocketAddr,
    /// Destination, of the same family.
    pub to: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits, as in the header.
    pub flags: u8,
    /// The largest segment that its sender takes, which a SYN says.
    pub largest: Option<u16>,
}

impl Segment {
    /// The packet, IP header included.
    pub fn packet(&self) -> Vec<u8> {
        let (from, to) = (self.from.ip(), self.to.ip());
        let options =
            self.largest.map_or(Vec::new(), |largest| [&[2, 4], &largest.to_be_bytes()[..]].concat());
        let length = TCP_LEN + options.len();
        let mut tcp = Vec::with_capacity(length);
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        // Its length in words, a large window, the checksum to come, nothing urgent.
        tcp.extend([(length as u8 / 4) << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        let pseudo = [0, 0, 0, length as u8, 0, 0, 0, TCP];
        let sum = !checksum::fold(sum(&[&octets(from), &octets(to), &pseudo, &tcp]));
        tcp[16..18].copy_from_slice(&sum.to_ne_bytes());
        let mut packet = header(from, to, TCP, length);
        packet.extend(tcp);
        packet
    }
}

/// A packet in another one between these, of the same family (RFC 2003, RFC 2473).
pub fn in_another(from: IpAddr, to: IpAddr, packet: &[u8]) -> Vec<u8> {
    let mut outer = header(from, to, if to.is_ipv4() { IPIP } else { IPV6 }, packet.len());
    outer.extend(packet);
    outer
}

/// The IP header of a packet with so many bytes of payload.
fn header(from: IpAddr, to: IpAddr, protocol: u8, payload: usize) -> Vec<u8> {
    let payload = payload as u16;
    let mut header = match to {
        IpAddr::V4(_) => {
            let [high, low] = (20 + payload).to_be_bytes();
            // No identification, since it is never a fragment: "don't fragment" (RFC 6864).
            vec![0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, protocol, 0, 0]
        }
        IpAddr::V6(_) => {
            let [high, low] = payload.to_be_bytes();
            vec![0x60, 0, 0, 0, high, low, protocol, HOPS]
        }
    };
    header.extend(octets(from));
    header.extend(octets(to));
    if to.is_ipv4() {
        let sum = !checksum::fold(sum(&[&header]));
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Sum of parts whose lengths are multiples of four.
fn sum(parts: &[&[u8]]) -> u32 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(4));
    words.fold(0, |sum, w| checksum::add(sum, u32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: &str, to: &str, largest: Option<u16>) -> Segment {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Segment { from, to, sequence: 0xdead_beef, acknowledgement: 0, flags: 2, largest }
    }

    #[test]
    fn a_syn_byte_by_byte() {
        let packet = segment("192.0.2.1:40000", "10.96.0.10:80", Some(1460)).packet();
        let ip = [0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0x6e, 0x61, 192, 0, 2, 1, 10, 96, 0, 10];
        assert_eq!(packet[..20], ip);
        let tcp = [0x9c, 0x40, 0, 80, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff];
        assert_eq!(packet[20..36], tcp);
        assert_eq!(packet[36..], [0x91, 0x8d, 0, 0, 2, 4, 5, 0xb4]);
    }

    #[test]
    fn a_packet_in_another_one_byte_by_byte() {
        let [from, to] = ["192.0.2.1", "10.2.0.2"].map(|a| a.parse().unwrap());
        let outer = in_another(from, to, &[0xaa; 44]);
        let ip = [0x45, 0, 0, 64, 0, 0, 0x40, 0, 64, 4, 0x6e, 0xb5, 192, 0, 2, 1, 10, 2, 0, 2];
        assert_eq!(outer[..20], ip);
        assert_eq!(outer[20..], [0xaa; 44]);
        let [from, to] = ["fd02::1", "fd02::2"].map(|a| a.parse().unwrap());
        let outer = in_another(from, to, &[0xaa; 64]);
        assert_eq!(outer[..8], [0x60, 0, 0, 0, 0, 64, 41, 64]);
        assert_eq!((outer[8..24].to_vec(), outer[24..40].to_vec()), (octets(from), octets(to)));
        assert_eq!(outer.len(), 104);
    }

    #[test]
    fn checksums_are_right() {
        for (from, to, header) in
            [("192.0.2.1:40000", "10.2.0.2:80", 20), ("[2001:db8::1]:40000", "[fd00::2]:80", 40)]
        {
            for (largest, length) in [(None, 20), (Some(1460), 24)] {
                let packet = segment(from, to, largest).packet();
                assert_eq!(packet.len(), header + usize::from(length));
                let addresses = if header == 20 { &packet[12..20] } else { &packet[8..40] };
                let all = sum(&[addresses, &[0, 0, 0, length, 0, 0, 0, 6], &packet[header..]]);
                assert_eq!(checksum::fold(all), 0xffff, "{from} to {to}");
                if header == 20 {
                    assert_eq!(checksum::fold(sum(&[&packet[..20]])), 0xffff, "{from} to {to}");
                }
            }
        }
    }
}
