//! Array maps, read where they lie: mapped into the agent, so that looking at an entry costs no system call and delays nobody.

use std::{marker::PhantomData, num::NonZeroUsize, os::fd::AsFd, ptr::NonNull};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::DatapathError;

/// An array map of `T`s, mapped read-only.
pub struct Mapping<T> {
    start: NonNull<libc::c_void>,
    bytes: NonZeroUsize,
    length: u32,
    value: PhantomData<T>,
}

// SAFETY: memory that is only read, by volatile and atomic loads, stays mapped until the drop, and belongs to no thread.
unsafe impl<T> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapping<T> {}

impl<T> Mapping<T> {
    /// Of this map.
    ///
    /// # Errors
    /// Its values are of another size, or it can't be mapped.
    pub fn new(map: &MapData, name: &str) -> Result<Self, DatapathError> {
        let info = map.info().map_err(DatapathError::kernel(name.to_string()))?;
        let (length, size) = (info.max_entries(), info.value_size() as usize);
        if size != size_of::<T>() {
            let error = format!("values of {size} bytes, not {}", size_of::<T>());
            return Err(DatapathError::Kernel { what: name.into(), error });
        }
        let failed = || DatapathError::io(format!("mapping {name}"));
        let bytes = NonZeroUsize::new(length as usize * size)
            .ok_or(std::io::ErrorKind::InvalidInput.into())
            .map_err(failed())?;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is there.
        let start =
            unsafe { mmap(None, bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
                .map_err(|e| failed()(e.into()))?;
        Ok(Self { start, bytes, length, value: PhantomData })
    }

    /// Values.
    pub const fn len(&self) -> u32 {
        self.length
    }

    /// Where a value lies. Others write it meanwhile.
    ///
    /// # Panics
    /// There are not so many.
    pub const fn at(&self, index: u32) -> *mut T {
        assert!(index < self.length);
        // SAFETY: within the mapping.
        unsafe { self.start.as_ptr().cast::<T>().add(index as usize) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, this long, and nobody has it any more.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
