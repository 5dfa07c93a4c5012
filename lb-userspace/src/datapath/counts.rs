//! Counts of backends, a block of 16 to a value: read where they lie.

use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::MapData;
use lb_common::abi::{Active, BLOCK_SLOTS, BackendId, limits::MAX_BLOCKS};

use super::{DatapathError, batch, mapping::Mapping, pin::PinDir};

/// One map of them.
pub struct Counts(Source);

enum Source {
    Mapped(Mapping<Active>),
    /// A map that can't be mapped: one that an earlier build made.
    Asked(MapData, &'static str),
}

/// All of a map's counts, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct AllCounts(Vec<Active>);

impl AllCounts {
    /// A backend's.
    pub fn of(&self, id: BackendId) -> u32 {
        self.0.get(id.block() as usize).map_or(0, |block| block.count[id.slot()])
    }

    /// Those that are not 0.
    pub fn iter(&self) -> impl Iterator<Item = (BackendId, u32)> {
        (0..).zip(&self.0).flat_map(|(block, counts)| {
            let count = (0..).zip(counts.count).filter(|(_, count)| *count != 0);
            count.map(move |(slot, count)| (BackendId::new(block, slot), count))
        })
    }
}

impl FromIterator<(BackendId, u32)> for AllCounts {
    fn from_iter<I: IntoIterator<Item = (BackendId, u32)>>(counts: I) -> Self {
        let mut all = Vec::new();
        for (id, count) in counts {
            let block = id.block() as usize;
            if all.len() <= block {
                all.resize(block + 1, Active::default());
            }
            all[block].count[id.slot()] = count;
        }
        Self(all)
    }
}

impl Counts {
    /// By its pin.
    ///
    /// # Errors
    /// It is missing.
    pub fn open(pins: &PinDir, name: &'static str) -> Result<Self, DatapathError> {
        let data = pins.data(name)?;
        let mapped = Mapping::new(&data, name);
        Ok(Self(mapped.map_or_else(|_| Source::Asked(data, name), Source::Mapped)))
    }

    /// A backend's.
    pub fn of(&self, id: BackendId) -> u32 {
        match &self.0 {
            Source::Mapped(counts) if id.block() < counts.len() => load(counts, id.block(), id.slot()),
            Source::Mapped(_) => 0,
            Source::Asked(..) => {
                let mut found = 0;
                // A count that can't be read is shown as none; whoever reads them all is told why.
                let _ = self.read(id.block(), 1, |some| {
                    found = some.first().map_or(0, |block| block.count[id.slot()]);
                });
                found
            }
        }
    }

    /// All of the first so many blocks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn all(&self, blocks: u32) -> Result<AllCounts, DatapathError> {
        let blocks = blocks.min(MAX_BLOCKS);
        let mut all = Vec::with_capacity(blocks as usize);
        match &self.0 {
            Source::Mapped(counts) => all.extend((0..blocks.min(counts.len())).map(|block| {
                let mut copy = Active::default();
                (0..BLOCK_SLOTS).for_each(|slot| copy.count[slot] = load(counts, block, slot));
                copy
            })),
            Source::Asked(..) => self.read(0, blocks, |some| all.extend_from_slice(some))?,
        }
        Ok(AllCounts(all))
    }

    fn read(&self, from: u32, count: u32, visit: impl FnMut(&[Active])) -> Result<(), DatapathError> {
        let Source::Asked(map, name) = &self.0 else { return Ok(()) };
        batch::read(map, name, from, count, 1, visit)
    }
}

/// One count; packets change it meanwhile.
fn load(counts: &Mapping<Active>, block: u32, slot: usize) -> u32 {
    let at = counts.at(block);
    assert!(slot < BLOCK_SLOTS);
    // SAFETY: within the mapping and the array, aligned, and all writers use atomics.
    unsafe { AtomicU32::from_ptr((&raw mut (*at).count).cast::<u32>().add(slot)) }.load(Ordering::Relaxed)
}
