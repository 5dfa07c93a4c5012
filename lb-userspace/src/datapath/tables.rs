//! Tables of backends: built aside, on all CPUs, and swapped in whole, many at a time. Whoever puts a map into a map waits until no
//! program uses the one that was there, which takes milliseconds: so that is done once for many.

use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZero,
    os::fd::{AsFd, AsRawFd},
    thread,
};

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use lb_common::{
    abi::{BackendId, List, ServiceId, maps, table},
    hash, maglev, turns,
};

use super::{DatapathError, raw};
use crate::reconcile::TableSpec;

type Inner = Array<MapData, table::Chunk>;

/// `BPF_F_INNER_MAP`: arrays of different lengths in one outer map.
const INNER_MAP: u32 = 0x1000;
/// Tables swapped in together. Each is a descriptor until then.
pub const BATCH: usize = 256;

/// A table to be: of which service and list, and what is in it.
pub type Wanted<'a> = (ServiceId, List, &'a TableSpec);

/// The outer map.
pub struct Tables {
    outer: ArrayOfMaps<MapData, Inner>,
    /// Once more: aya keeps the first one's descriptor to itself.
    data: MapData,
}

impl Tables {
    /// Over the outer map, twice.
    pub fn over(outer: ArrayOfMaps<MapData, Inner>, data: MapData) -> Self {
        Self { outer, data }
    }

    /// The backend in the slot that a hash leads to.
    pub fn slot(&self, service: ServiceId, list: List, flow_hash: u32) -> Option<BackendId> {
        let inner = self.outer.get(&table::index(service, list), 0).ok()?;
        let slots = inner.get(&0, 0).ok()?.0[0];
        let word = hash::reduce(flow_hash, slots) + 1;
        let chunk = inner.get(&(word / table::CHUNK_WORDS as u32), 0).ok()?;
        Some(BackendId(chunk.0[word as usize % table::CHUNK_WORDS])).filter(|_| slots > 0)
    }

    /// Builds and publishes the tables of these services, [`BATCH`] at most. How it went, for each of them; a table
    /// that the kernel refused leaves the one before in force.
    pub fn publish(&mut self, wanted: &[Wanted<'_>]) -> Vec<Result<(), DatapathError>> {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let share = wanted.len().div_ceil(cpus).max(1);
        let built: Vec<Result<MapData, DatapathError>> = thread::scope(|scope| {
            let parts: Vec<_> = wanted
                .chunks(share)
                .map(|part| scope.spawn(|| part.iter().map(|(.., table)| build(table)).collect::<Vec<_>>()))
                .collect();
            let joined = parts
                .into_iter()
                .map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.flatten().collect()
        });
        let all: Vec<(u32, &MapData)> = wanted
            .iter()
            .zip(&built)
            .filter_map(|((service, list, _), map)| Some((table::index(*service, *list), map.as_ref().ok()?)))
            .collect();
        if all.len() > 1 && all.len() == wanted.len() && self.swap(&all) {
            return wanted.iter().map(|_| Ok(())).collect();
        }
        // One, or a kernel that can't do many (before 5.19), or one was refused: then it says which.
        let each = wanted
            .iter()
            .zip(built)
            .map(|((service, list, _), inner)| set(&mut self.outer, table::index(*service, *list), inner?));
        each.collect()
    }

    /// Puts them all into the outer map. False: the kernel doesn't, or not all of them.
    fn swap(&self, built: &[(u32, &MapData)]) -> bool {
        let keys: Vec<u32> = built.iter().map(|(index, _)| *index).collect();
        let values: Vec<libc::c_int> =
            built.iter().map(|(_, inner)| inner.fd().as_fd().as_raw_fd()).collect();
        raw::update_batch(self.data.fd().as_fd(), &keys, &values).is_ok_and(|done| done == built.len())
    }
}

/// Puts one table into the outer map.
fn set(outer: &mut ArrayOfMaps<MapData, Inner>, index: u32, inner: MapData) -> Result<(), DatapathError> {
    let inner: Inner = Map::Array(inner).try_into().map_err(failed())?;
    outer.set(index, &inner, 0).map_err(failed())
}

/// Does this kernel take tables? Tried with one, in an outer map that no packet sees.
///
/// # Errors
/// It refuses.
pub(super) fn try_one(outer: Map) -> Result<(), DatapathError> {
    let mut outer: ArrayOfMaps<MapData, Inner> = outer.try_into().map_err(failed())?;
    let members = vec![("10.0.0.1".to_string(), BackendId::new(1, 0), 1)];
    set(&mut outer, 0, build(&TableSpec { in_turn: false, members })?)
}

/// A table for turns. It begins anywhere: else the first connections of all nodes would go to the same backends.
fn in_turn(members: &[maglev::Member<'_>]) -> Vec<u32> {
    let mut slots = turns::build(members);
    let anywhere = RandomState::new().hash_one(0u8);
    if let Some(first) = anywhere.checked_rem(slots.len() as u64) {
        slots.rotate_left(first as usize);
    }
    slots
}

/// Builds one table.
fn build(table: &TableSpec) -> Result<MapData, DatapathError> {
    let members: Vec<_> = table
        .members
        .iter()
        .map(|(name, id, weight)| maglev::Member { name, id: id.0, weight: *weight })
        .collect();
    let slots = if table.in_turn { in_turn(&members) } else { maglev::build(&members) };
    let count = u32::try_from(slots.len()).unwrap_or(0);
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<table::Chunk>() as u32,
        table::chunks(count),
        INNER_MAP,
    );
    let mut map = Map::Array(MapData::create(shape, "maglev", None).map_err(failed())?);
    let mut inner: Array<&mut MapData, table::Chunk> = (&mut map).try_into().map_err(failed())?;
    let words: Vec<u32> = std::iter::once(count).chain(slots).collect();
    for (index, part) in (0..).zip(words.chunks(table::CHUNK_WORDS)) {
        let mut chunk = table::Chunk([0; table::CHUNK_WORDS]);
        chunk.0[..part.len()].copy_from_slice(part);
        inner.set(index, chunk, 0).map_err(failed())?;
    }
    match map {
        Map::Array(data) => Ok(data),
        _ => Err(failed()(aya::maps::MapError::InvalidMapType { map_type: BPF_MAP_TYPE_ARRAY as u32 })),
    }
}

fn failed() -> impl FnOnce(aya::maps::MapError) -> DatapathError {
    DatapathError::kernel(maps::TABLES)
}
