//! The flow table's moving parts: find, claim and publish, remove, each on entries under a key. Layout and arithmetic: `lb_common::flow_table`.
//!
//! **Who may write what.** A lane belongs to whoever swapped its tag into the bucket's head, until the tag is taken out again by
//! whoever removes the entry (there is one, see `lb_common::flow_state`). The entry's state is 0 until everything else is
//! written, and again before the lane is given back: a reader takes an entry only if its state was there, and of one flow, on
//! both sides of comparing the key.
//!
//! **One entry a key** (`insert`). Whoever inserts has looked at both heads and swaps in the one it saw, or starts over: a head's version
//! tells two visits apart. Two CPUs that insert the same key in its two buckets at the same instant both look at the other
//! bucket after their own claim, which is a full barrier: at least one sees the other and takes its claim back.

mod insert;
#[cfg(not(test))]
mod memory;
#[cfg(test)]
mod model;

use lb_common::{
    abi::{Addr, Flow, FlowKey},
    flow_state::Word,
    flow_table::{LANES, Place, lowest, place, rest, with_tag, without},
};

use self::memory::{entries, head, others_may_go_first, shape};
#[cfg(test)]
use self::model::memory;
pub use self::{
    insert::{Claim, claim, give_back, publish},
    memory::scratch,
};
use crate::{
    atomic::{compare_exchange_u64, fetch_and_u64},
    family::global_functions,
    maps::Maps,
    packet::{copy, opaque},
};

/// The scratch entry of a new flow's forward direction.
pub const FORWARD: u32 = 0;
/// The scratch entry of a new flow's replies.
pub const REPLY: u32 = 1;

// Where an entry lies, as a number: `bucket << 3 | lane`. From here on up, why it lies nowhere.

/// Nowhere.
pub const NOWHERE: u32 = 1 << 31;
/// There is one with this key already.
pub const EXISTS: u32 = NOWHERE + 1;
/// Both buckets are full.
pub const FULL: u32 = NOWHERE + 2;
/// Others come and go there all the time.
pub const BUSY: u32 = NOWHERE + 3;

/// An entry of a flow table, found in this run of the program. Its memory stays readable for as long as the map lives, but may
/// be given to another flow at any time: what is read of it holds only if the state still [bears the same tag](same).
pub struct Entry<A: Addr> {
    at: *mut Flow<A>,
    /// Where that is, as a number.
    pub place: u32,
    /// Its state when it was found, not 0.
    pub seen: Word,
}

impl<A: Addr> Clone for Entry<A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<A: Addr> Copy for Entry<A> {}

impl<A: Addr> Entry<A> {
    /// Where it lies.
    #[inline(always)]
    pub const fn at(self) -> *mut Flow<A> {
        self.at
    }
}

/// The state of an entry as it is now.
#[inline(always)]
fn state<A: Addr>(flow: *const Flow<A>) -> Word {
    others_may_go_first();
    // SAFETY: the pointer comes from a search in this run. Volatile: other CPUs write meanwhile; a whole word is read.
    Word(unsafe { (&raw const (*flow).state).read_volatile() })
}

/// Is it still the flow that was found?
#[inline(always)]
pub fn same<A: Addr>(flow: Entry<A>) -> bool {
    tagged(flow.at, flow.seen)
}

/// Does the lane hold an entry of the flow that a word is of?
#[inline(always)]
pub fn tagged<A: Addr>(flow: *const Flow<A>, word: Word) -> bool {
    state(flow).tag() == word.tag()
}

/// Moves the state from `old` to `new`. `Err`: somebody else moved it, to this.
#[inline(always)]
pub fn exchange<A: Addr>(flow: Entry<A>, old: Word, new: Word) -> Result<(), Word> {
    swap(flow.at, old, new)
}

#[inline(always)]
fn swap<A: Addr>(flow: *mut Flow<A>, old: Word, new: Word) -> Result<(), Word> {
    others_may_go_first();
    // SAFETY: the pointer comes from a search in this run; the field is 8-byte aligned and only written atomically.
    match unsafe { compare_exchange_u64(&raw mut (*flow).state, old.0, new.0) } {
        seen if seen == old.0 => Ok(()),
        seen => Err(Word(seen)),
    }
}

/// Where a key belongs.
#[inline(always)]
pub fn places<V: Maps>(key: &FlowKey<V::Addr>) -> Place {
    let (seed, buckets) = shape();
    place(key, seed, buckets)
}

/// Is this the key's entry? Every field is compared, so that there is one branch.
#[inline(always)]
fn is<A: Addr>(flow: *const Flow<A>, key: &FlowKey<A>) -> bool {
    others_may_go_first();
    // SAFETY: the pointer comes from a search in this run. A key that is being written is told by the state.
    unsafe {
        let ports = ((*flow).sport.0 ^ key.sport.0) | ((*flow).dport.0 ^ key.dport.0);
        let proto = (*flow).proto.0 ^ key.proto.0;
        (*flow).src.differs(key.src) | (*flow).dst.differs(key.dst) | ports as u32 | proto as u32 == 0
    }
}

/// The same key, about which the optimiser knows nothing: it would keep all its words on the stack for a loop to compare with.
#[inline(always)]
fn afresh<A>(key: &FlowKey<A>) -> &FlowKey<A> {
    // SAFETY: the same reference.
    unsafe { &*(opaque((&raw const *key).addr()) as *const FlowKey<A>) }
}

#[inline(always)]
fn read(head: *mut u64) -> u64 {
    others_may_go_first();
    // SAFETY: a word of an array map, which lives as long as the map. Volatile: other CPUs write meanwhile.
    unsafe { head.read_volatile() }
}

/// A bucket's head as it is now. `None`: there is no such bucket.
#[inline(always)]
pub fn head_of<V: Maps>(bucket: u32) -> Option<u64> {
    head::<V>(bucket).map(read)
}

/// An entry of a bucket. `None`: there is no such lane.
#[inline(always)]
fn lane<V: Maps>(bucket: u32, lane: usize) -> Option<*mut Flow<V::Addr>> {
    let lanes = entries::<V>(bucket)?;
    // One value, checked and used as it is, so that the verifier sees the bound where it matters.
    let lane = opaque(lane);
    if lane >= LANES {
        return None;
    }
    // SAFETY: the lane is within the bucket; array maps' values live as long as the map.
    Some(unsafe { lanes.cast::<Flow<V::Addr>>().add(lane) })
}

/// This lane's entry, if it is the key's.
#[inline(always)]
fn matching<V: Maps>(key: &FlowKey<V::Addr>, bucket: u32, number: usize) -> Option<Entry<V::Addr>> {
    let at = lane::<V>(bucket, number)?;
    let seen = state(at);
    // One flow's state on both sides of comparing, and not 0: see the module.
    if is(at, key) && seen.0 != 0 && state(at).tag() == seen.tag() {
        Some(Entry { at, place: bucket << 3 | number as u32, seen })
    } else {
        None
    }
}

/// The entry with this key. Written into its callers, which are those that every packet meets: what is usual is decided there,
/// the rest is left to [`visit`].
#[inline(always)]
pub fn find<V: Locate>(key: &FlowKey<V::Addr>) -> Option<Entry<V::Addr>> {
    let place = places::<V>(key);
    let (mut bucket, mut set) = (place.first, with_tag(read(head::<V>(place.first)?), place.tag));
    if set == 0 {
        (bucket, set) = (place.second, with_tag(read(head::<V>(place.second)?), place.tag));
        if set == 0 {
            return None;
        }
    }
    match matching::<V>(key, bucket, lowest(set)) {
        Some(flow) => Some(flow),
        None => visit::<V>(key),
    }
}

/// The same for those who visit another entry than the packet's own: a call.
#[inline(always)]
pub fn visit<V: Locate>(key: &FlowKey<V::Addr>) -> Option<Entry<V::Addr>> {
    entry::<V>(key, V::locate((&raw const *key).cast_mut()))
}

/// The entry with this key, which lies there.
#[inline(always)]
pub fn entry<V: Maps>(key: &FlowKey<V::Addr>, place: u32) -> Option<Entry<V::Addr>> {
    matching::<V>(key, place >> 3, place as usize & 7)
}

global_functions! {
    /// Searching, as a global function.
    pub trait Locate: Maps {
        /// Where the entry with this key lies; [`NOWHERE`] if there is none.
        fn locate(key: FlowKey;) = locate;
    }
}

#[inline(always)]
fn locate<V: Maps>(key: *mut FlowKey<V::Addr>) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(key) = (unsafe { key.as_ref() }) else { return NOWHERE };
    let place = places::<V>(key);
    let mut bucket = place.first;
    // Not unrolled, for the sake of the stack.
    for _ in 0..opaque(2) {
        let found = locate_in::<V>(key, bucket, place.tag);
        if found != NOWHERE {
            return found;
        }
        bucket = place.second;
    }
    NOWHERE
}

#[inline(always)]
fn locate_in<V: Maps>(key: &FlowKey<V::Addr>, bucket: u32, tag: u8) -> u32 {
    let Some(head) = head::<V>(bucket) else { return NOWHERE };
    let mut set = with_tag(read(head), tag);
    // Not unrolled, for the sake of the stack.
    for _ in 0..opaque(LANES) {
        if set == 0 {
            break;
        }
        let Some(flow) = lane::<V>(bucket, lowest(set)) else { break };
        if state(flow).0 != 0 && is(flow, afresh(key)) {
            return bucket << 3 | lowest(set) as u32;
        }
        set = rest(set);
    }
    NOWHERE
}

/// The lane at a place.
#[inline(always)]
fn at<V: Maps>(place: u32) -> Option<*mut Flow<V::Addr>> {
    lane::<V>(place >> 3, place as usize & 7)
}

/// Frees a lane. Fetching, so that it is a full barrier: what was written before is there when the next owner comes.
#[inline(always)]
fn free_lane(head: *mut u64, lane: usize) {
    others_may_go_first();
    // SAFETY: a word of an array map; all writers use atomics.
    unsafe { fetch_and_u64(head, without(lane)) };
}

/// Writes the key of the other direction's entry, given an entry that was found in this run. False: it isn't the same flow's any more.
#[inline(always)]
fn twin_key<V: Maps>(flow: *const Flow<V::Addr>, key: &mut FlowKey<V::Addr>) -> bool {
    // SAFETY: the pointer comes from a search in this run.
    unsafe {
        if (*flow).direction.is_full() {
            let Some(twin) = placed::<V>(flow) else { return false };
            copy(&raw mut key.src, &raw const (*twin).src);
            copy(&raw mut key.dst, &raw const (*twin).dst);
            (key.sport, key.dport, key.proto) = ((*twin).sport, (*twin).dport, (*twin).proto);
            return true;
        }
        let forward = (*flow).direction.is_forward();
        // As `FlowKey::twin`: the reply comes from where the forward packet goes, and goes to where it comes from.
        key.src = if forward { (*flow).nat_addr } else { (*flow).dst };
        key.dst = if forward { (*flow).src } else { (*flow).nat_addr };
        key.sport = if forward { (*flow).nat_port } else { (*flow).dport };
        key.dport = if forward { (*flow).sport } else { (*flow).nat_port };
        key.proto = (*flow).proto;
    }
    true
}

/// The other direction's entry, given a full one that was found in this run, by where it lies. Whether it is (still) the same flow's says its tag.
#[inline(always)]
fn placed<V: Maps>(flow: *const Flow<V::Addr>) -> Option<*mut Flow<V::Addr>> {
    // SAFETY: the pointer comes from a search in this run.
    let twin = at::<V>(unsafe { (*flow).nat_addr }.place())?;
    if state(twin).tag() == state(flow).tag() { Some(twin) } else { None }
}

/// The other direction's entry, given a full one.
#[inline(always)]
pub fn placed_twin<V: Maps>(flow: Entry<V::Addr>) -> Option<*mut Flow<V::Addr>> {
    placed::<V>(flow.at)
}

/// The other direction's entry, given one that was found in this run. `spare`: room for its key, since the stack has none.
#[inline(always)]
pub fn visit_twin<V: Locate>(
    flow: *const Flow<V::Addr>,
    spare: &mut FlowKey<V::Addr>,
) -> Option<Entry<V::Addr>> {
    if !twin_key::<V>(flow, spare) {
        return None;
    }
    visit::<V>(spare)
}

/// The entry at a place, whosever it is.
#[inline(always)]
pub fn entry_at<V: Maps>(place: u32) -> Option<Entry<V::Addr>> {
    let at = at::<V>(place)?;
    let seen = state(at);
    if seen.0 != 0 { Some(Entry { at, place, seen }) } else { None }
}

/// The entry at a place, if it is of the flow that a word is of.
#[inline(always)]
pub fn entry_of<V: Maps>(place: u32, word: Word) -> Option<Entry<V::Addr>> {
    let at = at::<V>(place)?;
    let seen = state(at);
    if seen.tag() == word.tag() { Some(Entry { at, place, seen }) } else { None }
}

/// Takes an entry out that lies there, and that the caller owns.
#[inline(always)]
pub fn take_out<V: Maps>(place: u32) {
    let (bucket, number) = (place >> 3, place as usize & 7);
    let (Some(head), Some(flow)) = (head::<V>(bucket), lane::<V>(bucket, number)) else { return };
    others_may_go_first();
    // SAFETY: a word of an array map. Volatile: other CPUs read meanwhile.
    unsafe { (&raw mut (*flow).state).write_volatile(0) };
    free_lane(head, number);
}
