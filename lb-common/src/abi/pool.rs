//! Pools: the backends of a service, in blocks of 16 that are chained. A backend keeps its slot for life, so its count never
//! moves, and a change of the pool never disturbs the counting.

/// Backends in a block: a block of counts is one cache line.
pub const BLOCK_SLOTS: usize = 16;

/// Index of a block; 0 is never a block and ends a chain.
pub type BlockId = u32;

/// What the agent says of 16 backends. 168 bytes.
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
    /// How many of the first slots are eligible, all with the weight and the limit that follow, while the others are not; 0: it
    /// isn't so. Then the least active is the best, and nothing else need be read. See [`PoolBlock::summed_up`].
    pub even: u32,
    /// Their weight.
    pub even_weight: u32,
    /// Their limit.
    pub even_limit: u32,
    /// Affinity: how many bits of an IPv6 client's address count.
    pub client_bits: u32,
    /// Affinity: the service's group; 0: it has no affinity. The same in all blocks of a pool, as what follows.
    pub group: u64,
    /// Affinity: milliseconds that a client is remembered after its last flow.
    pub remember: u32,
    /// Affinity: open flows of one client beyond which further ones go where any flow would; `u32::MAX`: no bound.
    pub bound: u32,
}

impl PoolBlock {
    /// A block nobody uses.
    pub const FREE: Self = Self {
        weight: [0; BLOCK_SLOTS],
        limit: [u32::MAX; BLOCK_SLOTS],
        next: 0,
        service: u32::MAX,
        even: 0,
        even_weight: 0,
        even_limit: 0,
        client_bits: 128,
        group: 0,
        remember: 0,
        bound: u32::MAX,
    };

    /// The same block, with what its slots have in common. Every block is written like this.
    pub fn summed_up(self) -> Self {
        let eligible = self.weight.iter().take_while(|weight| **weight != 0).count();
        let (weight, limit) = (self.weight[0], self.limit[0]);
        let even = (0..BLOCK_SLOTS).all(|slot| {
            if slot < eligible {
                self.weight[slot] == weight && self.limit[slot] == limit
            } else {
                self.weight[slot] == 0
            }
        });
        if eligible == 0 || !even {
            return Self { even: 0, even_weight: 0, even_limit: 0, ..self };
        }
        Self { even: eligible as u32, even_weight: weight, even_limit: limit, ..self }
    }
}

/// Active connections of the 16 backends of a block: one cache line. Only the datapath writes, with atomic adds: plus one by
/// whoever pins, minus one by whoever moves the flow's state to closed or gone.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Active {
    /// Pins that count, by slot.
    pub count: [u32; BLOCK_SLOTS],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(slots: &[(usize, u32, u32)]) -> PoolBlock {
        let mut block = PoolBlock::FREE;
        for (slot, weight, limit) in slots {
            (block.weight[*slot], block.limit[*slot]) = (*weight, *limit);
        }
        block.summed_up()
    }

    #[test]
    fn even_means_that_all_the_first_are_alike_and_the_others_are_out() {
        for (slots, wanted) in [
            (vec![], (0, 0, 0)),
            (vec![(0, 3, 7)], (1, 3, 7)),
            (vec![(0, 3, 7), (1, 3, 7)], (2, 3, 7)),
            (vec![(0, 3, 7), (1, 2, 7)], (0, 0, 0)),
            (vec![(0, 3, 7), (1, 3, 8)], (0, 0, 0)),
            (vec![(0, 3, 7), (2, 3, 7)], (0, 0, 0)),
            (vec![(1, 3, 7)], (0, 0, 0)),
            ((0..16).map(|slot| (slot, 1, u32::MAX)).collect(), (16, 1, u32::MAX)),
        ] {
            let block = block(&slots);
            assert_eq!((block.even, block.even_weight, block.even_limit), wanted, "{slots:?}");
        }
    }
}
