//! The model's reading of a frame: from the RFCs and the documented limits, not from the product's parser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A 5-tuple.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Source.
    pub src: (IpAddr, u16),
    /// Destination.
    pub dst: (IpAddr, u16),
    /// Protocol number.
    pub proto: u8,
}

impl Key {
    /// That of packets which go the other way.
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, proto: self.proto }
    }
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Nothing for us whatever the addresses.
    Foreign,
    /// Broken, from there, addressed to this.
    Broken(IpAddr, IpAddr),
    /// An echo request, from there, addressed to this.
    Echo(IpAddr, IpAddr),
    /// A fragment without ports; there is no layer 4 in it, and ports are 0.
    Fragment(Whole, Datagram),
    /// A first fragment.
    First(Whole, Datagram),
    /// TCP or UDP.
    Whole(Whole),
}

/// What fragments of a datagram have in common: addresses, identification and IPv4's protocol.
pub type Datagram = (IpAddr, IpAddr, u32, u8);

/// A TCP or UDP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whole {
    /// Its 5-tuple.
    pub key: Key,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP or UDP header.
    pub l4: usize,
    /// Bytes from the IP header on, without trailer.
    pub bytes: usize,
    /// TCP: flags.
    pub flags: u8,
    /// TCP: sequence number.
    pub seq: u32,
    /// TCP: acknowledgement number.
    pub ack: u32,
    /// TCP: payload bytes.
    pub len: u32,
    /// A first fragment.
    pub first: bool,
}

impl Read {
    /// Is its frame to many, or from an address that is nobody's: nothing is opened or answered by it.
    pub fn is_astray(&self, frame: &[u8]) -> bool {
        let src = match self {
            Self::Foreign => return true,
            Self::Broken(src, _) | Self::Echo(src, _) => *src,
            Self::Fragment(whole, _) | Self::First(whole, _) | Self::Whole(whole) => whole.key.src.0,
        };
        let nobody = match src {
            IpAddr::V4(a) => a.octets()[0] == 0 || a.is_loopback() || a.is_multicast() || a.is_broadcast(),
            IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_multicast(),
        };
        nobody || frame[0] & 1 != 0
    }
}

fn u16_at(f: &[u8], at: usize) -> usize {
    usize::from(f[at]) << 8 | usize::from(f[at + 1])
}

fn u32_at(f: &[u8], at: usize) -> u32 {
    (u16_at(f, at) as u32) << 16 | u16_at(f, at + 2) as u32
}

/// Reads a frame. `big`: a length of 0 stands for "to the end of the packet", as in GSO packets over 64 KiB, which only TC sees.
pub fn read(f: &[u8], big: bool) -> Read {
    let mut l3 = 14;
    let mut kind = u16_at(f, 12);
    for _ in 0..2 {
        if kind != 0x8100 && kind != 0x88a8 {
            break;
        }
        if f.len() < l3 + 4 {
            return Read::Foreign;
        }
        kind = u16_at(f, l3 + 2);
        l3 += 4;
    }
    match kind {
        0x0800 if f.len() >= l3 + 20 => ipv4(f, l3, big),
        0x86dd if f.len() >= l3 + 40 => ipv6(f, l3, big),
        _ => Read::Foreign,
    }
}

fn ipv4(f: &[u8], l3: usize, big: bool) -> Read {
    let addr = |at: usize| IpAddr::V4(Ipv4Addr::new(f[at], f[at + 1], f[at + 2], f[at + 3]));
    let (src, dst) = (addr(l3 + 12), addr(l3 + 16));
    let header = usize::from(f[l3] & 15) * 4;
    let total = match u16_at(f, l3 + 2) {
        0 if big => f.len() - l3,
        n => n,
    };
    if f[l3] >> 4 != 4 || header < 20 || total < header || l3 + total > f.len() {
        return Read::Broken(src, dst);
    }
    let word = u16_at(f, l3 + 6);
    let datagram = (src, dst, u16_at(f, l3 + 4) as u32, f[l3 + 9]);
    if word & 0x1fff != 0 {
        return later(datagram, l3, total);
    }
    let more = (word & 0x2000 != 0).then_some(datagram);
    layer4(f, (src, dst), f[l3 + 9], l3, header, total, more, big)
}

fn ipv6(f: &[u8], l3: usize, big: bool) -> Read {
    let addr = |at: usize| {
        let octets: [u8; 16] = f[at..at + 16].try_into().expect("sixteen");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (src, dst) = (addr(l3 + 8), addr(l3 + 24));
    let total = match u16_at(f, l3 + 4) {
        0 if big => f.len() - l3,
        n => n + 40,
    };
    if f[l3] >> 4 != 6 || l3 + total > f.len() {
        return Read::Broken(src, dst);
    }
    let (mut next, mut header, mut more, mut id, mut seen) = (f[l3 + 6], 40, false, 0, 0);
    while [0, 43, 44, 51, 60].contains(&next) {
        let at = l3 + header;
        if seen == 8 || f.len() < at + 8 {
            return Read::Broken(src, dst);
        }
        seen += 1;
        header += match next {
            43 if f[at + 3] != 0 => return Read::Broken(src, dst),
            44 if u16_at(f, at + 2) >> 3 != 0 => return later((src, dst, u32_at(f, at + 4), 0), l3, total),
            44 => {
                id = u32_at(f, at + 4);
                more |= f[at + 3] & 1 != 0;
                8
            }
            51 => (usize::from(f[at + 1]) + 2) * 4,
            _ => (usize::from(f[at + 1]) + 1) * 8,
        };
        if header > 40 + 512 {
            return Read::Broken(src, dst);
        }
        next = f[at];
    }
    if header > total {
        return Read::Broken(src, dst);
    }
    layer4(f, (src, dst), next, l3, header, total, more.then_some((src, dst, id, 0)), big)
}

fn later(datagram: Datagram, l3: usize, bytes: usize) -> Read {
    let key = Key { src: (datagram.0, 0), dst: (datagram.1, 0), proto: 0 };
    Read::Fragment(Whole { key, l3, l4: 0, bytes, flags: 0, seq: 0, ack: 0, len: 0, first: false }, datagram)
}

#[expect(clippy::too_many_arguments, reason = "what an IP header says is that much")]
fn layer4(
    f: &[u8],
    (src, dst): (IpAddr, IpAddr),
    proto: u8,
    l3: usize,
    header: usize,
    total: usize,
    more: Option<Datagram>,
    big: bool,
) -> Read {
    let l4 = l3 + header;
    let room = total - header;
    let least = match proto {
        6 => 20,
        17 => 8,
        1 | 58 if (proto == 1) == src.is_ipv4() && more.is_none() && room >= 8 && f.len() >= l4 + 8 => {
            let echo = f[l4] == if proto == 1 { 8 } else { 128 };
            return if echo { Read::Echo(src, dst) } else { Read::Foreign };
        }
        _ => return Read::Foreign,
    };
    if room < least {
        return Read::Broken(src, dst);
    }
    let key = Key { src: (src, u16_at(f, l4) as u16), dst: (dst, u16_at(f, l4 + 2) as u16), proto };
    let mut whole =
        Whole { key, l3, l4, bytes: total, flags: 0, seq: 0, ack: 0, len: 0, first: more.is_some() };
    if proto == 6 {
        let offset = usize::from(f[l4 + 12] >> 4) * 4;
        let flags = f[l4 + 13];
        let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
        if offset < 20 || offset > room || !(syn || rst || ack) || (syn && (fin || rst)) {
            return Read::Broken(src, dst);
        }
        whole.flags = flags;
        (whole.seq, whole.ack, whole.len) = (u32_at(f, l4 + 4), u32_at(f, l4 + 8), (room - offset) as u32);
    } else {
        let len = u16_at(f, l4 + 4);
        let unsized_gso = big && len == 0;
        let most = if more.is_some() { usize::MAX } else { room };
        if !(unsized_gso || (8..=most).contains(&len)) {
            return Read::Broken(src, dst);
        }
    }
    more.map_or(Read::Whole(whole), |datagram| Read::First(whole, datagram))
}
