//! The kernel's time, as entries in the flow table are stamped with it: jiffies.

use aya::programs::{TestRun, TestRunOptions, Xdp};

use super::DatapathError;

/// Jiffies at one moment, and how fast they go. Jiffies follow the monotonic clock, so that later values are computed.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    jiffies: u64,
    nanos: u64,
    /// Ticks a second.
    pub hz: u32,
}

/// Tick rates that Linux can be built with (kernel/Kconfig.hz; 1024 on some architectures).
const RATES: [u32; 6] = [100, 200, 250, 300, 1000, 1024];

/// Reads the clocks with the clock program.
pub(super) fn read(program: &Xdp) -> Result<Clock, DatapathError> {
    let packet = [0u8; 64];
    let mut out = [0u8; 64];
    let options =
        TestRunOptions { data_in: Some(&packet), data_out: Some(&mut out), ..TestRunOptions::new() };
    program.test_run(options).map_err(DatapathError::kernel("reading the kernel's clock"))?;
    let word = |at: usize| u64::from_ne_bytes(out[at..at + 8].try_into().unwrap_or_default());
    let (jiffies, nanos) = (word(16), word(24));
    // Jiffies start five minutes before their low half wraps (include/linux/jiffies.h, INITIAL_JIFFIES), so that at a given
    // rate the start is known, and with it the rate that fits.
    let fits = |hz: &u32| {
        let start = (300 * hz).wrapping_neg() as u64;
        let elapsed = jiffies.wrapping_sub(start) as f64 / *hz as f64;
        (elapsed - nanos as f64 / 1e9).abs()
    };
    let hz = RATES.into_iter().min_by(|a, b| fits(a).total_cmp(&fits(b))).unwrap_or(250);
    Ok(Clock { jiffies, nanos, hz })
}

impl Clock {
    /// One of this rate that began at 0; for what is shown of times, without a kernel.
    pub const fn at(hz: u32) -> Self {
        Self { jiffies: 0, nanos: 0, hz }
    }
    /// Jiffies now.
    pub fn now(&self) -> u64 {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(self.nanos, |t| {
            u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
        });
        let nanos = now.saturating_sub(self.nanos) as u128;
        self.jiffies + (nanos * self.hz as u128 / 1_000_000_000) as u64
    }
    /// Seconds in so many ticks.
    pub fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.hz as f64
    }
    /// Milliseconds in so many ticks.
    pub fn millis(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000) / self.hz as u64
    }
}
