//! A limit of a service as a whole.

use super::{BlockId, limits};

/// Blocks of one service that are summed up at most: the longest chain, and half as many that wait for the last flows
/// of removed backends.
pub const LIMIT_BLOCKS: usize = limits::MAX_CHAIN as usize / 2 * 3;

/// Most active connections of a service, and where they are counted. 3,080 bytes. Written by the agent; replaced
/// whole (the map is not preallocated, so a reader keeps the old value until it is done).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceLimit {
    /// Most active connections of all its backends together; 0: no limit.
    pub most: u32,
    /// How many blocks follow.
    pub count: u32,
    /// All blocks that the service has, in no order: those of removed backends, too, since their connections count.
    pub blocks: [BlockId; LIMIT_BLOCKS],
}

impl ServiceLimit {
    /// Over these blocks; `None`: they are too many.
    pub fn new(most: u32, blocks: impl IntoIterator<Item = BlockId>) -> Option<Self> {
        let mut limit = Self { most, count: 0, blocks: [0; LIMIT_BLOCKS] };
        for block in blocks {
            *limit.blocks.get_mut(limit.count as usize)? = block;
            limit.count += 1;
        }
        Some(limit)
    }

    /// The blocks.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks[..LIMIT_BLOCKS.min(self.count as usize)]
    }
}
