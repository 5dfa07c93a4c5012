//! Arrays of the kernel's, read many elements to a system call (Linux 5.6; per-CPU ones 5.13).

use std::os::fd::{AsFd, AsRawFd};

use aya::maps::MapData;
use lb_common::abi::{Active, BackendCounters, DurationHistogram};

use super::DatapathError;

/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h).
const LOOKUP_BATCH: libc::c_long = 24;
/// Bytes of values read at once.
const BYTES: usize = 1 << 19;

/// What `bpf(2)` is given for it.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

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
    let (mut next, end) = (from, from.saturating_add(count));
    while next < end {
        let before = next.wrapping_sub(1);
        let mut last = 0u32;
        let mut attributes = Attributes {
            in_batch: if next == 0 { 0 } else { (&raw const before).expose_provenance() as u64 },
            out_batch: (&raw mut last).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: (at_once as u32).min(end - next),
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads one key at `in_batch`, and writes one at `out_batch` and at most `count` keys and elements,
        // for which there is room; `T` is plain data, so that what it writes is valid. `name` is of a map of such elements.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>())
        };
        let error = std::io::Error::last_os_error();
        let got = attributes.count as usize;
        visit(&values[..got.min(at_once) * copies]);
        // No such element: that was the last one.
        if done != 0 && error.raw_os_error() == Some(libc::ENOENT) {
            return Ok(());
        }
        if done != 0 || got == 0 {
            return Err(DatapathError::io(format!("reading {name}"))(error));
        }
        next += got as u32;
    }
    Ok(())
}
