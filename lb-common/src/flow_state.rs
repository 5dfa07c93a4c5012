//! The life of a connection, as one 64-bit word that moves by compare-and-swap.
//!
//! ```text
//!            SYN-ACK, ACK          first FIN             both FINs acknowledged
//! SYN_SENT ───────────────▶ ESTABLISHED ───────▶ CLOSING ───────────────▶ CLOSED
//!    └───────────────────────────┴────────── RST ───────────────────────────┘
//! PROVISIONAL ── the backend acknowledges ──▶ ESTABLISHED, or CLOSING;  ── RST ──▶ CLOSED
//! any TCP that counts ── closed by the operator ──▶ RESET
//! any of them, and UDP ── expiry, removal, a SYN over CLOSING, CLOSED, RESET or PROVISIONAL ──▶ GONE
//! ```
//!
//! **Why one word.** A flow is counted while its phase is [`counted`](Word::counted). Whoever moves the word from a counted
//! phase to one that isn't, and only he, subtracts one: exactly once by construction, whichever CPUs race. Whoever moves it to
//! `GONE` owns the removal: nobody else deletes the entries, and a new flow under the same key can't be made until they are
//! gone, so a delete by key can't hit a successor. The lane of a removed entry may be another flow's at once; a packet that
//! still holds the old pointer then fails its compare-and-swap, since the word's tag differs from flow to flow.

/// Phase, flags and tag of a flow. Bits 0..8 phase, 8..16 flags, 16..64 tag.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(pub u64);

/// Where a connection is in its life.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Phase(pub u8);

impl Phase {
    /// A SYN was seen; not yet the client's ACK of the backend's SYN-ACK.
    pub const SYN_SENT: Self = Self(1);
    /// Open.
    pub const ESTABLISHED: Self = Self(2);
    /// A FIN was seen.
    pub const CLOSING: Self = Self(3);
    /// Both FINs acknowledged, or a RST. Kept a while for late packets; not counted.
    pub const CLOSED: Self = Self(4);
    /// UDP: there is only one.
    pub const UDP: Self = Self(5);
    /// Being removed.
    pub const GONE: Self = Self(6);
    /// Closed by the operator or the agent: whatever either side says is answered with a RST. Not counted; kept for as long as
    /// closed flows are.
    pub const RESET: Self = Self(7);
    /// A segment in the middle of a connection was carried to the backend that it hashes to, which hasn't acknowledged anything yet: anybody can
    /// send one segment.
    pub const PROVISIONAL: Self = Self(8);

    /// Has nobody but the client said yet that there is a connection? Such a flow gives way to others, and is soon forgotten.
    #[inline(always)]
    pub const fn is_unconfirmed(self) -> bool {
        matches!(self, Self::SYN_SENT | Self::PROVISIONAL)
    }
}

/// TCP flag bits, as in byte 13 of the header.
pub mod flags {
    /// Sender is done.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Aborts.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// Flag in the word: the backend's SYN-ACK was seen.
const SYNACK: u64 = 1 << 8;
const FIN_CLIENT: u64 = 1 << 9;
const FIN_BACKEND: u64 = 1 << 10;
/// The client's FIN was acknowledged by the backend.
const ACKED_CLIENT: u64 = 1 << 11;
const ACKED_BACKEND: u64 = 1 << 12;
/// The flow counts in its client's binding; see [`affinity`](crate::affinity).
const BOUND: u64 = 1 << 13;

/// Closed by the agent, and the client has heard of it.
const TOLD_CLIENT: u64 = 1 << 14;
const TOLD_BACKEND: u64 = 1 << 15;

/// How words are written, phase by phase and flag by flag: agents take flows over from others only if they write them alike.
pub const ENCODING: [u64; 18] = [
    Phase::SYN_SENT.0 as u64,
    Phase::ESTABLISHED.0 as u64,
    Phase::CLOSING.0 as u64,
    Phase::CLOSED.0 as u64,
    Phase::UDP.0 as u64,
    Phase::GONE.0 as u64,
    Phase::RESET.0 as u64,
    Phase::PROVISIONAL.0 as u64,
    SYNACK,
    FIN_CLIENT,
    FIN_BACKEND,
    ACKED_CLIENT,
    ACKED_BACKEND,
    BOUND,
    TOLD_CLIENT,
    TOLD_BACKEND,
    Word::new(Phase::SYN_SENT, 0).0,
    Word::new(Phase::UDP, 0x1234_5678).0,
];

impl Word {
    /// The first word of a flow. `tag`: 47 bits that no flow of the recent past had; the 48th is always set, so that no word
    /// is 0.
    #[inline(always)]
    pub const fn new(phase: Phase, tag: u64) -> Self {
        Self(1 << 63 | tag << 16 | phase.0 as u64)
    }
    /// The same, of a flow that counts in its client's binding if `bound`.
    #[inline(always)]
    pub const fn bound_if(self, bound: bool) -> Self {
        if bound { Self(self.0 | BOUND) } else { self }
    }
    /// The same, of a flow whose client has sent its FIN if `finished`.
    #[inline(always)]
    pub const fn finished_if(self, finished: bool) -> Self {
        if finished { Self(self.0 | FIN_CLIENT) } else { self }
    }
    /// Does it count in its client's binding?
    #[inline(always)]
    pub const fn bound(self) -> bool {
        self.0 & BOUND != 0
    }
    /// The same; the client, or the backend, knows that it is over.
    #[inline(always)]
    pub const fn told(self, client: bool) -> Self {
        Self(self.0 | if client { TOLD_CLIENT } else { TOLD_BACKEND })
    }
    /// Does the client, or the backend, know that it is over?
    #[inline(always)]
    pub const fn knows(self, client: bool) -> bool {
        self.0 & if client { TOLD_CLIENT } else { TOLD_BACKEND } != 0
    }
    /// The phase.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        Phase(self.0 as u8)
    }
    /// Does a flow with this word count as active?
    #[inline(always)]
    pub const fn counted(self) -> bool {
        matches!(
            self.phase(),
            Phase::SYN_SENT | Phase::ESTABLISHED | Phase::CLOSING | Phase::UDP | Phase::PROVISIONAL
        )
    }
    /// Does a SYN belong to this flow rather than open a new one over it: may one of the two ends still want it?
    #[inline(always)]
    pub const fn alive(self) -> bool {
        match self.phase() {
            Phase::SYN_SENT | Phase::ESTABLISHED => true,
            Phase::CLOSING => !(self.finished(true) && self.finished(false)),
            _ => false,
        }
    }
    /// The same flow, begun anew with the same backend, which has just answered the SYN.
    #[inline(always)]
    pub const fn begun_anew(self) -> Self {
        const OVER: u64 = FIN_CLIENT | FIN_BACKEND | ACKED_CLIENT | ACKED_BACKEND;
        Self(self.with(Phase::SYN_SENT).0 & !OVER | SYNACK)
    }
    /// The same flow in another phase.
    #[inline(always)]
    pub const fn with(self, phase: Phase) -> Self {
        Self(self.0 & !0xff | phase.0 as u64)
    }
    /// The tag.
    #[inline(always)]
    pub const fn tag(self) -> u64 {
        self.0 >> 16
    }
    /// Has the backend answered the SYN?
    #[inline(always)]
    pub const fn answered(self) -> bool {
        self.0 & SYNACK != 0
    }
    /// Has the client, or the backend, sent its FIN?
    #[inline(always)]
    pub const fn finished(self, client: bool) -> bool {
        self.0 & if client { FIN_CLIENT } else { FIN_BACKEND } != 0
    }
    /// Has one side sent FIN and the other not?
    pub const fn half_closed(self) -> bool {
        self.finished(true) != self.finished(false)
    }
}

/// What a TCP segment says about the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Byte 13 of the header.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Payload bytes.
    pub len: u32,
}

impl Segment {
    /// Does it open a connection: SYN without ACK?
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK) == flags::SYN
    }
    /// Sequence number after this segment's SYN.
    #[inline(always)]
    pub const fn after_syn(&self) -> u32 {
        self.seq.wrapping_add(1)
    }
    /// Sequence number after this segment's FIN.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len).wrapping_add(1)
    }
}

/// Can a segment with these flags move a connection that is open?
#[inline(always)]
pub const fn moves_open(flags: u8) -> bool {
    flags & (flags::FIN | flags::SYN | flags::RST) != 0
}

/// Is `a` at or after `b` in sequence space (RFC 9293, section 3.4)?
#[inline(always)]
const fn reached(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

/// The word after a segment, sent by the client (towards the backend) or by the backend. `fin_client` and `fin_backend` are the entry's
/// fields, already updated by this segment's own FIN.
/// Returns the same word if nothing changes. UDP, closed and gone flows don't change.
///
/// Whether a segment can be of this connection is decided before, by [`believable`](crate::window::believable). Here numbers
/// count only where closing depends on them: a FIN is done when the other side has acknowledged it.
#[inline(always)]
pub const fn next(
    word: Word,
    from_client: bool,
    segment: &Segment,
    fin_client: u32,
    fin_backend: u32,
) -> Word {
    let phase = word.phase();
    if !word.counted() || phase.0 == Phase::UDP.0 {
        return word;
    }
    if segment.flags & flags::RST != 0 {
        return word.with(Phase::CLOSED);
    }
    let mut w = word.0;
    let syn = segment.flags & flags::SYN != 0;
    let ack = segment.flags & flags::ACK != 0;
    if phase.0 == Phase::SYN_SENT.0 {
        if !from_client && syn && ack {
            return Word(w | SYNACK);
        }
        // Only the client's answer to a SYN-ACK opens: a spoofed SYN leaves an entry that lives for seconds, not hours.
        if !from_client || syn || !ack || w & SYNACK == 0 {
            return word;
        }
        w = Word(w).with(Phase::ESTABLISHED).0;
    }
    if phase.0 == Phase::PROVISIONAL.0 {
        let fin = segment.flags & flags::FIN != 0;
        if from_client {
            return word.finished_if(fin);
        }
        if syn || !ack {
            return word;
        }
        // A FIN that is far from what the backend acknowledges is nobody's here.
        let finished = word.finished(true) && fin_client.wrapping_sub(segment.ack) < AHEAD;
        w = w & !FIN_CLIENT | if finished { FIN_CLIENT } else { 0 };
        w = Word(w).with(if finished { Phase::CLOSING } else { Phase::ESTABLISHED }).0;
    }
    if segment.flags & flags::FIN != 0 {
        w |= if from_client { FIN_CLIENT } else { FIN_BACKEND };
        w = Word(w).with(Phase::CLOSING).0;
    }
    if ack {
        if from_client && w & FIN_BACKEND != 0 && reached(segment.ack, fin_backend) {
            w |= ACKED_BACKEND;
        }
        if !from_client && w & FIN_CLIENT != 0 && reached(segment.ack, fin_client) {
            w |= ACKED_CLIENT;
        }
    }
    const ALL: u64 = ACKED_CLIENT | ACKED_BACKEND;
    if w & ALL == ALL { Word(w).with(Phase::CLOSED) } else { Word(w) }
}

/// The word after a segment of the client's, of a connection whose backend answers past the node. What the backend says isn't known: the
/// client's answer to it opens the connection, and the client's FIN closes it as far as counting goes. It may go on receiving; its
/// acknowledgements keep the entry, which lingers for [`ONE_SIDED_CLOSED`](crate::expiry::Timeouts::ONE_SIDED_CLOSED).
#[inline(always)]
pub const fn next_one_sided(word: Word, segment: &Segment) -> Word {
    let phase = word.phase();
    if !word.counted() || phase.0 == Phase::UDP.0 {
        return word;
    }
    if segment.flags & (flags::RST | flags::FIN) != 0 {
        return word.with(Phase::CLOSED);
    }
    if phase.is_unconfirmed() && segment.flags & (flags::SYN | flags::ACK) == flags::ACK {
        return word.with(Phase::ESTABLISHED);
    }
    word
}

/// Has the client sent data that the backend has not answered with any? `asked`: the acknowledgement number with which the client last
/// sent data, `said`: the sequence number after the backend's last data, or after its SYN; 0: nobody knows.
///
/// An answer is data beyond what the client had when it asked. A client that asks while an earlier answer is still on its way has
/// acknowledged less than that: then the earlier answer passes for this one, and nothing is noticed. Nobody acknowledges what wasn't
/// sent: that is none of this client's.
#[inline(always)]
pub const fn unanswered(asked: u32, said: u32) -> bool {
    asked != 0 && (said == 0 || asked.wrapping_sub(said) < AHEAD)
}

/// How much further than what was seen of a backend's data an acknowledgement may be: what came by at the same instant.
const AHEAD: u32 = 1 << 16;

/// The higher of two [marks](crate::abi::Flow::mark) of the backend, `said` the one there was: data that is sent again moves nothing.
#[inline(always)]
pub const fn further(said: u32, end: u32) -> u32 {
    let end = if end == 0 { 1 } else { end };
    if said == 0 || end.wrapping_sub(said) as i32 > 0 { end } else { said }
}

#[cfg(test)]
mod tests;
