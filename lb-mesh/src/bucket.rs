//! How much one node may send: a token bucket.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens a second, and most at once. A frame costs one, and one for each [`BYTES`] of it. A node with 40 services at
/// once in a herd, each told of every 2 ms, sends as much.
pub(crate) const RATE: u32 = 20_000;
/// Bytes for a token: 20 MB a second.
const BYTES: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// When it would be full again if nothing more were taken.
    full: Instant,
}

impl Bucket {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes what a frame of so many bytes costs.
    ///
    /// # Errors
    /// There isn't as much: nothing is taken, and in so long there is.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize) -> Result<(), Duration> {
        let cost = Duration::from_secs(1) * (1 + bytes / BYTES) as u32 / RATE;
        let full = self.full.max(now) + cost;
        let missing = full.saturating_duration_since(now + Duration::from_secs(1));
        if missing.is_zero() {
            self.full = full;
            Ok(())
        } else {
            Err(missing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_and_then_as_it_comes() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let taken =
            |bucket: &mut Bucket, now, bytes| (0..).take_while(|_| bucket.take(now, bytes).is_ok()).count();
        assert_eq!(taken(&mut bucket, start, 100), RATE as usize);
        assert_eq!(bucket.take(start, 100), Err(Duration::from_secs(1) / RATE));
        let later = start + Duration::from_millis(100);
        assert_eq!(taken(&mut bucket, later, 10 * BYTES), RATE as usize / 10 / 11);
        assert_eq!(taken(&mut bucket, later + Duration::from_secs(60), 0), RATE as usize);
    }
}
