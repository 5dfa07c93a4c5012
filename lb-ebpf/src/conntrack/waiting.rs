//! Flows that nobody but their client has confirmed yet, of services that have only so many places for them, or bindings for their clients: where
//! none is left, one that has waited for long gives its own to a new one. So half handshakes shut nobody out, and open connections keep what they
//! have.
//!
//! What is kept is where their entries lie, in the order in which they were opened. Nothing is taken out when a handshake is done: whoever looks
//! for a place passes over what waits no longer.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{FlowKey, Scarce, Service, ServiceId},
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

/// Flows that a ring keeps; those before them are left to their timeout.
const KEPT: usize = 2048;
/// Rings: four for a service, one for each IP version, since a backend has one, and for each kind of what is scarce. Of more services than these
/// are for, some share.
pub const RINGS: usize = 256;
/// Flows that are passed over at most, for a new one.
const LOOKS: usize = 16;

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
    WAITING.get_ptr_mut((service * 4 + what * 2 + v6 as u32) & (RINGS as u32 - 1))
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

/// Notes a flow that has just been opened, if it has something that is scarce. `place`: where its forward entry lies.
#[inline(always)]
pub fn note<V: Maps>(service: &Service, place: u32) {
    if service.scarce & Scarce::Places.bit() != 0 {
        put::<V>(service.id, Scarce::Places, place);
    }
    if service.scarce & Scarce::Bindings.bit() != 0
        && entry_at::<V>(place).is_some_and(|flow| flow.seen.bound())
    {
        put::<V>(service.id, Scarce::Bindings, place);
    }
}

#[inline(always)]
fn put<V: Maps>(service: ServiceId, what: Scarce, place: u32) {
    let Some(ring) = ring(service, V::IS_V6, what as u32) else { return };
    // SAFETY: array maps' values live as long as the map; whole words, which other CPUs write meanwhile: at worst a flow is missed.
    unsafe { slot(ring, fetch_add_u32(&raw mut (*ring).noted, 1)).write_volatile(place) };
}

/// What can be said of a flow that was noted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It waits no longer, or another is in its place.
    Nothing,
    /// It waits, but hardly for longer than a handshake takes.
    New,
    /// It has waited for long.
    Overdue,
}

global_functions! {
    /// Looking for flows that have waited for long, as a global function.
    pub trait Overdue: Rank {
        /// Where the forward entry lies of the oldest flow of a service that has waited for long. `what` it has: [`Scarce`], as a number.
        /// [`NOWHERE`]: there is none.
        fn overdue(spare: FlowKey; service: ServiceId, what: u32) = overdue;
    }
}

/// See [`Overdue`].
#[inline(always)]
fn overdue<V: Rank>(spare: *mut FlowKey<V::Addr>, service: ServiceId, what: u32) -> u32 {
    let Some(ring) = ring(service, V::IS_V6, what) else { return NOWHERE };
    for _ in 0..opaque(LOOKS) {
        // SAFETY: as in `put`.
        let (noted, passed) = unsafe {
            ((&raw const (*ring).noted).read_volatile(), (&raw const (*ring).passed).read_volatile())
        };
        if noted == passed {
            return NOWHERE;
        }
        let oldest =
            if noted.wrapping_sub(passed) > KEPT as u32 { noted.wrapping_sub(KEPT as u32) } else { passed };
        // SAFETY: as in `put`.
        let place = unsafe { slot(ring, oldest).read_volatile() };
        let found = look::<V>(place, service, spare);
        if found == Found::New {
            return NOWHERE;
        }
        // SAFETY: as in `put`.
        unsafe { (&raw mut (*ring).passed).write_volatile(oldest.wrapping_add(1)) };
        if found == Found::Overdue {
            return place;
        }
    }
    NOWHERE
}

/// Looks at the flow whose forward entry lies there.
#[inline(always)]
fn look<V: Rank>(place: u32, service: ServiceId, spare: *mut FlowKey<V::Addr>) -> Found {
    let Some(flow) = entry_at::<V>(place) else { return Found::Nothing };
    // SAFETY: the pointer comes from a search in this run; whole words, written before the entry is made and never after.
    let (direction, backend, created) =
        unsafe { ((*flow.at()).direction, (*flow.at()).backend, (*flow.at()).created) };
    if !direction.is_forward() || BACKENDS.get(backend.0).is_none_or(|record| record.service != service) {
        return Found::Nothing;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_jiffies64() };
    let rank = V::rank(spare, place, now as u32);
    if rank == 0 || rank & OVER != 0 {
        return Found::Nothing;
    }
    // A quarter of a second is longer than handshakes take, but for clients at the other end of the world.
    if age(now, created) < TICK_HZ.load() as u64 / 4 { Found::New } else { Found::Overdue }
}
