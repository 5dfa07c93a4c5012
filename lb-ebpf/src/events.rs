//! Records of flows that open and end, for those who follow. If nobody does, a flow's life costs one look at a number more.

use lb_common::abi::{Addr, Event, Flow, V4, V6, What};

use crate::{
    maps::{EVENTS, LISTEN, Tables},
    table::{both, put_own},
};

/// Does anybody follow?
#[inline(always)]
pub fn followed() -> bool {
    LISTEN.get(0).is_some_and(|listeners| *listeners != 0)
}

/// Tells of a flow, given its forward entry.
#[inline(always)]
pub fn tell<V: Tables>(forward: *const Flow<V::Addr>, what: What) {
    if put_own::<V>(forward).is_some() {
        V::tell(what.0 as u32);
    }
}

/// Tells of the flow whose forward entry has the first scratch entry's key. What can't be told for want of room is lost; who follows
/// misses a record, no packet waits.
#[inline(always)]
fn record<V: Tables>(what: u32) {
    let Some((forward, reply)) = both::<V>() else { return };
    let forward = forward.at();
    let (target, target_port, bytes_out) = match reply {
        // SAFETY: the pointer comes from a search in this run.
        Some(reply) => unsafe { ((*reply.at()).src, (*reply.at()).sport, (*reply.at()).bytes) },
        // SAFETY: as above. Who answers past the node has an entry only here.
        None => unsafe { ((*forward).nat_addr, (*forward).nat_port, 0) },
    };
    let Some(mut record) = EVENTS.reserve(0) else { return };
    let to: *mut Event = record.as_mut_ptr();
    // SAFETY: the pointer comes from a search in this run; what another flow has become of it by now is only read. The record is this
    // run's own. Field by field: the stack has no room for a second one.
    unsafe {
        (*to).bytes_in = (*forward).bytes;
        (*to).bytes_out = bytes_out;
        (*to).client = (*forward).src.words();
        (*to).vip = (*forward).dst.words();
        (*to).target = target.words();
        (*to).backend = (*forward).backend;
        (*to).created = (*forward).created;
        (*to).client_port = (*forward).sport;
        (*to).vip_port = (*forward).dport;
        (*to).target_port = target_port;
        (*to).proto = (*forward).proto;
        (*to).what = What(what as u8);
        (*to).v6 = V::IS_V6 as u32;
        (*to)._pad = 0;
    }
    record.submit(0);
}

/// [`tell`], as a global function for the kernel, IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_tell4(what: u32) -> u32 {
    record::<V4>(what);
    0
}

/// [`tell`], IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowpin_tell6(what: u32) -> u32 {
    record::<V6>(what);
    0
}
