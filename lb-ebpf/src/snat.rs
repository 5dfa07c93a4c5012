//! Source NAT: an address and port of ours for a flow, such that no other flow has it towards the same backend's address and port.
//!
//! What decides is the reply entry: it is made under (backend, ours), and there is one entry a key. So two flows can't have the same port
//! whatever happens here. That a free one is found at once, also when few are left, is for a bitmap per backend and address of ours.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_loop};
use lb_common::{
    abi::{MAX_SOURCES, PortBe, SourceKey, SourcePorts, V4, V6},
    hash,
};

use crate::{
    atomic::{fetch_and_u64, fetch_or_u64},
    maps::{NO_PORTS, Tables},
    packet::opaque,
    table::{self, EXISTS, REPLY},
};

/// Ports tried when another flow has one that passed for free.
const TRIES: u32 = 4;
/// Words of a bitmap.
const WORDS: u32 = (size_of::<SourcePorts>() / 8) as u32;
/// No port of ours is left. Not an outcome of [`table::claim`].
pub const NONE_LEFT: u32 = table::NOWHERE + 5;

/// Claims a lane for the reply entry of a flow, which is complete but for where replies go to: that is an address and port of ours, chosen here.
/// As [`table::claim`], or [`NONE_LEFT`].
#[inline(always)]
pub fn claim<V: Tables>(lot: u32) -> u32 {
    V::claim_ours(lot)
}

/// [`claim`].
#[inline(always)]
fn take_and_claim<V: Tables>(lot: u32) -> u32 {
    let mut lot = lot;
    for _ in 0..opaque(TRIES as usize) {
        if V::take_port(lot) == 0 {
            return NONE_LEFT;
        }
        let place = table::claim::<V>(REPLY);
        if place != EXISTS {
            if place & table::NOWHERE != 0 {
                V::free_port();
            }
            return place;
        }
        // Whose it is gives it back.
        lot = hash::mix(lot);
    }
    table::BUSY
}

/// Gives back the port of the second scratch entry's key, whose entry is gone.
#[inline(always)]
pub fn give_back<V: Tables>() {
    V::free_port();
}

#[inline(always)]
fn key<V: Tables>(which: u32) -> Option<SourceKey<V::Addr>> {
    let scratch = table::scratch::<V>(which)?;
    // SAFETY: this CPU's own entry; programs on it don't preempt each other in softirq.
    unsafe {
        Some(SourceKey {
            backend: (*scratch).src,
            source: (*scratch).dst,
            port: (*scratch).sport,
            proto: (*scratch).proto,
            _pad: 0,
        })
    }
}

/// A walk over a bitmap.
#[repr(C)]
struct Walk {
    taken: *mut u64,
    /// Words in use.
    words: u32,
    /// Bits of the last of them.
    last: u32,
    /// Where it begins.
    first: u32,
    /// The bit that was taken, or all ones.
    found: u32,
}

/// Takes a port for the second scratch entry. 0: there is none.
#[inline(always)]
fn take<V: Tables>(lot: u32) -> u32 {
    let Some(sources) = V::sources().get(0) else { return 0 };
    let (count, ports) = (sources.count, sources.ports as u32);
    let first = hash::reduce(lot, count);
    let words = ports.div_ceil(64);
    for i in 0..opaque(MAX_SOURCES) as u32 {
        if i >= count {
            break;
        }
        let mut which = first + i;
        if which >= count {
            which -= count;
        }
        let Some(scratch) = table::scratch::<V>(REPLY) else { return 0 };
        // SAFETY: as in `key`.
        unsafe { (*scratch).dst = sources.addr[which as usize & (MAX_SOURCES - 1)] };
        let Some(key) = key::<V>(REPLY) else { return 0 };
        let taken = match V::ports().get_ptr_mut(key) {
            Some(taken) => taken,
            None => {
                let Some(none) = NO_PORTS.get(0) else { return 0 };
                // Another CPU may have been first.
                let _ = V::ports().insert(key, none, BPF_NOEXIST as u64);
                let Some(taken) = V::ports().get_ptr_mut(key) else { return 0 };
                taken
            }
        };
        let mut walk = Walk {
            taken: taken.cast(),
            words,
            last: ports & 63,
            first: hash::reduce(hash::mix(lot), words),
            found: u32::MAX,
        };
        // SAFETY: the callback has the signature that the helper wants, and the context outlives the call.
        unsafe {
            bpf_loop(
                words,
                look as unsafe extern "C" fn(u64, *mut Walk) -> i64 as *mut c_void,
                (&raw mut walk).cast(),
                0,
            );
        }
        if walk.found != u32::MAX {
            // SAFETY: as in `key`.
            unsafe { (*scratch).dport = PortBe::new(sources.first.wrapping_add(walk.found as u16)) };
            return 1;
        }
    }
    0
}

/// Takes a bit of a word, if one is free. Returns 0 if none is: the next word, please.
unsafe extern "C" fn look(index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the helper hands over what `take` gave it.
    let walk = unsafe { &mut *walk };
    // Reckoned from the index, of which the verifier knows nothing: it would count along with a counter.
    let mut word = walk.first.wrapping_add(index as u32);
    if word >= walk.words {
        word = word.wrapping_sub(walk.words);
    }
    if word >= WORDS {
        return 1;
    }
    // SAFETY: within the bitmap; a replaced or removed element lives on until the program is done.
    let at = unsafe { walk.taken.add(word as usize) };
    let usable = if word == walk.words - 1 && walk.last != 0 { (1u64 << walk.last) - 1 } else { u64::MAX };
    // SAFETY: as above; volatile: other CPUs write meanwhile.
    let free = !unsafe { at.read_volatile() } & usable;
    if free != 0 {
        let bit = free & free.wrapping_neg();
        // SAFETY: as above; all writers use atomics.
        if unsafe { fetch_or_u64(at, bit) } & bit == 0 {
            walk.found = word * 64 + number(bit);
            return 1;
        }
    }
    0
}

/// Which bit it is: how many there are below it. Arithmetic only, which has one way through; counting zeros has many, and the verifier would
/// go them all.
#[inline(always)]
const fn number(bit: u64) -> u32 {
    let below = bit - 1;
    let pairs = below - (below >> 1 & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

/// Frees the port of the second scratch entry.
#[inline(always)]
fn free<V: Tables>() {
    let (Some(scratch), Some(key), Some(sources)) =
        (table::scratch::<V>(REPLY), key::<V>(REPLY), V::sources().get(0))
    else {
        return;
    };
    // SAFETY: as in `key`.
    let port = unsafe { (*scratch).dport }.get().wrapping_sub(sources.first) as u32;
    let Some(taken) = V::ports().get_ptr_mut(key) else { return };
    let word = port / 64;
    if word < WORDS {
        // SAFETY: within the bitmap; all writers use atomics.
        unsafe { fetch_and_u64(taken.cast::<u64>().add(word as usize), !(1 << (port & 63))) };
    }
}

/// [`take`], as a global function for the kernel, IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_take_port4(lot: u32) -> u32 {
    take::<V4>(lot)
}

/// [`take`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_take_port6(lot: u32) -> u32 {
    take::<V6>(lot)
}

/// [`claim`], as a global function for the kernel, IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_claim_ours4(lot: u32) -> u32 {
    take_and_claim::<V4>(lot)
}

/// [`claim`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_claim_ours6(lot: u32) -> u32 {
    take_and_claim::<V6>(lot)
}

/// [`free`], IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_free_port4() -> u32 {
    free::<V4>();
    0
}

/// [`free`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_free_port6() -> u32 {
    free::<V6>();
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_bit_has_its_number() {
        for n in 0..64 {
            assert_eq!(super::number(1 << n), n);
        }
    }
}
