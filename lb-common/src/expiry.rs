//! When a silent flow is over. Pure: phase and timeouts in, a limit out.

use crate::{
    abi::CREATED_SHIFT,
    flow_state::{Phase, Word},
};

/// How long a flow may be silent in both directions, in milliseconds, per phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A SYN that wasn't answered or whose answer wasn't acknowledged. Seconds, so that a SYN flood drains by itself.
    pub half_open: u64,
    /// Open and silent.
    pub established: u64,
    /// One side has closed.
    pub closing: u64,
    /// Closed: for late packets and retransmitted FINs.
    pub closed: u64,
    /// UDP.
    pub udp: u64,
}

impl Timeouts {
    /// Half-open 10 s: a SYN is retransmitted after 1, 3 and 7 s (Linux), each of which renews the entry; nf_conntrack keeps
    /// 120 s, IPVS 60 s, both of which a flood can fill a table in. Established 24 h: kube-proxy's setting
    /// (`tcpEstablishedTimeout`); IPVS's 15 min cuts idle streams. Closing 1 h: kube-proxy's `tcpCloseWaitTimeout`, since a
    /// half-closed transfer may be long. Closed 10 s: retransmissions of a last FIN start at 200 ms and double. UDP 60 s: twice
    /// nf_conntrack's unreplied timeout, half its stream timeout.
    pub const DEFAULT: Self =
        Self { half_open: 10_000, established: 86_400_000, closing: 3_600_000, closed: 10_000, udp: 60_000 };

    /// Longest idle timeout that the 32-bit stamps in the flow table can measure at any tick rate, with a margin: 20 days.
    pub const MAX_MS: u64 = 20 * 86_400_000;

    /// The limit for a flow with this word. Gone flows have none: whoever moved them there is removing them.
    pub const fn limit(&self, word: Word) -> Option<u64> {
        match word.phase() {
            Phase::SYN_SENT => Some(self.half_open),
            Phase::ESTABLISHED => Some(self.established),
            Phase::CLOSING => Some(self.closing),
            Phase::CLOSED | Phase::RESET => Some(self.closed),
            Phase::UDP => Some(self.udp),
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_survive_the_wrap_of_the_stamp() {
        let created = (0x000f_ffff_fff0u64 >> CREATED_SHIFT) as u32;
        assert_eq!(age(0x0010_0000_0100, created), 0x110);
        assert_eq!(age(0x000f_ffff_ffe0, created), 0, "read a moment before");
    }

    #[test]
    fn each_phase_has_its_limit() {
        let t = Timeouts { half_open: 1, established: 2, closing: 3, closed: 4, udp: 5 };
        let limit = |p| t.limit(Word::new(p, 9));
        assert_eq!(
            [Phase::SYN_SENT, Phase::ESTABLISHED, Phase::CLOSING, Phase::CLOSED, Phase::UDP].map(limit),
            [Some(1), Some(2), Some(3), Some(4), Some(5)]
        );
        assert_eq!(limit(Phase::GONE), None);
    }

    #[test]
    fn idle_wraps_and_never_runs_backwards() {
        assert_eq!(idle(5, u32::MAX - 4), 10);
        assert_eq!(idle(100, 103), 0);
        assert_eq!(idle(0xe000_0000, 1), 0xdfff_ffff);
    }
}
