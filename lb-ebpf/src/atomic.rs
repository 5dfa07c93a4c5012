//! Atomic words in maps. Rust's `core` offers the BPF target neither 32-bit atomics nor compare-and-swap, though the
//! instruction set has had both since Linux 5.12 (`-C target-cpu=v3`): so those that are needed are written out.
//! On x86 and arm64 the kernel compiles them to one instruction each; order between different words is never relied on.

/// Adds to a 32-bit word and returns what was there.
///
/// # Safety
/// `word` must point into a map's value, 4-byte aligned.
#[inline(always)]
pub unsafe fn fetch_add_u32(word: *mut u32, value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut v = value;
        // SAFETY: one instruction on a valid, aligned word.
        unsafe {
            core::arch::asm!(
                "{v} = atomic_fetch_add((u32 *)({p} + 0), {v})",
                p = in(reg) word,
                v = inout(wreg) v,
            );
        }
        v
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid and aligned by this function's contract.
    unsafe {
        core::sync::atomic::AtomicU32::from_ptr(word).fetch_add(value, core::sync::atomic::Ordering::Relaxed)
    }
}

/// Adds to a 64-bit word.
///
/// # Safety
/// `word` must point into a map's value, 8-byte aligned.
#[inline(always)]
pub unsafe fn add_u64(word: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction on a valid, aligned word.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({p} + 0) += {v}",
            p = in(reg) word,
            v = in(reg) value,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid and aligned by this function's contract.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word).fetch_add(value, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Writes `new` if the word is `old`. Returns what was there: `old` if it was written.
///
/// # Safety
/// `word` must point into a map's value, 8-byte aligned.
#[inline(always)]
pub unsafe fn compare_exchange_u64(word: *mut u64, old: u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut seen = old;
        // SAFETY: one instruction on a valid, aligned word.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({p} + 0, r0, {new})",
                p = in(reg) word,
                new = in(reg) new,
                inout("r0") seen,
            );
        }
        seen
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid and aligned by this function's contract.
    unsafe {
        use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
        match AtomicU64::from_ptr(word).compare_exchange(old, new, SeqCst, SeqCst) {
            Ok(seen) | Err(seen) => seen,
        }
    }
}

/// ANDs a 64-bit word and returns what was there. With its fetch a full barrier, as the compare-and-swap is (Linux,
/// Documentation/bpf/standardization/instruction-set.rst and the kernel's memory model of value-returning atomics).
///
/// # Safety
/// `word` must point into a map's value, 8-byte aligned.
#[inline(always)]
pub unsafe fn fetch_and_u64(word: *mut u64, mask: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut v = mask;
        // SAFETY: one instruction on a valid, aligned word.
        unsafe {
            core::arch::asm!(
                "{v} = atomic_fetch_and((u64 *)({p} + 0), {v})",
                p = in(reg) word,
                v = inout(reg) v,
            );
        }
        v
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid and aligned by this function's contract.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word).fetch_and(mask, core::sync::atomic::Ordering::SeqCst)
    }
}

/// ORs a 64-bit word and returns what was there. As [`fetch_and_u64`].
///
/// # Safety
/// `word` must point into a map's value, 8-byte aligned.
#[inline(always)]
pub unsafe fn fetch_or_u64(word: *mut u64, bits: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut v = bits;
        // SAFETY: one instruction on a valid, aligned word.
        unsafe {
            core::arch::asm!(
                "{v} = atomic_fetch_or((u64 *)({p} + 0), {v})",
                p = in(reg) word,
                v = inout(reg) v,
            );
        }
        v
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid and aligned by this function's contract.
    unsafe {
        core::sync::atomic::AtomicU64::from_ptr(word).fetch_or(bits, core::sync::atomic::Ordering::SeqCst)
    }
}
