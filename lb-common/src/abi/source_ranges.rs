//! Who may open flows of a service that isn't everybody's.

use super::ServiceId;

/// A client, as data of a key of the tries (`struct bpf_lpm_trie_key_u8` in include/uapi/linux/bpf.h without its length), or a prefix of a
/// service's clients. 8 bytes for IPv4, 20 for IPv6. Written by the agent only; what is found under it says nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Client<A> {
    /// Whose. All its bits count always.
    pub service: ServiceId,
    /// The address; of a prefix the first.
    pub addr: A,
}

impl<A> Client<A> {
    /// Length of a key of which so many bits are of the address.
    #[inline(always)]
    pub const fn bits(of_address: u32) -> u32 {
        u32::BITS + of_address
    }

    /// Length of the key of a client: all bits.
    pub const WHOLE: u32 = size_of::<Self>() as u32 * 8;
}

/// Whether a service asks who its clients are.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceRanges(pub u8);

impl SourceRanges {
    /// Everybody may.
    pub const OPEN: Self = Self(0);
    /// Who is in the trie.
    pub const LISTED: Self = Self(1);
    /// Likewise, and an address of the node's is in it: its own processes may, who have no address yet when they are asked for it.
    pub const LISTED_AND_NODE: Self = Self(2);
}
