//! A flow as the model knows it.

use lb_common::window::Side;

use super::read::{Key, Whole};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    SynSent,
    Open,
    Closing,
    Closed,
    Udp,
    /// Of a connection whose begin wasn't seen, and which the backend hasn't acknowledged.
    Provisional,
}

#[derive(Clone, Debug)]
pub struct Flow {
    pub forward: Key,
    pub backend: usize,
    /// With which 5-tuple the client's packets leave.
    pub beyond: Key,
    pub state: State,
    pub answered: bool,
    /// The backend has said something.
    pub spoken: bool,
    /// What is known of the two sides' numbers: client, backend.
    pub sides: [Side; 2],
    /// What the client was answered last when it sent data, or from where it would count since it has said a SYN over it.
    pub mark: u32,
    /// Sequence number after each side's FIN.
    pub fin: [Option<u32>; 2],
    pub acked: [bool; 2],
}

/// What a segment has changed.
#[derive(Clone, Copy, Default)]
pub struct Moved {
    /// The backend doesn't want the client.
    pub refused: bool,
    /// The client has taken up the backend's answer.
    pub accepted: bool,
    /// It counts no longer.
    pub ended: bool,
}

impl Flow {
    /// A side says its FIN.
    pub fn finishes(&mut self, side: usize, whole: &Whole) {
        let end = whole.seq.wrapping_add(whole.len).wrapping_add(1);
        self.fin[side] = Some(end);
        (self.sides[side].number, self.sides[side].finished) = (end, true);
    }

    /// A segment of one of its sides comes by.
    pub fn advance(&mut self, whole: &Whole, from_client: bool) -> Moved {
        let mut moved = Moved::default();
        let (fin, syn, rst, ack) =
            (whole.flags & 1 != 0, whole.flags & 2 != 0, whole.flags & 4 != 0, whole.flags & 16 != 0);
        if matches!(self.state, State::Closed | State::Udp) {
            return moved;
        }
        let (me, you) = if from_client { (0, 1) } else { (1, 0) };
        let shaking = self.state == State::SynSent;
        let unconfirmed = shaking || self.state == State::Provisional;
        let offered = (!unconfirmed || self.answered)
            && !from_client
            && ack
            && (syn || rst)
            && ![0, self.sides[0].number].contains(&self.mark)
            && whole.ack.wrapping_sub(self.mark) < 1 << 14;
        if offered && !rst {
            self.state = State::SynSent;
            (self.answered, self.fin, self.acked) = (true, [None; 2], [false; 2]);
            for (side, number) in self.sides.iter_mut().zip([self.mark, whole.seq.wrapping_add(1)]) {
                (side.number, side.finished) = (number, false);
            }
            return moved;
        }
        // Whose numbers can't be the connection's moves nothing.
        let believed = if offered || syn && !ack || self.state == State::Provisional && !from_client {
            true
        } else if shaking && !from_client && ack && (syn || rst) {
            self.sides[you].admits(whole.ack)
        } else {
            self.sides[me].admits(whole.seq) && (!ack || self.sides[you].admits(whole.ack))
        };
        if !believed {
            return moved;
        }
        let begin = whole.seq.wrapping_add(1);
        match (from_client, syn, ack) {
            (true, true, false) if self.sides[0].number == begin => {}
            (true, true, false) if !shaking || self.answered => self.mark = begin.max(1),
            (true, true, false) => self.sides[0].number = 0,
            (false, true, true) if shaking && !self.answered => self.sides[1].number = begin,
            (false, true, true) if shaking && self.sides[1].number != begin => self.sides[1].number = 0,
            _ => {}
        }
        if rst {
            if shaking && !from_client && !self.answered {
                moved.refused = true;
            }
            self.state = State::Closed;
            moved.ended = true;
            return moved;
        }
        if self.state == State::SynSent {
            if !from_client && syn && ack {
                self.answered = true;
            }
            if !(from_client && ack && !syn && self.answered) {
                return moved;
            }
            self.state = State::Open;
            moved.accepted = true;
        }
        if self.state == State::Provisional {
            if from_client && fin {
                self.finishes(0, whole);
            }
            if from_client || syn || !ack {
                return moved;
            }
            let finished = self.fin[0].is_some_and(|fin| fin.wrapping_sub(whole.ack) < 1 << 16);
            self.state = if finished { State::Closing } else { State::Open };
            if !finished {
                self.fin[0] = None;
            }
            if !finished {
                (self.sides[0].number, self.sides[0].finished) = (whole.ack, false);
            }
            self.sides[1].number = whole.seq;
        }
        if fin {
            self.finishes(me, whole);
            self.state = State::Closing;
        }
        if ack && self.fin[you].is_some_and(|end| (whole.ack.wrapping_sub(end) as i32) >= 0) {
            self.acked[you] = true;
        }
        if self.acked == [true; 2] {
            self.state = State::Closed;
            moved.ended = true;
        }
        moved
    }
}
