//! Interfaces, as far as packets have to know what they are.

/// What is known of an interface. Of one that isn't there nothing is. Written by the agent only.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interface(pub u32);

impl Interface {
    /// A bit: its other end takes packets directly (`fast = "peer"`).
    const PEER: u32 = 1;
    /// A bit: what comes in by it comes from a pod of this node.
    const POD: u32 = 2;

    /// With these.
    pub const fn new(peer: bool, pod: bool) -> Self {
        Self(if peer { Self::PEER } else { 0 } | if pod { Self::POD } else { 0 })
    }
    /// Does its other end take packets directly?
    #[inline(always)]
    pub const fn is_peer(self) -> bool {
        self.0 & Self::PEER != 0
    }
    /// Does what comes in by it come from a pod of this node?
    #[inline(always)]
    pub const fn is_pod(self) -> bool {
        self.0 & Self::POD != 0
    }
}
