//! When a flow is over. Pure: what is known of it and the service's timeouts in, a verdict out.

use crate::{
    abi::{ASKED_SHIFT, CREATED_SHIFT, Event},
    flow_state::{Phase, Word, unanswered},
    hash,
};

/// How long a flow may go on, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A SYN that wasn't answered or whose answer wasn't acknowledged, since the client's last segment. Seconds, so that a SYN flood
    /// drains by itself.
    pub half_open: u64,
    /// Open and silent in both directions.
    pub idle: u64,
    /// One side has closed, and both are silent.
    pub half_closed: u64,
    /// Closed: for late packets and retransmitted FINs.
    pub closed: u64,
    /// UDP, silent in both directions.
    pub udp: u64,
    /// Open, and the client has never sent anything.
    pub client_request: Option<u64>,
    /// The client has sent something since the backend last did.
    pub backend_response: Option<u64>,
    /// Open, whatever it does; each connection's own limit is up to a tenth less, so that they don't all end at once.
    pub max_age: Option<u64>,
}

/// What is known of a flow, times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Its state.
    pub word: Word,
    /// Since it was pinned.
    pub age: u64,
    /// Since the last packet of either direction; half-open, of the client's.
    pub idle: u64,
    /// `mark` of the forward entry.
    pub asked: u32,
    /// `mark` of the reply entry, or the number after the backend's SYN if there is none.
    pub said: u32,
    /// Since the client last sent data; only of meaning if it has.
    pub asked_for: u64,
    /// Its backend answers past the node.
    pub one_sided: bool,
}

/// Which timeout it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timeout {
    /// [`Timeouts::half_open`]
    HalfOpen,
    /// [`Timeouts::idle`]
    Idle,
    /// [`Timeouts::half_closed`]
    HalfClosed,
    /// [`Timeouts::closed`]
    Closed,
    /// [`Timeouts::udp`]
    Udp,
    /// [`Timeouts::client_request`]
    ClientRequest,
    /// [`Timeouts::backend_response`]
    BackendResponse,
    /// [`Timeouts::max_age`]
    MaxAge,
}

impl Timeout {
    /// As in metrics and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Idle => "idle",
            Self::HalfClosed => "half_closed",
            Self::Closed => "closed",
            Self::Udp => "udp",
            Self::ClientRequest => "client_request",
            Self::BackendResponse => "backend_response",
            Self::MaxAge => "max_age",
        }
    }
}

/// What is to become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It is forgotten; there is nobody who would have to be told.
    Remove(Timeout),
    /// Both ends are reset, unless something happens first.
    Expire(Timeout),
    /// Both ends are reset, whatever happens.
    End(Timeout),
}

impl Timeouts {
    /// Half-open 10 s: a SYN is retransmitted after 1, 3 and 7 s (Linux), each of which renews the entry; nf_conntrack keeps
    /// 120 s, IPVS 60 s, both of which a flood can fill a table in. Idle 24 h: kube-proxy's setting
    /// (`tcpEstablishedTimeout`); IPVS's 15 min cuts idle streams. Half-closed 1 h: kube-proxy's `tcpCloseWaitTimeout`, since a
    /// half-closed transfer may be long. Closed 10 s: retransmissions of a last FIN start at 200 ms and double. UDP 60 s: twice
    /// nf_conntrack's unreplied timeout, half its stream timeout.
    pub const DEFAULT: Self = Self {
        half_open: 10_000,
        idle: 86_400_000,
        half_closed: 3_600_000,
        closed: 10_000,
        udp: 60_000,
        client_request: None,
        backend_response: None,
        max_age: None,
    };

    /// Longest idle timeout that the 32-bit stamps in the flow table can measure at any tick rate, with a margin: 20 days.
    pub const MAX_MS: u64 = 20 * 86_400_000;

    /// Longest timeout that [`asked_at`](crate::abi::Flow::asked_at) can measure at any tick rate, with a margin: 30 minutes.
    pub const MAX_RESPONSE_MS: u64 = 30 * 60_000;

    /// How long a segment in the middle of a connection is waited for to be acknowledged, since the client's last one. Longer than most
    /// streams are silent: to a bare acknowledgement nobody answers, so it is the backend's next word that counts. A backend that knows
    /// nothing of it says so at once, and meanwhile it gives way to others.
    pub const UNCONFIRMED: u64 = 300_000;

    /// How long a connection lingers whose backend answers past the node, after the client's last packet, instead of
    /// [`closed`](Self::closed): the client may have closed its side only, and wait for an answer. IPVS keeps such ones for two minutes.
    pub const ONE_SIDED_CLOSED: u64 = 120_000;

    /// What is to become of a flow. Gone flows stay: whoever moved them there is removing them.
    ///
    /// A half-open connection is forgotten without a word: its client, if there is one, will try again, and be given to another backend.
    pub fn verdict(&self, flow: &Observed) -> Verdict {
        let over = |limit: u64| flow.idle >= limit;
        match flow.word.phase() {
            Phase::SYN_SENT if over(self.half_open) => Verdict::Remove(Timeout::HalfOpen),
            Phase::PROVISIONAL if over(Self::UNCONFIRMED) => Verdict::Remove(Timeout::HalfOpen),
            Phase::CLOSED if flow.one_sided && !over(Self::ONE_SIDED_CLOSED) => Verdict::Keep,
            Phase::CLOSED | Phase::RESET if over(self.closed) => Verdict::Remove(Timeout::Closed),
            Phase::UDP if over(self.udp) => Verdict::Remove(Timeout::Udp),
            Phase::CLOSING if over(self.half_closed) => Verdict::Expire(Timeout::HalfClosed),
            Phase::ESTABLISHED => self.open(flow),
            _ => Verdict::Keep,
        }
    }

    fn open(&self, flow: &Observed) -> Verdict {
        let waits = unanswered(flow.asked, flow.said);
        if self.max_age.is_some_and(|limit| flow.age >= own_limit(limit, flow.word)) {
            Verdict::End(Timeout::MaxAge)
        } else if flow.idle >= self.idle {
            Verdict::Expire(Timeout::Idle)
        } else if flow.asked == 0 && self.client_request.is_some_and(|limit| flow.age >= limit) {
            Verdict::Expire(Timeout::ClientRequest)
        } else if waits && self.backend_response.is_some_and(|limit| flow.asked_for >= limit) {
            Verdict::Expire(Timeout::BackendResponse)
        } else {
            Verdict::Keep
        }
    }
}

/// A connection's own part of a maximum age: nine tenths to all of it, by its tag.
fn own_limit(limit: u64, word: Word) -> u64 {
    let lot = u64::from(hash::mix(word.tag() as u32 ^ (word.tag() >> 32) as u32)) >> 22;
    limit - limit / 10 * lot / 1024
}

/// Ticks since a client last sent data, given jiffies now and the flow's `asked_at`. Good for as long as 16 bits are.
pub const fn asked_for(now: u64, asked_at: u16) -> u64 {
    let units = ((now >> ASKED_SHIFT) as u16).wrapping_sub(asked_at);
    // It asked after now was read.
    if units > 0xfff0 { 0 } else { (units as u64) << ASKED_SHIFT }
}

/// Ticks since `seen`, given the low half of jiffies now. A stamp made after `now` was read counts as just now.
pub const fn idle(now: u32, seen: u32) -> u32 {
    let d = now.wrapping_sub(seen);
    if d as i32 >= 0 || d < 0xf000_0000 { d } else { 0 }
}

/// Ticks since a flow was pinned, given jiffies now and the flow's `created`. One that was pinned after `now` was read: 0.
pub const fn age(now: u64, created: u32) -> u64 {
    let units = ((now >> CREATED_SHIFT) as u32).wrapping_sub(created);
    if units > 0xf000_0000 { 0 } else { (units as u64) << CREATED_SHIFT }
}

/// What the record of a flow that has ended says of time, in ticks: since when it has, given jiffies now, and how long it was open.
/// Good for records of the last three weeks (1000 Hz).
pub const fn ended(now: u64, event: &Event) -> (u64, u64) {
    let since = idle(now as u32, event.at) as u64;
    let end = now.saturating_sub(since);
    let units = ((end >> CREATED_SHIFT) as u32).wrapping_sub(event.created);
    if units > 0xf000_0000 {
        return (since, 0);
    }
    let end_low = end & ((1 << CREATED_SHIFT) - 1);
    let open = ((units as u64) << CREATED_SHIFT) + end_low;
    (since, open.saturating_sub(event.created_low as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_to_the_tick_how_long_a_flow_was_open() {
        let event = |began: u64, ended: u64| Event {
            created: (began >> CREATED_SHIFT) as u32,
            created_low: (began & 15) as u8,
            at: ended as u32,
            ..Event::default()
        };
        for began in [0xffff_fff0u64, 0xffff_fffb, 0x000f_ffff_fff9, 0x1_0000_0007, 99] {
            for open in [0, 1, 5, 16, 17, 250, 0xffff_ffff, 0x1_0000_0001] {
                for since in [0, 1, 30, 1_000_000] {
                    let now = began + open + since;
                    assert_eq!(ended(now, &event(began, began + open)), (since, open), "{began:x}");
                }
            }
        }
        // The clock here may be a tick behind the kernel's.
        assert_eq!(ended(999, &event(1000, 1000)), (0, 0));
        // Who has made it didn't know better.
        assert_eq!(ended(1010, &Event { created: 62, at: 1008, ..Event::default() }), (2, 16));
    }

    #[test]
    fn ages_survive_the_wrap_of_the_stamp() {
        let created = (0x000f_ffff_fff0u64 >> CREATED_SHIFT) as u32;
        assert_eq!(age(0x0010_0000_0100, created), 0x110);
        assert_eq!(age(0x000f_ffff_ffe0, created), 0, "read a moment before");
    }

    fn observed(phase: Phase, idle: u64) -> Observed {
        Observed {
            word: Word::new(phase, 9),
            age: idle,
            idle,
            asked: 0,
            said: 0,
            asked_for: 0,
            one_sided: false,
        }
    }

    const T: Timeouts = Timeouts {
        half_open: 10,
        idle: 200,
        half_closed: 30,
        closed: 40,
        udp: 50,
        client_request: None,
        backend_response: None,
        max_age: None,
    };

    #[test]
    fn each_phase_has_its_limit() {
        use Timeout::*;
        for (phase, limit, verdict) in [
            (Phase::SYN_SENT, 10, Verdict::Remove(HalfOpen)),
            (Phase::PROVISIONAL, Timeouts::UNCONFIRMED, Verdict::Remove(HalfOpen)),
            (Phase::ESTABLISHED, 200, Verdict::Expire(Idle)),
            (Phase::CLOSING, 30, Verdict::Expire(HalfClosed)),
            (Phase::CLOSED, 40, Verdict::Remove(Closed)),
            (Phase::RESET, 40, Verdict::Remove(Closed)),
            (Phase::UDP, 50, Verdict::Remove(Udp)),
            (Phase::GONE, u64::MAX, Verdict::Keep),
        ] {
            assert_eq!(T.verdict(&observed(phase, limit)), verdict, "{phase:?}");
            assert_eq!(T.verdict(&observed(phase, limit - 1)), Verdict::Keep, "{phase:?}");
        }
    }

    #[test]
    fn who_is_answered_past_the_node_may_still_be_listening() {
        let flow = |phase, idle| Observed { one_sided: true, ..observed(phase, idle) };
        assert_eq!(T.verdict(&flow(Phase::CLOSED, Timeouts::ONE_SIDED_CLOSED - 1)), Verdict::Keep);
        assert_eq!(
            T.verdict(&flow(Phase::CLOSED, Timeouts::ONE_SIDED_CLOSED)),
            Verdict::Remove(Timeout::Closed)
        );
        assert_eq!(T.verdict(&flow(Phase::RESET, 40)), Verdict::Remove(Timeout::Closed));
    }

    #[test]
    fn who_asks_is_waited_for_and_who_does_not_too() {
        let t = Timeouts { client_request: Some(60), backend_response: Some(20), ..T };
        let flow = |asked, said, asked_for, age| {
            t.verdict(&Observed { asked, said, asked_for, age, ..observed(Phase::ESTABLISHED, 0) })
        };
        assert_eq!(flow(0, 0, 0, 60), Verdict::Expire(Timeout::ClientRequest));
        assert_eq!(flow(0, 0, 0, 59), Verdict::Keep);
        assert_eq!(flow(0, 900, 99, 60), Verdict::Expire(Timeout::ClientRequest), "a banner is no request");
        assert_eq!(flow(501, 0, 20, 1_000), Verdict::Expire(Timeout::BackendResponse));
        assert_eq!(flow(501, 0, 19, 1_000), Verdict::Keep);
        assert_eq!(flow(501, 502, 99, 1_000), Verdict::Keep, "answered");
        assert_eq!(flow(502, 502, 20, 1_000), Verdict::Expire(Timeout::BackendResponse), "asked again");
        assert_eq!(flow(u32::MAX - 5, 10, 99, 1_000), Verdict::Keep, "the numbers have wrapped");
    }

    #[test]
    fn no_connection_outlives_the_maximum_age_and_not_all_end_at_once() {
        let t = Timeouts { max_age: Some(100_000), ..T };
        let ends = |tag: u64, age| {
            let word = Word::new(Phase::ESTABLISHED, tag);
            t.verdict(&Observed { word, age, ..observed(Phase::ESTABLISHED, 0) })
                == Verdict::End(Timeout::MaxAge)
        };
        let ended = |age| (0..1_000u64).filter(|tag| ends(tag << 16, age)).count();
        assert_eq!((ended(89_999), ended(100_000)), (0, 1_000));
        let half = ended(95_000);
        assert!((400..600).contains(&half), "{half} of 1,000 at half of the tenth");
    }

    #[test]
    fn asking_is_timed_over_the_wrap_of_the_stamp() {
        let at = (0x3f_ffc0u64 >> ASKED_SHIFT) as u16;
        assert_eq!(asked_for(0x40_0100, at), 0x140);
        assert_eq!(asked_for(0x3f_ff80, at), 0, "read a moment before");
    }

    #[test]
    fn idle_wraps_and_never_runs_backwards() {
        assert_eq!(idle(5, u32::MAX - 4), 10);
        assert_eq!(idle(100, 103), 0);
        assert_eq!(idle(0xe000_0000, 1), 0xdfff_ffff);
    }
}
