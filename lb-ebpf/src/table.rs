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
mod scratch;

use lb_common::{
    abi::{Addr, Flow, FlowKey, V4, V6},
    flow_state::Word,
    flow_table::{LANES, Place, lowest, place, rest, with_tag, without},
};

pub(crate) use self::scratch::put_own;
use self::scratch::put_twin;
pub use self::{
    insert::{claim, give_back, publish},
    scratch::{
        Pair, both, link, note_twin, placed_twin, put_key, scratch, visit_reply, visit_scratch, visit_twin,
    },
};
use crate::{
    atomic::{compare_exchange_u64, fetch_and_u64},
    maps::Tables,
    packet::opaque,
};

/// The scratch entry of a new flow's forward direction, and of searches.
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
    // SAFETY: the pointer comes from a search in this run. Volatile: other CPUs write meanwhile; a whole word is read.
    Word(unsafe { (&raw const (*flow).state).read_volatile() })
}

/// Is it still the flow that was found?
#[inline(always)]
pub fn same<A: Addr>(flow: Entry<A>) -> bool {
    state(flow.at).tag() == flow.seen.tag()
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
    // SAFETY: the pointer comes from a search in this run; the field is 8-byte aligned and only written atomically.
    match unsafe { compare_exchange_u64(&raw mut (*flow).state, old.0, new.0) } {
        seen if seen == old.0 => Ok(()),
        seen => Err(Word(seen)),
    }
}

#[inline(always)]
fn places<V: Tables>(key: &FlowKey<V::Addr>) -> Place {
    place(key, V::seed(), V::buckets())
}

/// Is this the key's entry? Every field is compared, so that there is one branch.
#[inline(always)]
fn is<A: Addr>(flow: *const Flow<A>, key: &FlowKey<A>) -> bool {
    // SAFETY: the pointer comes from a search in this run. A key that is being written is told by the state.
    unsafe {
        let ports = ((*flow).sport.0 ^ key.sport.0) | ((*flow).dport.0 ^ key.dport.0);
        let proto = (*flow).proto.0 ^ key.proto.0;
        (*flow).src.differs(key.src) | (*flow).dst.differs(key.dst) | ports as u32 | proto as u32 == 0
    }
}

/// Have two entries the same key?
#[inline(always)]
fn alike<A: Addr>(flow: *const Flow<A>, scratch: *const Flow<A>) -> bool {
    // SAFETY: one comes from a search in this run, the other is this CPU's own. A key that is being written is told by the state.
    unsafe {
        let ports = ((*flow).sport.0 ^ (*scratch).sport.0) | ((*flow).dport.0 ^ (*scratch).dport.0);
        let proto = (*flow).proto.0 ^ (*scratch).proto.0;
        (*flow).src.differs((*scratch).src)
            | (*flow).dst.differs((*scratch).dst)
            | ports as u32
            | proto as u32
            == 0
    }
}

#[inline(always)]
fn head<V: Tables>(bucket: u32) -> Option<*mut u64> {
    V::heads().get_ptr_mut(bucket)
}

#[inline(always)]
fn read(head: *mut u64) -> u64 {
    // SAFETY: a word of an array map, which lives as long as the map. Volatile: other CPUs write meanwhile.
    unsafe { head.read_volatile() }
}

/// An entry of a bucket. `None`: there is no such lane.
#[inline(always)]
fn lane<V: Tables>(bucket: u32, lane: usize) -> Option<*mut Flow<V::Addr>> {
    let lanes = V::flows().get_ptr_mut(bucket)?;
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
fn matching<V: Tables>(key: &FlowKey<V::Addr>, bucket: u32, number: usize) -> Option<Entry<V::Addr>> {
    let at = lane::<V>(bucket, number)?;
    let seen = state(at);
    // One flow's state on both sides of comparing, and not 0: see the module.
    if is(at, key) && seen.0 != 0 && state(at).tag() == seen.tag() { Some(Entry { at, seen }) } else { None }
}

/// The entry with this key. Written into its callers, which are those that every packet meets: what is usual is decided there,
/// the rest is left to [`visit`].
#[inline(always)]
pub fn find<V: Tables>(key: &FlowKey<V::Addr>) -> Option<Entry<V::Addr>> {
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
pub fn visit<V: Tables>(key: &FlowKey<V::Addr>) -> Option<Entry<V::Addr>> {
    put_key::<V>(key)?;
    visit_scratch::<V>()
}

/// The entry with this key, which lies there.
#[inline(always)]
pub fn entry<V: Tables>(key: &FlowKey<V::Addr>, place: u32) -> Option<Entry<V::Addr>> {
    matching::<V>(key, place >> 3, place as usize & 7)
}

/// Where the entry with a scratch entry's key lies; [`FORWARD`] only.
#[inline(always)]
pub fn locate_scratch<V: Tables>() -> u32 {
    V::locate()
}

/// Where the entry with the first scratch entry's key lies; [`NOWHERE`] if there is none.
#[inline(always)]
fn locate<V: Tables>() -> u32 {
    let Some(scratch) = scratch::<V>(FORWARD) else { return NOWHERE };
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    let place = places::<V>(&unsafe { (*scratch).key() });
    let found = locate_in::<V>(scratch, place.first, place.tag);
    if found == NOWHERE { locate_in::<V>(scratch, place.second, place.tag) } else { found }
}

#[inline(never)]
fn locate_in<V: Tables>(scratch: *const Flow<V::Addr>, bucket: u32, tag: u8) -> u32 {
    let Some(head) = head::<V>(bucket) else { return NOWHERE };
    let mut set = with_tag(read(head), tag);
    // Not unrolled, for the sake of the stack.
    for _ in 0..opaque(LANES) {
        if set == 0 {
            break;
        }
        let Some(flow) = lane::<V>(bucket, lowest(set)) else { break };
        if state(flow).0 != 0 && alike(flow, scratch) {
            return bucket << 3 | lowest(set) as u32;
        }
        set = rest(set);
    }
    NOWHERE
}

/// The lane at a place.
#[inline(always)]
fn at<V: Tables>(place: u32) -> Option<*mut Flow<V::Addr>> {
    lane::<V>(place >> 3, place as usize & 7)
}

/// Frees a lane. Fetching, so that it is a full barrier: what was written before is there when the next owner comes.
#[inline(always)]
fn free_lane(head: *mut u64, lane: usize) {
    // SAFETY: a word of an array map; all writers use atomics.
    unsafe { fetch_and_u64(head, without(lane)) };
}

/// Removes both entries of a flow, the reply's first, given the forward entry, whose owner the caller is, and a word of the flow's.
#[inline(always)]
pub fn remove<V: Tables>(forward: *const Flow<V::Addr>, word: Word) {
    // The reply entry is this flow's unless its tag says otherwise.
    if let Some(reply) = visit_twin::<V>(forward)
        && reply.seen.tag() == word.tag()
        && put_twin::<V>(forward).is_some()
    {
        V::remove();
    }
    if put_own::<V>(forward).is_some() {
        V::remove();
    }
}

/// Removes the entry with the scratch entry's key.
#[inline(always)]
fn remove_scratch<V: Tables>() {
    let found = locate::<V>();
    let (bucket, number) = (found >> 3, found as usize & 7);
    let (Some(head), Some(flow)) = (head::<V>(bucket), lane::<V>(bucket, number)) else { return };
    // SAFETY: a word of an array map. Volatile: other CPUs read meanwhile.
    unsafe { (&raw mut (*flow).state).write_volatile(0) };
    free_lane(head, number);
}

// Global functions for the kernel (Linux 5.6): nothing but numbers in and out and their names kept, so that the verifier looks
// at each once. As parts of their callers they would be verified anew for each way that leads there, which is beyond its
// limit. What they are about lies in the scratch entries.

/// [`claim`], IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_claim4(which: u32) -> u32 {
    insert::attempt::<V4>(which)
}

/// [`claim`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_claim6(which: u32) -> u32 {
    insert::attempt::<V6>(which)
}

/// [`remove`], IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_remove4() -> u32 {
    remove_scratch::<V4>();
    0
}

/// [`remove`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_remove6() -> u32 {
    remove_scratch::<V6>();
    0
}

/// [`visit`], IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_locate4() -> u32 {
    locate::<V4>()
}

/// [`visit`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_locate6() -> u32 {
    locate::<V6>()
}
