//! The Internet checksum (RFC 1071), in the plainest way: over bytes in network order, nothing incremental.

use std::net::IpAddr;

/// Sum of the 16-bit words; an odd last byte counts as the high half of a word.
pub fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0))).sum()
}

/// Folded to 16 bits, carries added back in.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u64 {
    let addr = |a: IpAddr| match a {
        IpAddr::V4(a) => words(&a.octets()),
        IpAddr::V6(a) => words(&a.octets()),
    };
    addr(src) + addr(dst) + u64::from(proto) + (len as u64 >> 16) + (len as u64 & 0xffff)
}

/// One's complement difference: what replacing `old` by `new` adds to a sum.
pub fn change(old: &[u8], new: &[u8]) -> u64 {
    let negated: Vec<u8> = old.iter().map(|b| !b).collect();
    words(&negated) + words(new)
}
