//! Whose frames are this node's.

/// A MAC address as a number, its six bytes in memory order; the other two are zero.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mac(pub u64);

impl Mac {
    /// Nobody's. In the map it says that all addresses of the node are there.
    pub const COMPLETE: Self = Self(0);

    /// Of its first four bytes and the other two, as they lie in memory.
    #[inline(always)]
    pub const fn from_parts(first: u32, rest: u16) -> Self {
        if cfg!(target_endian = "little") {
            Self(first as u64 | (rest as u64) << 32)
        } else {
            Self((first as u64) << 32 | (rest as u64) << 16)
        }
    }
    /// Of its bytes.
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self::from_parts(u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_places() {
        assert_eq!(Mac::new([2, 0, 0, 0x5e, 1, 0x33]).0.to_ne_bytes(), [2, 0, 0, 0x5e, 1, 0x33, 0, 0]);
    }
}
