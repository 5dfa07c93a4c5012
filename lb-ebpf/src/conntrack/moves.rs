//! Moving a connection's state on, as its segments say.

use lb_common::{
    abi::{Addr, What},
    flow_state::{Phase, Segment, flags, next, next_one_sided},
};

use super::{
    Ending, MOVES, Tracked, ended,
    numbers::{FROM_CLIENT, begin_anew, confirmed, is_offered, learn},
};
use crate::{
    account::{self, Sign},
    table::{self, Entry, exchange},
};

/// Moves a forward entry's state on. True if the connection has just begun to close.
#[inline(always)]
pub fn advance<V: Tracked>(
    forward: Entry<V::Addr>,
    reply: Entry<V::Addr>,
    segment: &Segment,
    from_client: bool,
    ending: &mut Ending,
) -> bool {
    let about = segment.flags as u32 | if from_client { FROM_CLIENT } else { 0 };
    // The backend has answered a SYN over its connection, which it doesn't know any more.
    let answered = !from_client
        && segment.flags & flags::ACK != 0
        && segment.flags & (flags::SYN | flags::RST) != 0
        && is_offered(forward, segment.ack);
    if answered && segment.flags & flags::RST == 0 {
        begin_anew(forward, reply, segment);
        return false;
    }
    if !answered && V::believe(forward.place, reply.place, about, segment.seq, segment.ack) == 0 {
        return false;
    }
    learn(forward, reply, segment, from_client);
    let fin = segment.flags & flags::FIN != 0;
    let mut old = forward.seen;
    for _ in 0..MOVES {
        // SAFETY: the pointers come from searches in this run; whole words.
        let (mut client, mut backend) = unsafe { ((*forward.at()).fin, (*reply.at()).fin) };
        if fin {
            *(if from_client { &mut client } else { &mut backend }) = segment.end();
        }
        let new = next(old, from_client, segment, client, backend);
        if fin && new.finished(from_client) {
            let from = if from_client { forward } else { reply };
            // Written before the state says that it is valid. Two FINs of one side carry the same number, or the later one counts.
            // SAFETY: as above.
            unsafe { (*from.at()).fin = segment.end() };
        }
        if new == old {
            return false;
        }
        let confirms = old.phase() == Phase::PROVISIONAL && new.counted() && !from_client;
        if confirms && new.phase() == Phase::ESTABLISHED {
            // Before the state says so: who begins to close then wants them tracked again.
            follow(reply, false);
        }
        match exchange(forward, old, new) {
            Ok(()) => {
                if confirms {
                    confirmed(forward, reply, segment, new.finished(true));
                }
                let reset = segment.flags & flags::RST != 0;
                // Who has accepted and resets then has been told something that the client never said.
                let refused = reset && !old.answered();
                if old.phase() == Phase::SYN_SENT
                    && new.phase() != Phase::SYN_SENT
                    && (if from_client { !reset } else { refused })
                {
                    let sign = if reset { Sign::Refused } else { Sign::Accepted };
                    // SAFETY: as above.
                    account::sign(unsafe { (*forward.at()).backend }, sign);
                }
                if old.counted() && !new.counted() {
                    let what = match (reset, from_client) {
                        (false, _) => What::FINISHED,
                        (true, true) => What::CLIENT_RESET,
                        (true, false) => What::BACKEND_RESET,
                    };
                    *ending = ended(forward, old.0, what, !old.phase().is_unconfirmed());
                }
                return new.phase() == Phase::CLOSING && old.phase() != Phase::CLOSING;
            }
            Err(now) if now.tag() == old.tag() => {
                if confirms {
                    // Somebody else was faster, and may have begun to close since.
                    follow(reply, true);
                }
                old = now;
            }
            Err(_) => return false,
        }
    }
    false
}

/// From now on replies visit the forward entry, since their acknowledgements matter; or no longer.
#[inline(always)]
pub fn follow<A: Addr>(reply: Entry<A>, tracked: bool) {
    // SAFETY: the pointer comes from a search in this run; one byte.
    unsafe {
        let direction = (*reply.at()).direction;
        (*reply.at()).direction = if tracked { direction.tracked() } else { direction.untracked() };
    }
}

/// Moves the state on of a flow whose backend answers past the node.
#[inline(always)]
pub fn one_sided<V: Tracked>(forward: Entry<V::Addr>, segment: &Segment, ending: &mut Ending) {
    let about = segment.flags as u32 | FROM_CLIENT;
    if V::believe(forward.place, table::NOWHERE, about, segment.seq, segment.ack) == 0 {
        return;
    }
    let old = forward.seen;
    // SAFETY: the pointer comes from a search in this run; a whole word.
    unsafe {
        // A SYN with another number. What the backend makes of it goes past us: from now on nobody knows.
        if segment.opens() && (*forward.at()).fin != segment.after_syn() {
            (*forward.at()).fin = 0;
        }
    }
    let new = next_one_sided(old, segment);
    // Should another packet be at it at this instant: it is the same client's, who says it again if it matters.
    if new == old || exchange(forward, old, new).is_err() {
        return;
    }
    if new.phase() == Phase::ESTABLISHED && old.phase() == Phase::SYN_SENT {
        // SAFETY: the pointer comes from a search in this run.
        account::sign(unsafe { (*forward.at()).backend }, Sign::Accepted);
    }
    if old.counted() && !new.counted() {
        let reset = segment.flags & flags::RST != 0;
        let what = if reset { What::CLIENT_RESET } else { What::FINISHED };
        *ending = ended(forward, old.0, what, !old.phase().is_unconfirmed());
    }
}
