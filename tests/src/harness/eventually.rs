//! Awaiting what others do. The only place that sleeps.

use std::time::{Duration, Instant};

/// Waits until `check` returns a value, looking every few milliseconds.
///
/// # Panics
/// With `what` and the last complaint, when `limit` has passed.
pub fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(complaint) if start.elapsed() > limit => panic!("{what}: not within {limit:?}: {complaint}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Lets real time pass where the passing of time is what is tested.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}
