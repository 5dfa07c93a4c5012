//! Pools: the backends of a service, in blocks of 16 that are chained. A backend keeps its slot for life, so its count never
//! moves, and a change of the pool never disturbs the counting.

use super::List;

/// Backends in a block: a block of counts is one cache line.
pub const BLOCK_SLOTS: usize = 16;

/// Entry points of a pool that is too long to be walked whole, at even distances along its chain.
pub const STARTS: usize = 16;

/// Index of a block; 0 is never a block and ends a chain.
pub type BlockId = u32;

/// What the agent says of 16 backends. 184 bytes.
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
    /// 1: all eligible slots have the weight and the limit that follow. Then the least active is the best, and nothing else need be read.
    /// See [`PoolBlock::summed_up`].
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
    /// Eligible slots, a bit each, by [`List`].
    pub lists: [u16; List::COUNT],
    /// Affinity: 1: clients are bound at each port by itself.
    pub by_port: u32,
    /// Of the first block: how many entry points [`maps::STARTS`](super::maps::STARTS) has of a pool that is too long to be walked whole; else 0.
    pub starts: u32,
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
        lists: [0; List::COUNT],
        by_port: 0,
        starts: 0,
    };

    /// Puts a backend in a slot. `local`: it is one of this node's.
    pub const fn put(&mut self, slot: usize, weight: u32, limit: u32, v6: bool, local: bool) {
        (self.weight[slot], self.limit[slot]) = (weight, limit);
        let bit = 1 << slot;
        self.lists[List::new(v6, false).index()] |= bit;
        if local {
            self.lists[List::new(v6, true).index()] |= bit;
        }
    }

    /// Takes a slot off a list.
    pub const fn take_off(&mut self, slot: usize, list: List) {
        self.lists[list.index()] &= !(1 << slot);
    }

    /// The same block, with what its slots have in common, and lists of eligible slots only. Every block is written like this.
    pub fn summed_up(self) -> Self {
        let eligible = (0..BLOCK_SLOTS).filter(|slot| self.weight[*slot] != 0);
        let mask = eligible.clone().fold(0u16, |mask, slot| mask | 1 << slot);
        let lists = self.lists.map(|list| list & mask);
        let (weight, limit) =
            eligible.clone().next().map_or((0, 0), |slot| (self.weight[slot], self.limit[slot]));
        let even = eligible.clone().all(|slot| (self.weight[slot], self.limit[slot]) == (weight, limit));
        if weight == 0 || !even {
            return Self { even: 0, even_weight: 0, even_limit: 0, lists, ..self };
        }
        Self { even: 1, even_weight: weight, even_limit: limit, lists, ..self }
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
            block.put(*slot, *weight, *limit, false, slot % 2 == 1);
        }
        block.summed_up()
    }

    #[test]
    fn even_means_that_all_that_are_eligible_are_alike() {
        for (slots, wanted, all, local) in [
            (vec![], (0, 0, 0), 0, 0),
            (vec![(0, 3, 7)], (1, 3, 7), 1, 0),
            (vec![(0, 3, 7), (1, 3, 7)], (1, 3, 7), 3, 2),
            (vec![(0, 3, 7), (1, 0, 9)], (1, 3, 7), 1, 0),
            (vec![(0, 3, 7), (1, 2, 7)], (0, 0, 0), 3, 2),
            (vec![(0, 3, 7), (1, 3, 8)], (0, 0, 0), 3, 2),
            (vec![(0, 3, 7), (2, 3, 7)], (1, 3, 7), 5, 0),
            (vec![(1, 0, 7)], (0, 0, 0), 0, 0),
            ((0..16).map(|slot| (slot, 1, u32::MAX)).collect(), (1, 1, u32::MAX), 0xffff, 0xaaaa),
        ] {
            let block = block(&slots);
            assert_eq!((block.even, block.even_weight, block.even_limit), wanted, "{slots:?}");
            assert_eq!(block.lists, [all, 0, local, 0], "{slots:?}");
        }
    }
}
