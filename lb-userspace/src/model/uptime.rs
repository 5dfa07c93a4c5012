//! The clock that deadlines are kept by.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the machine was started, time asleep included (`CLOCK_BOOTTIME`). Setting the date doesn't move it, and
/// an agent that takes over reads the same as the one before.
pub fn now() -> Duration {
    // The clock is there since Linux 2.6.39, and a read of it can't fail then.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, |t| {
        let (seconds, nanos) = (u64::try_from(t.tv_sec()), u32::try_from(t.tv_nsec()));
        Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
    })
}
