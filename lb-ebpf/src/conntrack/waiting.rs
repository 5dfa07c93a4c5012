//! Flows that nobody but their client has confirmed yet, of services that have only so many places for them, or bindings for their clients: where
//! none is left, one that has waited for long gives its own to a new one. So half handshakes shut nobody out, and open connections keep what they
//! have.
//!
//! What is kept is where their entries lie, in the order in which they were opened. Nothing is taken out when a handshake is done: whoever looks
//! for a place passes over what waits no longer.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{FlowKey, Proto, ServiceId},
    expiry::age,
};

use super::room::{OVER, Rank};
use crate::{
    atomic::fetch_add_u32,
    family::global_functions,
    maps::{BACKENDS, Maps, TICK_HZ, WAITING},
    packet::opaque,
    table::{NOWHERE, entry_at},
};

/// What there may be too little of for new flows.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Scarce {
    /// Places on backends that have limits.
    Places = 0,
    /// Bindings for clients.
    Bindings = 1,
}

/// Flows that a ring keeps; those before them are left to their timeout.
const KEPT: usize = 2048;
/// Rings of the bindings: they are all services' together, and one for each IP version.
const OF_BINDINGS: u32 = 2;
/// Rings of places: two for a service, one for each IP version, since a backend has one. Of more services than these are for, some share.
const OF_PLACES: u32 = 128;
/// All of them.
pub const RINGS: usize = (OF_BINDINGS + OF_PLACES) as usize;
/// Flows that are looked at at most, for a new one, before it takes another turn.
const LOOKS: usize = 16;
/// What [`Overdue`] returns: another turn, please.
pub const MORE: u32 = NOWHERE + 1;

/// See the module.
#[repr(C)]
pub struct Ring {
    /// How many were ever put in.
    noted: u32,
    /// How many of them were passed over.
    passed: u32,
    places: [u32; KEPT],
}

/// A service's. `what` is scarce: [`Scarce`], as a number.
#[inline(always)]
fn ring(service: ServiceId, v6: bool, what: u32) -> Option<*mut Ring> {
    let number = match what == Scarce::Bindings as u32 {
        true => v6 as u32,
        false => OF_BINDINGS + (service * 2 + v6 as u32) % OF_PLACES,
    };
    WAITING.get_ptr_mut(number)
}

/// Where the flow of a number is noted.
///
/// # Safety
/// The ring must be a map's value.
#[inline(always)]
unsafe fn slot(ring: *mut Ring, number: u32) -> *mut u32 {
    // SAFETY: within the ring.
    unsafe { (&raw mut (*ring).places).cast::<u32>().add(opaque(number as usize) & (KEPT - 1)) }
}

/// Notes a flow that has just been opened and has something that is scarce. `place`: where its forward entry lies.
#[inline(always)]
pub fn note<V: Maps>(service: ServiceId, what: Scarce, place: u32) {
    let Some(ring) = ring(service, V::IS_V6, what as u32) else { return };
    // SAFETY: array maps' values live as long as the map; whole words, which other CPUs write meanwhile: at worst a flow is missed.
    unsafe { slot(ring, fetch_add_u32(&raw mut (*ring).noted, 1)).write_volatile(place) };
}

/// What can be said of a flow that was noted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It waits no longer, or another is in its place.
    Nothing,
    /// It is another service's.
    Anothers,
    /// It waits, but hardly for longer than a handshake takes.
    New,
    /// It has waited for long.
    Overdue,
}

global_functions! {
    /// Looking for flows that have waited for long, as a global function.
    pub trait Overdue: Rank {
        /// Where the forward entry lies of the oldest flow of a service that has waited for long. `what` it has: [`Scarce`], as a number.
        /// [`NOWHERE`]: there is none. [`MORE`]: there may be one among those that weren't looked at.
        fn overdue(spare: FlowKey; service: ServiceId, what: u32) = overdue;
    }
}

/// See [`Overdue`].
#[inline(always)]
fn overdue<V: Rank>(spare: *mut FlowKey<V::Addr>, service: ServiceId, what: u32) -> u32 {
    let Some(ring) = ring(service, V::IS_V6, what) else { return NOWHERE };
    // SAFETY: as in `note`.
    let (noted, passed) =
        unsafe { ((&raw const (*ring).noted).read_volatile(), (&raw const (*ring).passed).read_volatile()) };
    let mut at =
        if noted.wrapping_sub(passed) > KEPT as u32 { noted.wrapping_sub(KEPT as u32) } else { passed };
    // Those of another service stay, and with them who is behind.
    let mut ours = true;
    for _ in 0..opaque(LOOKS) {
        if at == noted {
            return NOWHERE;
        }
        // SAFETY: as in `note`.
        let place = unsafe { slot(ring, at).read_volatile() };
        let found = look::<V>(place, service, what, spare);
        if found == Found::New {
            return NOWHERE;
        }
        ours &= found != Found::Anothers;
        at = at.wrapping_add(1);
        if ours {
            // SAFETY: as in `note`.
            unsafe { (&raw mut (*ring).passed).write_volatile(at) };
        }
        if found == Found::Overdue {
            return place;
        }
    }
    MORE
}

/// Looks at the flow whose forward entry lies there.
#[inline(always)]
fn look<V: Rank>(place: u32, service: ServiceId, what: u32, spare: *mut FlowKey<V::Addr>) -> Found {
    let Some(flow) = entry_at::<V>(place) else { return Found::Nothing };
    // SAFETY: the pointer comes from a search in this run; whole words, written before the entry is made and never after.
    let (direction, proto, backend, created) =
        unsafe { ((*flow.at()).direction, (*flow.at()).proto, (*flow.at()).backend, (*flow.at()).created) };
    if !direction.is_forward() {
        return Found::Nothing;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let rank = V::rank(spare, place, now as u32);
    if rank == 0 || rank & OVER != 0 {
        return Found::Nothing;
    }
    let its = what == Scarce::Bindings as u32
        || BACKENDS.get(backend.0).is_some_and(|record| record.service == service);
    match (its, is_overdue(now, created, rank, proto)) {
        (false, _) => Found::Anothers,
        (true, false) => Found::New,
        (true, true) => Found::Overdue,
    }
}

/// Has a flow waited for long? A quarter of a second is longer than handshakes take, but for clients at the other end of the world; that
/// its client repeats itself changes nothing. Of UDP it is silence that tells: nobody need answer. `rank`: see [`Rank`]. By itself for the sake of
/// the stack.
#[inline(never)]
pub fn is_overdue(now: u64, created: u32, rank: u32, proto: Proto) -> bool {
    let second = TICK_HZ.load();
    age(now, created) >= second as u64 / 4 && (proto != Proto::UDP || rank >= second)
}
