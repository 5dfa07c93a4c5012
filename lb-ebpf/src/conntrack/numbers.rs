//! Whether a segment can be of its connection, by the numbers that its entries hold: see [`lb_common::window`].

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::Addr,
    expiry::idle,
    flow_state::{Phase, Segment, Word, flags, further},
    window::{Side, believable},
};

use crate::{
    family::global_functions,
    maps::{Maps, TICK_HZ},
    table::{self, Entry, exchange},
};

global_functions! {
    /// Judging segments, as a global function.
    pub trait Believe: Maps {
        /// Can a segment be of the flow whose entries lie there? `flags`: byte 13 of its header, and [`FROM_CLIENT`]. 0: it can't.
        fn believe(; forward: u32, reply: u32, flags: u32, seq: u32, ack: u32) = believe;
    }
}

/// Beside a segment's flags: the client sends it.
pub const FROM_CLIENT: u32 = 1 << 8;

/// See [`Believe`].
#[inline(always)]
fn believe<V: Maps>(forward: u32, reply: u32, about: u32, seq: u32, ack: u32) -> u32 {
    let Some(flow) = table::entry_at::<V>(forward) else { return 0 };
    let client = side(Some(flow), flow.seen, true);
    // Where replies go past the node there is no such entry, and nobody knows the backend's numbers.
    let backend = side(table::entry_at::<V>(reply), flow.seen, false);
    let segment = Segment { flags: about as u8, seq, ack, len: 0 };
    believable(flow.seen, about & FROM_CLIENT != 0, &segment, &client, &backend) as u32
}

/// What an entry holds of its sender's numbers. `word`: its flow's.
#[inline(always)]
fn side<A: Addr>(entry: Option<Entry<A>>, word: Word, client: bool) -> Side {
    let Some(entry) = entry else { return Side::default() };
    let flow = entry.at();
    // SAFETY: the pointer comes from a search in this run; whole words, which other CPUs may write meanwhile.
    unsafe { Side { number: (*flow).fin, finished: word.finished(client), bytes: (*flow).bytes } }
}

/// Notes from which numbers the two sides count, as a segment that can be of the connection says it.
///
/// Who counts from two of them, one after the other, while nobody has answered yet, is believed anything: a client may give up and begin
/// anew; and so is a backend until it is taken up, since SYN cookies change. Once there is an answer a SYN changes nothing: from where it
/// would count is noted beside, for the backend's answer.
#[inline(always)]
pub fn learn<A: Addr>(forward: Entry<A>, reply: Entry<A>, segment: &Segment, from_client: bool) {
    if segment.flags & flags::SYN == 0 || from_client != segment.opens() {
        return;
    }
    let answered = forward.seen.answered();
    let shaking = forward.seen.phase() == Phase::SYN_SENT;
    if from_client && (answered || !shaking) {
        offer(forward, segment);
        return;
    }
    if !shaking {
        return;
    }
    let from = if from_client { forward } else { reply };
    // SAFETY: the pointer comes from a search in this run; a whole word.
    unsafe {
        let number = &raw mut (*from.at()).fin;
        if !from_client && !answered {
            *number = segment.after_syn();
        } else if *number != segment.after_syn() {
            *number = 0;
        }
    }
}

/// A backend has acknowledged a segment of a connection of which nothing else is known: from now on both count from there.
/// `finished`: the client has said its FIN, whose number is known.
#[inline(always)]
pub fn confirmed<A: Addr>(forward: Entry<A>, reply: Entry<A>, segment: &Segment, finished: bool) {
    // SAFETY: the pointers come from searches in this run; whole words.
    unsafe {
        if !finished {
            (*forward.at()).fin = segment.ack;
        }
        if segment.flags & flags::FIN == 0 {
            (*reply.at()).fin = segment.seq;
        }
    }
}

/// Notes from where a client would count that says a SYN over its connection: in place of what it was answered last, which nobody asks for
/// while it wants another connection.
#[inline(always)]
fn offer<A: Addr>(forward: Entry<A>, segment: &Segment) {
    // SAFETY: the pointer comes from a search in this run; whole words.
    unsafe {
        // A late copy of the SYN that opened it offers nothing.
        if (*forward.at()).fin != segment.after_syn() {
            (*forward.at()).mark = further(0, segment.after_syn());
        }
    }
}

/// What a SYN may have with it (RFC 7413): a segment's data, of the longest frames.
const WITH_SYN: u32 = 1 << 14;

/// Is that an acknowledgement of the SYN that a client has said over its connection, if it has? Of one that is over it is not.
#[inline(always)]
pub fn is_offered<A: Addr>(forward: Entry<A>, number: u32) -> bool {
    let word = forward.seen;
    if !word.counted() || word.phase().is_unconfirmed() && !word.answered() {
        return false;
    }
    // SAFETY: the pointer comes from a search in this run; whole words.
    let (mark, own) = unsafe { ((*forward.at()).mark, (*forward.at()).fin) };
    mark != 0 && mark != own && number.wrapping_sub(mark) < WITH_SYN
}

/// The backend accepts what the client has begun anew: from now on both count from there.
#[inline(always)]
pub fn begin_anew<A: Addr>(forward: Entry<A>, reply: Entry<A>, segment: &Segment) {
    // The answer goes on after this: nobody says anything by these numbers before.
    if exchange(forward, forward.seen, forward.seen.begun_anew()).is_ok() {
        // SAFETY: the pointers come from searches in this run; whole words.
        unsafe {
            (*forward.at()).fin = (*forward.at()).mark;
            (*reply.at()).fin = segment.after_syn();
            (*reply.at()).mark = 0;
        }
    }
}

/// A client says the same SYN over its connection once more, and has heard nothing since the first time: the backend isn't there. One that
/// is answers at once, whatever it makes of it.
#[inline(always)]
pub fn is_deserted<A: Addr>(forward: Entry<A>, reply: Entry<A>, segment: &Segment) -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() } as u32;
    // SAFETY: the pointers come from searches in this run; whole words.
    let (mark, first, answered) =
        unsafe { ((*forward.at()).mark, (*forward.at()).last_seen, (*reply.at()).last_seen) };
    let since = idle(now, first);
    mark == segment.after_syn() && since >= TICK_HZ.load() / 4 * 3 && idle(now, answered) > since
}
