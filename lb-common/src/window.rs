//! Which sequence numbers can be of a connection: told by what its entries hold anyway, so that packets of open connections
//! store nothing for it.
//!
//! Who can't see a connection's packets can't know its numbers (RFC 5961, section 1.1). What he sends is carried on as it is,
//! for the ends to judge; but it moves no state. An end takes an exact number, we take a window around what its peer can have
//! sent: every byte of it went by here and was counted, headers and repetitions included. So the window of a connection that
//! has said little is narrow, one number in 32,000 or less, and the more was said the wider it is: after some gigabytes in one
//! direction anything is believed.

use crate::flow_state::{Phase, Segment, Word, flags};

/// What an entry holds of the numbers that its packets' sender uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The one after its SYN, or after its FIN if that was seen. 0: nobody knows.
    pub number: u32,
    /// Its FIN was seen.
    pub finished: bool,
    /// Bytes of its packets so far, IP headers included.
    pub bytes: u64,
}

/// How far from what was seen a number may be in any case: what a sender may say before it has heard anything, with room.
const SLACK: u64 = 1 << 16;

/// The most that is on its way at once: socket buffers end here (Linux: `tcp_rmem`, `tcp_wmem`).
const UNDER_WAY: u64 = 1 << 25;

impl Side {
    /// Can this be a number of its next segment, or an acknowledgement of what it has sent?
    #[inline(always)]
    pub const fn admits(&self, number: u32) -> bool {
        if self.number == 0 {
            return true;
        }
        let under_way = if self.bytes < UNDER_WAY { self.bytes } else { UNDER_WAY };
        let slack = SLACK + under_way;
        // The last number but one: keepalives ask with it (RFC 9293, section 3.8.4).
        let (low, width) = if self.finished {
            (self.number.wrapping_sub(slack as u32), 2 * slack)
        } else {
            // From its begin on: how much of what went by was said again, or forged, nobody knows.
            (self.number.wrapping_sub(1), self.bytes + slack + 1)
        };
        width > u32::MAX as u64 || number.wrapping_sub(low) <= width as u32
    }
}

/// Can a segment be of this connection? One that can't moves nothing.
///
/// What answers a SYN is told by its acknowledgement alone: its own numbers begin with it, and a refusal has 0.
#[inline(always)]
pub const fn believable(
    word: Word,
    from_client: bool,
    segment: &Segment,
    client: &Side,
    backend: &Side,
) -> bool {
    let syn = segment.flags & flags::SYN != 0;
    let rst = segment.flags & flags::RST != 0;
    let ack = segment.flags & flags::ACK != 0;
    if syn && !ack {
        // Its number is anything, and it moves nothing.
        return true;
    }
    if word.phase().0 == Phase::PROVISIONAL.0 && !from_client {
        // What the client is known by is what anybody may have said. The backend knows.
        return true;
    }
    let (own, other) = if from_client { (client, backend) } else { (backend, client) };
    if word.phase().0 == Phase::SYN_SENT.0 && !from_client && ack && (syn || rst) {
        return other.admits(segment.ack);
    }
    own.admits(segment.seq) && (!ack || other.admits(segment.ack))
}

#[cfg(test)]
mod tests;
