//! Array maps, read where they lie: mapped into the agent, so that looking at an entry costs no system call and delays nobody.

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::DatapathError;

/// An array map's values, whatever they are.
pub struct Bytes {
    start: NonNull<libc::c_void>,
    bytes: NonZeroUsize,
    length: u32,
    size: usize,
}

// SAFETY: memory that is read and written by volatile and atomic operations only, stays mapped until the drop, and belongs to no thread.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// Of this map; to be written, too, if `write`.
    ///
    /// # Errors
    /// It can't be mapped.
    pub fn new(map: &MapData, name: &str, write: bool) -> Result<Self, DatapathError> {
        let info = map.info().map_err(DatapathError::kernel(name.to_string()))?;
        // Values begin at multiples of eight (`array_map_alloc`, kernel/bpf/arraymap.c).
        let (length, size) = (info.max_entries(), (info.value_size() as usize).next_multiple_of(8));
        let failed = || DatapathError::io(format!("mapping {name}"));
        let bytes = NonZeroUsize::new(length as usize * size)
            .ok_or(std::io::ErrorKind::InvalidInput.into())
            .map_err(failed())?;
        let may = if write { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is there.
        let start = unsafe { mmap(None, bytes, may, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .map_err(|e| failed()(e.into()))?;
        Ok(Self { start, bytes, length, size })
    }

    /// Values.
    pub const fn len(&self) -> u32 {
        self.length
    }

    /// Bytes from one value to the next.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Where a value lies.
    ///
    /// # Panics
    /// There are not so many.
    const fn at(&self, index: u32) -> *mut u8 {
        assert!(index < self.length);
        // SAFETY: within the mapping.
        unsafe { self.start.as_ptr().cast::<u8>().add(index as usize * self.size) }
    }

    /// Its words. Others may write them meanwhile.
    fn words(&self, index: u32) -> impl Iterator<Item = &AtomicU64> {
        let start = self.at(index).cast::<u64>();
        // SAFETY: within the mapping and aligned; all that is done with it is atomic.
        (0..self.size / 8).map(move |word| unsafe { AtomicU64::from_ptr(start.add(word)) })
    }

    /// One of the words of 32 bits of a value. Others may read and write it meanwhile.
    ///
    /// # Panics
    /// There are not so many.
    pub const fn word(&self, index: u32, at: usize) -> &AtomicU32 {
        assert!(at < self.size / 4);
        let start = self.at(index).cast::<u32>();
        // SAFETY: within the mapping and aligned; all that is done with it is atomic.
        unsafe { AtomicU32::from_ptr(start.add(at)) }
    }

    /// Copies a value out, word by word.
    pub fn read(&self, index: u32, out: &mut [u8]) {
        for (word, out) in self.words(index).zip(out.chunks_exact_mut(8)) {
            out.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
    }

    /// Copies a value in, word by word. For maps that nobody else writes; they were mapped for that.
    pub fn write(&self, index: u32, value: &[u8]) {
        for (word, value) in self.words(index).zip(value.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(value.try_into().unwrap_or_default()), Relaxed);
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, this long, and nobody has it any more.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

/// An array map of `T`s, mapped read-only.
pub struct Mapping<T> {
    bytes: Bytes,
    value: PhantomData<fn() -> T>,
}

impl<T> Mapping<T> {
    /// Of this map.
    ///
    /// # Errors
    /// Its values are of another size, or it can't be mapped.
    pub fn new(map: &MapData, name: &str) -> Result<Self, DatapathError> {
        let bytes = Bytes::new(map, name, false)?;
        if bytes.size != size_of::<T>() {
            let error = format!("values of {} bytes, not {}", bytes.size, size_of::<T>());
            return Err(DatapathError::Kernel { what: name.into(), error });
        }
        Ok(Self { bytes, value: PhantomData })
    }

    /// Values.
    pub const fn len(&self) -> u32 {
        self.bytes.length
    }

    /// Where a value lies. Others write it meanwhile.
    ///
    /// # Panics
    /// There are not so many.
    pub const fn at(&self, index: u32) -> *mut T {
        self.bytes.at(index).cast()
    }
}
