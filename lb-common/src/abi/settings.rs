//! What the pinned maps were made for, so that an agent checks before it trusts them.

/// One record, at index 0. Written once, when the maps are made.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// [`MARK`], once all maps are there.
    pub layout: u64,
    /// `conntrack.max_flows` at that time.
    pub max_flows: u32,
    /// Low half of the seed of the flow tables' hash.
    pub seed: u32,
    /// `conntrack.max_clients` at that time.
    pub max_clients: u32,
    /// High half of the seed.
    pub seed_high: u32,
}

impl Settings {
    /// The seed of the flow tables' hash.
    pub const fn seed(&self) -> u64 {
        (self.seed_high as u64) << 32 | self.seed as u64
    }
}

/// Says that the maps are whole, and that what lies in them is described beside them ([`LAYOUTS`](super::maps::LAYOUTS)).
pub const MARK: u64 = u64::from_be_bytes(*b"flowpin2");
