//! VIPs, for packets that belong to no flow and no service's port.

/// What an address is. Written by the agent only.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vip(pub u32);

impl Vip {
    /// A VIP that is also an address of the node: what is no service's there is the node's.
    pub const SHARED: Self = Self(1);
    /// A VIP and nothing else: what is no service's there is refused, so that it can't loop between us and a router.
    pub const OWNED: Self = Self(3);

    /// Is everything that is addressed to it ours?
    #[inline(always)]
    pub const fn is_owned(self) -> bool {
        self.0 == Self::OWNED.0
    }
}
