//! From what was said of a frame to its bytes.

use std::net::IpAddr;

use super::{Frame, L4, Sum};
use crate::packet::sum;

impl Frame {
    fn l4_bytes(&self) -> (u8, Vec<u8>) {
        let (proto, mut out, at) = match &self.l4 {
            L4::Other { proto } => return (*proto, self.payload.clone()),
            L4::Tcp { sport, dport, flags, seq, ack, window, options, offset } => {
                let words = offset.unwrap_or((5 + options.len() / 4) as u8);
                let mut out = Vec::with_capacity(20 + options.len() + self.payload.len());
                out.extend(sport.to_be_bytes());
                out.extend(dport.to_be_bytes());
                out.extend(seq.to_be_bytes());
                out.extend(ack.to_be_bytes());
                out.extend([words << 4, *flags]);
                out.extend(window.to_be_bytes());
                out.extend([0; 4]);
                out.extend(options);
                (6, out, 16)
            }
            L4::Udp { sport, dport, len } => {
                let len = len.unwrap_or((8 + self.payload.len()) as u16);
                let mut out = Vec::with_capacity(8 + self.payload.len());
                out.extend(sport.to_be_bytes());
                out.extend(dport.to_be_bytes());
                out.extend(len.to_be_bytes());
                out.extend([0; 2]);
                (17, out, 6)
            }
            L4::Icmp { kind, code, rest } => {
                let mut out = vec![*kind, *code, 0, 0];
                out.extend(rest.to_be_bytes());
                (if self.ip.0.is_ipv4() { 1 } else { 58 }, out, 2)
            }
        };
        out.extend(&self.payload);
        let pseudo = match (proto, self.l4_sum) {
            (1, _) => 0,
            _ => sum::pseudo(self.ip.0, self.ip.1, proto, out.len()),
        };
        let field = match self.l4_sum {
            Sum::Is(value) => value,
            Sum::Partial => sum::fold(pseudo),
            Sum::Right => match !sum::fold(pseudo + sum::words(&out)) {
                0 if proto == 17 => 0xffff,
                value => value,
            },
        };
        out[at..at + 2].copy_from_slice(&field.to_be_bytes());
        (proto, out)
    }

    fn ip_bytes(&self) -> Vec<u8> {
        let (proto, l4) = self.l4_bytes();
        match self.ip {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = 20 + self.options.len();
                let mut out =
                    vec![self.version.unwrap_or(4) << 4 | self.ihl.unwrap_or((header / 4) as u8), self.tos];
                out.extend(self.total.unwrap_or((header + l4.len()) as u16).to_be_bytes());
                out.extend(self.id.to_be_bytes());
                out.extend(self.fragment.to_be_bytes());
                out.extend([self.ttl, proto, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                out.extend(&self.options);
                let field = match self.ip_sum {
                    Sum::Is(value) => value,
                    _ => !sum::fold(sum::words(&out)),
                };
                out[10..12].copy_from_slice(&field.to_be_bytes());
                out.extend(l4);
                out
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let extra: usize = self.extensions.iter().map(|(_, body)| body.len() + 1).sum();
                let first = (self.version.unwrap_or(6) as u32) << 28 | (self.tos as u32) << 20 | self.label;
                let mut out = first.to_be_bytes().to_vec();
                out.extend(self.total.unwrap_or((extra + l4.len()) as u16).to_be_bytes());
                out.push(self.extensions.first().map_or(proto, |(kind, _)| *kind));
                out.push(self.ttl);
                out.extend(src.octets());
                out.extend(dst.octets());
                for (i, (_, body)) in self.extensions.iter().enumerate() {
                    out.push(self.extensions.get(i + 1).map_or(proto, |(kind, _)| *kind));
                    out.extend(body);
                }
                out.extend(l4);
                out
            }
            mixed => panic!("a packet has addresses of one family, not {mixed:?}"),
        }
    }

    /// The IP packet without its Ethernet header and trailer.
    pub fn packet(&self) -> Vec<u8> {
        self.ip_bytes()
    }

    /// Bytes of the IP packet: what byte counters count.
    pub fn ip_len(&self) -> u64 {
        self.ip_bytes().len() as u64
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.macs.1);
        out.extend(self.macs.0);
        for (kind, id) in &self.tags {
            out.extend(kind.to_be_bytes());
            out.extend(id.to_be_bytes());
        }
        let kind = self.ethertype.unwrap_or(if self.ip.0.is_ipv4() { 0x0800 } else { 0x86dd });
        out.extend(kind.to_be_bytes());
        out.extend(self.ip_bytes());
        out.resize(out.len() + self.trailer, 0);
        out
    }

    /// The frame cut to `len` bytes.
    pub fn cut(&self, len: usize) -> Vec<u8> {
        let mut out = self.bytes();
        out.truncate(len);
        out
    }
}
