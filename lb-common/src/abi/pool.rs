//! Pools: the backends of a service, in blocks of 16 that are chained. A backend keeps its slot for life, so its count never
//! moves, and a change of the pool never disturbs the counting.

/// Backends in a block: a block of counts is one cache line.
pub const BLOCK_SLOTS: usize = 16;

/// Index of a block; 0 is never a block and ends a chain.
pub type BlockId = u32;

/// What the agent says of 16 backends. 144 bytes.
///
/// Written whole by the agent while the datapath reads. A reader may see one slot's new weight beside another's old one:
/// the worst outcome is one choice under weights that were in force a moment ago. Where a backend is lies in
/// [`Backend`](super::Backend), written before its weight here stops being 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolBlock {
    /// Weight in force, 0: takes no new flow (free slot, draining, unhealthy, removed).
    pub weight: [u32; BLOCK_SLOTS],
    /// Most active connections; `u32::MAX`: no limit.
    pub limit: [u32; BLOCK_SLOTS],
    /// The next block of the pool; 0: none.
    pub next: BlockId,
    /// Whose block this is; `u32::MAX`: free.
    pub service: super::ServiceId,
    /// Zero.
    pub _pad: [u32; 2],
}

impl PoolBlock {
    /// A block nobody uses.
    pub const FREE: Self = Self {
        weight: [0; BLOCK_SLOTS],
        limit: [u32::MAX; BLOCK_SLOTS],
        next: 0,
        service: u32::MAX,
        _pad: [0; 2],
    };
}

/// Active connections of the 16 backends of a block: one cache line. Only the datapath writes, with atomic adds: plus one by
/// whoever pins, minus one by whoever moves the flow's state to closed or gone.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Active {
    /// Pins that count, by slot.
    pub count: [u32; BLOCK_SLOTS],
}
