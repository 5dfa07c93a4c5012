//! Where sockets' pins lie, and how they are let go of.

use lb_common::{
    abi::socket::PINS,
    socket_table::{NOWHERE, Places, counts, each, free},
};

use super::peer::node;
use crate::{
    account, affinity,
    atomic::{compare_exchange_u64, fetch_add_u32},
    maps::{SOCKET_PINS, SOCKETS},
};

/// The array of sockets.
pub struct Sockets;

impl Places for Sockets {
    #[inline(always)]
    fn state(&self, at: u32) -> u64 {
        // SAFETY: within a map's value. Volatile: others write meanwhile; a whole word.
        SOCKETS.get_ptr(at).map_or(0, |place| unsafe { (&raw const (*place).state).read_volatile() })
    }
    #[inline(always)]
    fn exchange(&self, at: u32, old: u64, new: u64) -> bool {
        let Some(place) = SOCKETS.get_ptr_mut(at) else { return false };
        // SAFETY: an aligned word of a map's value; all writers use compare-and-swap.
        unsafe { compare_exchange_u64(&raw mut (*place).state, old, new) == old }
    }
    #[inline(always)]
    fn strays(&self, at: u32) -> u32 {
        // SAFETY: as above.
        SOCKETS.get_ptr(at).map_or(0, |place| unsafe { (&raw const (*place).strays).read_volatile() })
    }
    #[inline(always)]
    fn add_strays(&self, at: u32, change: u32) {
        if let Some(place) = SOCKETS.get_ptr_mut(at) {
            // SAFETY: an aligned word of a map's value; all writers use atomics.
            unsafe { fetch_add_u32(&raw mut (*place).strays, change) };
        }
    }
}

/// A socket that sends to more services than it may is forgotten at one of them. This and what follows are functions by themselves for the
/// kernel too (Linux 5.6), numbers in and out and their names kept, so that the verifier looks at each once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_make_room(cookie: u64) -> u32 {
    let mut pins = 0;
    let (mut last, mut last_state) = (NOWHERE, 0);
    each(&Sockets, cookie, |at, state| {
        pins += 1;
        (last, last_state) = (at, state);
        pins == PINS
    });
    if pins == PINS { flowpin_release(last, last_state) } else { 0 }
}

/// Lets go of all pins of a socket.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_release_all(cookie: u64) -> u32 {
    let mut released = 0;
    each(&Sockets, cookie, |at, state| {
        released += flowpin_release(at, state);
        false
    });
    released
}

/// Lets go of a pin, if it counts and is what it was. 1 if this call did.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_release(at: u32, state: u64) -> u32 {
    let Some(pin) = SOCKET_PINS.get(at) else { return 0 };
    if !counts(state) {
        return 0;
    }
    // Not written while the state is what it is.
    let (backend, created, bound, family) = (pin.backend, pin.created, pin.bound, pin.family);
    let (port, proto) = (pin.vip_port, pin.proto);
    if !free(&Sockets, at, state) {
        return 0;
    }
    account::ended(backend, created);
    if bound != 0 {
        affinity::left(node(family), port, proto, backend, true);
    }
    1
}
