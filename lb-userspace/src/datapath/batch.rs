//! Arrays of the kernel's, read many elements to a system call (Linux 5.6; per-CPU ones 5.13).

use std::{io::ErrorKind, os::fd::AsFd};

use aya::maps::MapData;
use lb_common::abi::{Active, BackendCounters, DurationHistogram};

use super::{DatapathError, raw};

/// Bytes of values read at once: few enough that a CPU's cache holds them, and that `malloc` has them at hand.
const BYTES: usize = 1 << 16;

/// Plain data in an array: any bytes are a value.
pub(super) trait Plain: Copy + Default {}

impl Plain for Active {}
impl Plain for BackendCounters {}
impl Plain for DurationHistogram {}

/// The elements from `from` on, `count` of them or as many as there are, `copies` values to an element (a per-CPU array
/// has one for each CPU that there can be), to `visit`.
///
/// # Errors
/// The kernel refuses.
pub(super) fn read<T: Plain>(
    map: &MapData,
    name: &'static str,
    from: u32,
    count: u32,
    copies: usize,
    mut visit: impl FnMut(&[T]),
) -> Result<(), DatapathError> {
    // A per-CPU array's copies are each padded to eight bytes.
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let at_once = (BYTES / (size_of::<T>() * copies)).clamp(1, count.max(1) as usize);
    let mut values = vec![T::default(); at_once * copies];
    let mut keys = vec![0u32; at_once];
    let failed = || DatapathError::io(format!("reading {name}"));
    let (mut next, end) = (from, from.saturating_add(count));
    while next < end {
        let count = at_once.min((end - next) as usize);
        let (got, result) = raw::lookup_batch(
            map.fd().as_fd(),
            next.checked_sub(1),
            &mut keys[..count],
            &mut values[..count * copies],
        );
        visit(&values[..got.min(count) * copies]);
        // No such element: that was the last one.
        if !result.map_err(failed())? {
            return Ok(());
        }
        if got == 0 {
            return Err(failed()(ErrorKind::UnexpectedEof.into()));
        }
        next += got as u32;
    }
    Ok(())
}
