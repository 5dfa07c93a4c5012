//! Counters.

/// Per-CPU counters of a backend. 64 bytes. Only packets write; the agent sums over CPUs, and zeroes them when it gives the id
/// to another backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendCounters {
    /// Flows pinned since the backend was added.
    pub connections: u64,
    /// Packets, client to backend.
    pub packets_in: u64,
    /// Bytes, client to backend, IP header included.
    pub bytes_in: u64,
    /// Packets, backend to client.
    pub packets_out: u64,
    /// Bytes, backend to client.
    pub bytes_out: u64,
    /// TCP connections that the backend accepted and the client took up.
    pub accepted: u64,
    /// TCP connections that the backend answered with RST.
    pub refused: u64,
    /// SYNs that clients repeated because the backend had not answered.
    pub unanswered: u64,
}

impl BackendCounters {
    /// Both, field by field.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            packets_in: self.packets_in + other.packets_in,
            bytes_in: self.bytes_in + other.bytes_in,
            packets_out: self.packets_out + other.packets_out,
            bytes_out: self.bytes_out + other.bytes_out,
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            unanswered: self.unanswered + other.unanswered,
        }
    }
}

/// Buckets of [`DurationHistogram`]: bucket `i` counts durations under 2^i ticks (of [`DURATION_TICK_MS`]), the last all that
/// are longer. 2^21 × 64 ms is 37 hours.
pub const DURATION_BUCKETS: usize = 23;
/// Unit of the histogram in milliseconds.
pub const DURATION_TICK_MS: u64 = 64;

/// How long the connections of a service were open. Added to once per connection, when it stops counting as active.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurationHistogram {
    /// Sum of all durations in jiffies.
    pub sum_jiffies: u64,
    /// Counts, not cumulative.
    pub buckets: [u64; DURATION_BUCKETS],
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { sum_jiffies: 0, buckets: [0; DURATION_BUCKETS] }
    }
}
