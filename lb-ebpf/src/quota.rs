//! How many answers a CPU may give: forged packets must not make the node a sender of floods.

use aya_ebpf::helpers::generated::bpf_jiffies64;

use crate::maps::ANSWERS;

/// Answers of a kind, per CPU.
#[derive(Clone, Copy)]
pub struct Quota {
    /// Which of the buckets.
    kind: u32,
    /// So many more in each tick.
    per_tick: u32,
    /// So many at once after a quiet time.
    burst: u32,
}

impl Quota {
    /// Errors: 1,000 a second at 250 Hz and 50 at once, as Linux's `icmp_msgs_per_sec` and `icmp_msgs_burst`.
    pub const ERRORS: Self = Self { kind: 0, per_tick: 4, burst: 50 };
    /// RST and replies to echo requests: 25,000 a second at 250 Hz, so that clients learn at once when a table was lost.
    pub const REPLIES: Self = Self { kind: 1, per_tick: 100, burst: 5_000 };
    /// How many kinds there are.
    pub const KINDS: usize = 2;

    /// May another be given in this tick?
    #[inline(always)]
    pub fn permits(self) -> bool {
        let Some(state) = ANSWERS.get_ptr_mut(self.kind) else { return false };
        // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq. The helper has no preconditions.
        unsafe {
            let tick = bpf_jiffies64() as u32;
            let passed = tick.wrapping_sub(*state as u32);
            let left = if passed >= self.burst {
                self.burst
            } else {
                (*state >> 32) as u32 + passed * self.per_tick
            };
            let left = if left > self.burst { self.burst } else { left };
            *state = (left.saturating_sub(1) as u64) << 32 | tick as u64;
            left > 0
        }
    }
}
