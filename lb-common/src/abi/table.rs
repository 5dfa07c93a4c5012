//! A Maglev table as a map value: an array of chunks. Word 0 of chunk 0 is the number of slots; slot `i` is word `i + 1`. The
//! inner map is built aside and swapped in whole, so a reader sees the old table or the new one.

use super::{List, ServiceId};

/// Words in a chunk.
pub const CHUNK_WORDS: usize = 512;

/// Where the table of a service's list lies in the outer map.
#[inline(always)]
pub const fn index(service: ServiceId, list: List) -> u32 {
    service * List::COUNT as u32 + list.0
}

/// 2 KiB of a table. Each slot holds a [`BackendId`](super::BackendId).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk(pub [u32; CHUNK_WORDS]);

/// Slots in the largest table: 8,192 backends at 100 slots, up to the next prime, and some.
pub const MAX_SLOTS: u32 = 830_000;

/// Chunks that hold `slots` slots and the length word.
pub const fn chunks(slots: u32) -> u32 {
    (slots + 1).div_ceil(CHUNK_WORDS as u32)
}
