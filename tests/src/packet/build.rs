//! Frames, put together header by header with right lengths and checksums unless told otherwise. Written from the RFCs and
//! not with the product's own code, so that a mistake there is not repeated here.
//!
//! `eth().vlan(7).ip(client, vip).tcp(40000, 80, SYN).payload(b"x").bytes()`

mod bytes;

use std::net::IpAddr;

/// TCP flag: sender is done.
pub const FIN: u8 = 0x01;
/// TCP flag: opens.
pub const SYN: u8 = 0x02;
/// TCP flag: aborts.
pub const RST: u8 = 0x04;
/// TCP flag: push.
pub const PSH: u8 = 0x08;
/// TCP flag: the acknowledgement number is valid.
pub const ACK: u8 = 0x10;

/// Ethernet address of the sender in [`eth`].
pub const MAC_A: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// Ethernet address of the receiver in [`eth`].
pub const MAC_B: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];

/// What a checksum field holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sum {
    /// What it should.
    Right,
    /// This.
    Is(u16),
    /// Only the pseudo-header's sum, not complemented: to be completed by whoever transmits.
    Partial,
}

/// Layer 4.
#[derive(Clone, Debug)]
enum L4 {
    Tcp {
        sport: u16,
        dport: u16,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        options: Vec<u8>,
        offset: Option<u8>,
    },
    Udp {
        sport: u16,
        dport: u16,
        len: Option<u16>,
    },
    Other {
        proto: u8,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    macs: ([u8; 6], [u8; 6]),
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    /// Source and destination.
    ip: (IpAddr, IpAddr),
    ttl: u8,
    tos: u8,
    label: u32,
    id: u16,
    fragment: u16,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    version: Option<u8>,
    total: Option<u16>,
    ihl: Option<u8>,
    ip_sum: Sum,
    l4: L4,
    l4_sum: Sum,
    payload: Vec<u8>,
    trailer: usize,
}

/// A frame from [`MAC_A`] to [`MAC_B`].
pub fn eth() -> Frame {
    let any = IpAddr::from([0, 0, 0, 0]);
    Frame {
        macs: (MAC_A, MAC_B),
        tags: Vec::new(),
        ethertype: None,
        ip: (any, any),
        ttl: 63,
        tos: 0,
        label: 0x9_8765,
        id: 0x1234,
        fragment: 0x4000,
        options: Vec::new(),
        extensions: Vec::new(),
        version: None,
        total: None,
        ihl: None,
        ip_sum: Sum::Right,
        l4: L4::Other { proto: 253 },
        l4_sum: Sum::Right,
        payload: Vec::new(),
        trailer: 0,
    }
}

impl Frame {
    /// Swaps the Ethernet addresses.
    pub fn reversed(mut self) -> Self {
        self.macs = (self.macs.1, self.macs.0);
        self
    }
    /// Adds an 802.1Q tag, inside those that are there.
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((0x8100, id));
        self
    }
    /// Adds an 802.1ad service tag.
    pub fn qinq(mut self, id: u16) -> Self {
        self.tags.push((0x88a8, id));
        self
    }
    /// Says that something else follows the Ethernet header than what does.
    pub fn ethertype(mut self, kind: u16) -> Self {
        self.ethertype = Some(kind);
        self
    }
    /// IPv4 or IPv6, by the addresses.
    pub fn ip(mut self, src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Self {
        self.ip = (src.into(), dst.into());
        self
    }
    /// Time to live, or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    /// Type of service or traffic class.
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }
    /// What a host puts in an IP header of its own making: hop limit 64; IPv4 identification 0 with "don't fragment"; IPv6 flow
    /// label 0.
    pub fn fresh(mut self) -> Self {
        (self.ttl, self.tos, self.id, self.fragment, self.label) = (64, 0, 0, 0x4000, 0);
        self
    }
    /// IPv4 identification.
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }
    /// IPv4: flags and fragment offset as in the header (0x2000 more fragments, 0x4000 don't fragment).
    pub fn fragment(mut self, word: u16) -> Self {
        self.fragment = word;
        self
    }
    /// IPv4 options; a multiple of 4 bytes.
    pub fn options(mut self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40, "options of {} bytes", options.len());
        self.options = options.to_vec();
        self
    }
    /// Adds an IPv6 extension header of this kind. `body`: all of it but the first byte (what follows), which is filled in.
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }
    /// An IPv6 extension header of options, padded: hop-by-hop (0) or destination (60). `words`: its length in 8 bytes.
    pub fn padding(self, kind: u8, words: u8) -> Self {
        let len = words as usize * 8;
        let mut body = vec![words - 1, 1, (len - 4) as u8];
        body.resize(len - 1, 0);
        self.extension(kind, &body)
    }
    /// An IPv6 fragment header, with the identification that [`Frame::id`] has set: offset in 8 bytes, more to come.
    pub fn fragment6(self, offset: u16, more: bool) -> Self {
        let (word, id) = ((offset << 3 | more as u16).to_be_bytes(), self.id.to_be_bytes());
        self.extension(44, &[0, word[0], word[1], 0, 0, id[0], id[1]])
    }
    /// Lies about the IP version.
    pub fn version(mut self, version: u8) -> Self {
        self.version = Some(version);
        self
    }
    /// Lies about the length: IPv4 total length, IPv6 payload length.
    pub fn total(mut self, total: u16) -> Self {
        self.total = Some(total);
        self
    }
    /// Lies about the IPv4 header's length, in 4 bytes.
    pub fn ihl(mut self, ihl: u8) -> Self {
        self.ihl = Some(ihl);
        self
    }
    /// The IPv4 header checksum.
    pub fn ip_sum(mut self, sum: Sum) -> Self {
        self.ip_sum = sum;
        self
    }
    /// TCP.
    pub fn tcp(mut self, sport: u16, dport: u16, flags: u8) -> Self {
        self.l4 = L4::Tcp {
            sport,
            dport,
            flags,
            seq: 1000,
            ack: 0,
            window: 0xfaf0,
            options: Vec::new(),
            offset: None,
        };
        self
    }
    /// TCP sequence and acknowledgement numbers.
    pub fn numbers(mut self, new_seq: u32, new_ack: u32) -> Self {
        if let L4::Tcp { seq, ack, .. } = &mut self.l4 {
            (*seq, *ack) = (new_seq, new_ack);
        }
        self
    }
    /// TCP window.
    pub fn window(mut self, new: u16) -> Self {
        if let L4::Tcp { window, .. } = &mut self.l4 {
            *window = new;
        }
        self
    }
    /// TCP options; a multiple of 4 bytes.
    pub fn tcp_options(mut self, new: &[u8]) -> Self {
        if let L4::Tcp { options, .. } = &mut self.l4 {
            *options = new.to_vec();
        }
        self
    }
    /// Lies about the TCP header's length, in 4 bytes.
    pub fn data_offset(mut self, words: u8) -> Self {
        if let L4::Tcp { offset, .. } = &mut self.l4 {
            *offset = Some(words);
        }
        self
    }
    /// UDP.
    pub fn udp(mut self, sport: u16, dport: u16) -> Self {
        self.l4 = L4::Udp { sport, dport, len: None };
        self
    }
    /// Lies about the UDP length.
    pub fn udp_len(mut self, new: u16) -> Self {
        if let L4::Udp { len, .. } = &mut self.l4 {
            *len = Some(new);
        }
        self
    }
    /// ICMP or ICMPv6, the rest of the header being 0.
    pub fn icmp(mut self, kind: u8, code: u8) -> Self {
        self.l4 = L4::Icmp { kind, code, rest: 0 };
        self
    }
    /// The rest of the ICMP header: identifier and sequence number of an echo, the MTU of "too big".
    pub fn rest(mut self, new: u32) -> Self {
        if let L4::Icmp { rest, .. } = &mut self.l4 {
            *rest = new;
        }
        self
    }
    /// Is it UDP?
    pub fn is_udp(&self) -> bool {
        matches!(self.l4, L4::Udp { .. })
    }
    /// Another protocol; the payload follows the IP header.
    pub fn proto(mut self, proto: u8) -> Self {
        self.l4 = L4::Other { proto };
        self
    }
    /// The layer-4 checksum.
    pub fn l4_sum(mut self, sum: Sum) -> Self {
        self.l4_sum = sum;
        self
    }
    /// What follows the last header.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }
    /// This many bytes of payload, each different from its neighbours.
    pub fn fill(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|i| (i * 31 + i / 256) as u8).collect();
        self
    }
    /// Bytes of padding after the packet, as Ethernet puts there for short ones.
    pub fn trailer(mut self, len: usize) -> Self {
        self.trailer = len;
        self
    }
    /// Padded to Ethernet's minimum, 60 bytes.
    pub fn minimum(self) -> Self {
        let len = self.bytes().len();
        self.trailer(60usize.saturating_sub(len))
    }
    /// Source and destination port; 0: it has none.
    pub fn ports(&self) -> (u16, u16) {
        match &self.l4 {
            L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => (*sport, *dport),
            _ => (0, 0),
        }
    }
    /// The same, to another destination.
    pub fn to(mut self, addr: impl Into<IpAddr>, port: u16) -> Self {
        self.ip.1 = addr.into();
        match &mut self.l4 {
            L4::Tcp { dport, .. } | L4::Udp { dport, .. } => *dport = port,
            _ => {}
        }
        self
    }
    /// The same, from another source.
    pub fn from(mut self, addr: impl Into<IpAddr>, port: u16) -> Self {
        self.ip.0 = addr.into();
        match &mut self.l4 {
            L4::Tcp { sport, .. } | L4::Udp { sport, .. } => *sport = port,
            _ => {}
        }
        self
    }
}
