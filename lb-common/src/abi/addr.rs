//! Addresses, ports and protocols as maps and packets hold them. The byte order is in the type; conversions live here only.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PortBe(pub u16);

impl PortBe {
    /// From host order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }
    /// To host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An IPv4 address: the four octets as they lie in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Addr4(pub u32);

/// An IPv6 address: the sixteen octets as they lie in a packet. 4-byte aligned.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Addr6(pub [u32; 4]);

impl From<Ipv4Addr> for Addr4 {
    fn from(a: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(a.octets()))
    }
}

impl From<Addr4> for Ipv4Addr {
    fn from(a: Addr4) -> Self {
        Self::from(a.0.to_ne_bytes())
    }
}

impl From<Ipv6Addr> for Addr6 {
    fn from(a: Ipv6Addr) -> Self {
        let o = a.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Addr6> for Ipv6Addr {
    fn from(a: Addr6) -> Self {
        let mut o = [0u8; 16];
        for (i, w) in a.0.iter().enumerate() {
            o[i * 4..i * 4 + 4].copy_from_slice(&w.to_ne_bytes());
        }
        Self::from(o)
    }
}

/// What the packet path needs of an address of either family.
pub trait Addr: Copy + Eq + Default + core::fmt::Debug {
    /// What fills [`Flow`](super::Flow) up to a multiple of eight bytes; always zero.
    type Fill: Copy + Eq + Default + core::fmt::Debug;
    /// The address as 32-bit words in memory order: one for IPv4, four for IPv6. For hashes and checksums, which are
    /// sums over words whose order does not matter.
    fn fold<T>(self, init: T, f: impl FnMut(T, u32) -> T) -> T;
    /// Two addresses as 64-bit words: one for IPv4, four for IPv6. For the flow table's hash.
    fn pairs(a: Self, b: Self, init: u64, f: impl FnMut(u64, u64) -> u64) -> u64;
    /// Bits in which two addresses differ, all words together; 0: they are the same.
    fn differs(self, other: Self) -> u32;
    /// The address as two numbers, first half first; IPv4 as ::ffff:a.b.c.d. For affinity.
    fn wide(self) -> (u64, u64);
    /// The address as [`Backend`](super::Backend) holds it.
    fn words(self) -> [u32; 4];
    /// From there.
    fn from_words(words: [u32; 4]) -> Self;
    /// What holds where an entry of the flow table lies: `bucket << 3 | lane`.
    fn from_place(place: u32) -> Self;
    /// Where an entry lies.
    fn place(self) -> u32;
    /// Can nobody have it, so that a packet from it is a mistake or a forgery (RFC 1812, section 5.3.7; RFC 4291, sections 2.5 and 2.7)?
    fn is_martian(self) -> bool;
    /// As the standard library's type.
    fn to_ip(self) -> IpAddr;
}

impl Addr for Addr4 {
    type Fill = [u32; 0];
    #[inline(always)]
    fn fold<T>(self, init: T, mut f: impl FnMut(T, u32) -> T) -> T {
        f(init, self.0)
    }
    #[inline(always)]
    fn pairs(a: Self, b: Self, init: u64, mut f: impl FnMut(u64, u64) -> u64) -> u64 {
        f(init, (a.0 as u64) << 32 | b.0 as u64)
    }
    #[inline(always)]
    fn differs(self, other: Self) -> u32 {
        self.0 ^ other.0
    }
    #[inline(always)]
    fn wide(self) -> (u64, u64) {
        (0, 0xffff << 32 | u32::from_be(self.0) as u64)
    }
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words[0])
    }
    #[inline(always)]
    fn from_place(place: u32) -> Self {
        Self(place)
    }
    #[inline(always)]
    fn place(self) -> u32 {
        self.0
    }
    #[inline(always)]
    fn is_martian(self) -> bool {
        let first = u32::from_be(self.0) >> 24;
        // "This network", loopback, multicast, broadcast.
        first == 0 || first == 127 || first & 0xf0 == 224 || self.0 == u32::MAX
    }
    fn to_ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl Addr for Addr6 {
    type Fill = [u32; 1];
    #[inline(always)]
    fn fold<T>(self, init: T, mut f: impl FnMut(T, u32) -> T) -> T {
        let t = f(init, self.0[0]);
        let t = f(t, self.0[1]);
        let t = f(t, self.0[2]);
        f(t, self.0[3])
    }
    #[inline(always)]
    fn pairs(a: Self, b: Self, init: u64, mut f: impl FnMut(u64, u64) -> u64) -> u64 {
        let h = f(init, (a.0[0] as u64) << 32 | b.0[0] as u64);
        let h = f(h, (a.0[1] as u64) << 32 | b.0[1] as u64);
        let h = f(h, (a.0[2] as u64) << 32 | b.0[2] as u64);
        f(h, (a.0[3] as u64) << 32 | b.0[3] as u64)
    }
    #[inline(always)]
    fn differs(self, other: Self) -> u32 {
        (self.0[0] ^ other.0[0])
            | (self.0[1] ^ other.0[1])
            | (self.0[2] ^ other.0[2])
            | (self.0[3] ^ other.0[3])
    }
    #[inline(always)]
    fn wide(self) -> (u64, u64) {
        let half = |i: usize| (u32::from_be(self.0[i]) as u64) << 32 | u32::from_be(self.0[i + 1]) as u64;
        (half(0), half(2))
    }
    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }
    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }
    #[inline(always)]
    fn from_place(place: u32) -> Self {
        Self([place, 0, 0, 0])
    }
    #[inline(always)]
    fn place(self) -> u32 {
        self.0[0]
    }
    #[inline(always)]
    fn is_martian(self) -> bool {
        // Multicast; unspecified and loopback.
        u32::from_be(self.0[0]) >> 24 == 0xff
            || (self.0[0] | self.0[1] | self.0[2]) == 0 && u32::from_be(self.0[3]) <= 1
    }
    fn to_ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

/// The two IP versions as types: the packet path is written once over this and compiled for each.
pub trait IpVersion: Copy + 'static {
    /// The address type.
    type Addr: Addr;
    /// True for IPv6.
    const IS_V6: bool;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub enum V4 {}
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub enum V6 {}

impl IpVersion for V4 {
    type Addr = Addr4;
    const IS_V6: bool = false;
}

impl IpVersion for V6 {
    type Addr = Addr6;
    const IS_V6: bool = true;
}

/// Layer-4 protocol number (IANA).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Proto(pub u8);

impl Proto {
    /// TCP, 6.
    pub const TCP: Self = Self(6);
    /// UDP, 17.
    pub const UDP: Self = Self(17);
}
