//! Frames with right checksums, and the check that a frame's checksums are right.

use std::net::IpAddr;

/// TCP flag bits.
pub mod flags {
    /// FIN
    pub const FIN: u8 = 1;
    /// SYN
    pub const SYN: u8 = 2;
    /// RST
    pub const RST: u8 = 4;
    /// ACK
    pub const ACK: u8 = 16;
}

/// What the IP packet carries.
#[derive(Clone, Debug)]
pub enum L4 {
    /// TCP: flags, sequence number, acknowledgement number, options (a multiple of 4).
    Tcp(u8, u32, u32, Vec<u8>),
    /// UDP: with a checksum?
    Udp(bool),
    /// Anything: protocol number; the payload is all there is.
    Raw(u8),
}

/// A frame to be.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Source MAC.
    pub smac: [u8; 6],
    /// Destination MAC.
    pub dmac: [u8; 6],
    /// VLAN tags in the frame: ethertype and id.
    pub tags: Vec<(u16, u16)>,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// IPv4 options (a multiple of 4).
    pub options: Vec<u8>,
    /// IPv6 extension headers: kind and bytes after the first two (8 n + 6 of them); IPv4 has none.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 identification, flags and fragment offset.
    pub fragment: (u16, u16),
    /// Time to live.
    pub ttl: u8,
    /// Layer 4.
    pub l4: L4,
    /// Payload.
    pub payload: Vec<u8>,
    /// Bytes behind the packet, as Ethernet pads.
    pub padding: usize,
}

/// Sum over big-endian 16-bit words.
fn sum(bytes: &[u8], start: u32) -> u32 {
    bytes.chunks(2).fold(start, |s, c| s + (u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))))
}

fn finish(mut s: u32) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn pseudo(src: &[u8], dst: &[u8], proto: u8, len: usize) -> u32 {
    sum(src, sum(dst, 0)) + u32::from(proto) + len as u32
}

impl Frame {
    /// A TCP segment with these flags.
    pub fn tcp(src: (&str, u16), dst: (&str, u16), flags: u8) -> Self {
        Self {
            smac: [2, 0, 0, 0, 0, 1],
            dmac: [2, 0, 0, 0, 0, 2],
            tags: Vec::new(),
            src: src.0.parse().expect("an address"),
            dst: dst.0.parse().expect("an address"),
            sport: src.1,
            dport: dst.1,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: (7, 0x4000),
            ttl: 61,
            l4: L4::Tcp(flags, 1000, if flags & flags::ACK == 0 { 0 } else { 2000 }, Vec::new()),
            payload: Vec::new(),
            padding: 0,
        }
    }

    /// A UDP datagram.
    pub fn udp(src: (&str, u16), dst: (&str, u16), payload: &[u8]) -> Self {
        Self { l4: L4::Udp(true), payload: payload.into(), ..Self::tcp(src, dst, 0) }
    }

    /// With a payload.
    pub fn carrying(mut self, payload: Vec<u8>) -> Self {
        self.payload = payload;
        self
    }

    /// With sequence and acknowledgement numbers.
    pub fn numbered(mut self, seq: u32, ack: u32) -> Self {
        if let L4::Tcp(_, s, a, _) = &mut self.l4 {
            (*s, *a) = (seq, ack);
        }
        self
    }

    /// To another destination.
    pub fn to(mut self, dst: (&str, u16)) -> Self {
        (self.dst, self.dport) = (dst.0.parse().expect("an address"), dst.1);
        self
    }

    /// From another source.
    pub fn from(mut self, src: (&str, u16)) -> Self {
        (self.src, self.sport) = (src.0.parse().expect("an address"), src.1);
        self
    }

    fn proto(&self) -> u8 {
        match self.l4 {
            L4::Tcp(..) => 6,
            L4::Udp(_) => 17,
            L4::Raw(proto) => proto,
        }
    }

    /// Layer 4 with its checksum.
    fn transport(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let at = match &self.l4 {
            L4::Raw(_) => return self.payload.clone(),
            L4::Tcp(flags, seq, ack, options) => {
                out.extend(self.sport.to_be_bytes());
                out.extend(self.dport.to_be_bytes());
                out.extend(seq.to_be_bytes());
                out.extend(ack.to_be_bytes());
                out.extend([((20 + options.len()) as u8 / 4) << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                out.extend(options);
                16
            }
            L4::Udp(_) => {
                out.extend(self.sport.to_be_bytes());
                out.extend(self.dport.to_be_bytes());
                out.extend((8 + self.payload.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                6
            }
        };
        out.extend(&self.payload);
        let check = finish(sum(&out, pseudo(&octets(self.src), &octets(self.dst), self.proto(), out.len())));
        let check = match self.l4 {
            L4::Udp(false) => 0,
            L4::Udp(true) if check == 0 => 0xffff,
            _ => check,
        };
        out[at..at + 2].copy_from_slice(&check.to_be_bytes());
        out
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = [self.dmac, self.smac].concat();
        for (kind, id) in &self.tags {
            out.extend(kind.to_be_bytes());
            out.extend(id.to_be_bytes());
        }
        let l4 = self.transport();
        let kind: u16 = if self.src.is_ipv4() { 0x0800 } else { 0x86dd };
        out.extend(kind.to_be_bytes());
        let (src, dst) = (octets(self.src), octets(self.dst));
        if self.src.is_ipv4() {
            let len = 20 + self.options.len();
            let mut ip = vec![0x40 | (len / 4) as u8, 0];
            ip.extend(((len + l4.len()) as u16).to_be_bytes());
            ip.extend(self.fragment.0.to_be_bytes());
            ip.extend(self.fragment.1.to_be_bytes());
            ip.extend([self.ttl, self.proto(), 0, 0]);
            ip.extend(src);
            ip.extend(dst);
            ip.extend(&self.options);
            let check = finish(sum(&ip, 0));
            ip[10..12].copy_from_slice(&check.to_be_bytes());
            out.extend(ip);
        } else {
            let extra: usize = self.extensions.iter().map(|(_, b)| b.len() + 2).sum();
            out.extend([0x60, 0, 0, 0]);
            out.extend(((extra + l4.len()) as u16).to_be_bytes());
            let mut kinds: Vec<u8> = self.extensions.iter().map(|(k, _)| *k).collect();
            kinds.push(self.proto());
            out.extend([kinds[0], self.ttl]);
            out.extend(src);
            out.extend(dst);
            for (i, (kind, body)) in self.extensions.iter().enumerate() {
                // A fragment header has no length; authentication counts in words, from 2.
                let len = match kind {
                    44 => 0,
                    51 => (body.len() + 2) / 4 - 2,
                    _ => (body.len() + 2) / 8 - 1,
                };
                out.extend([kinds[i + 1], len as u8]);
                out.extend(body);
            }
        }
        out.extend(l4);
        out.resize(out.len() + self.padding, 0);
        out
    }
}

/// Are the checksums of a frame right: IPv4 header, TCP, UDP (or none), ICMP? Only for frames without extension headers.
pub fn checksums_hold(frame: &[u8], l3: usize) -> bool {
    let ip = &frame[l3..];
    let (header, proto, total, src, dst) = if ip[0] >> 4 == 4 {
        let header = usize::from(ip[0] & 15) * 4;
        if finish(sum(&ip[..header], 0)) != 0 {
            return false;
        }
        (header, ip[9], usize::from(u16::from_be_bytes([ip[2], ip[3]])), &ip[12..16], &ip[16..20])
    } else {
        (40, ip[6], 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])), &ip[8..24], &ip[24..40])
    };
    let l4 = &ip[header..total];
    match proto {
        17 if l4[6] == 0 && l4[7] == 0 => true,
        6 | 17 | 58 => finish(sum(l4, pseudo(src, dst, proto, l4.len()))) == 0,
        1 => finish(sum(l4, 0)) == 0,
        _ => true,
    }
}
