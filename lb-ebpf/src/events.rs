//! Records of flows that open and end, for those who follow. If nobody does, a flow's life costs one look at a number more.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::generated::bpf_jiffies64};
use lb_common::{
    abi::{
        Addr, CREATED_SHIFT, Event, FlowKey, What,
        event::{listen, lost},
    },
    flow_state::Word,
};

use crate::{
    account,
    family::global_functions,
    maps::{EVENTS, LISTEN},
    table::{Locate, entry_of, visit_twin},
};

global_functions! {
    /// Telling, as a global function.
    pub trait Tell: Locate {
        /// Tells what became of a flow. `forward`: where its forward entry lies; `state`: a word of the flow's; `spare`: room for
        /// a key.
        fn tell(spare: FlowKey; forward: u32, state: u64, what: u32) = record;
    }
}

/// Does anybody want to be told of these: [`listen::OPENED`] or [`listen::ENDED`]?
#[inline(always)]
pub fn followed(which: u32) -> bool {
    LISTEN.get(listen::WANTED).is_some_and(|wanted| *wanted & which != 0)
}

/// What can't be told for want of room is lost, and counted; who follows misses a record, no packet waits.
#[inline(always)]
fn record<V: Locate>(spare: *mut FlowKey<V::Addr>, place: u32, state: u64, what: u32) -> u32 {
    // SAFETY: the kernel's verifier vouches for memory of that size, or null.
    let Some(spare) = (unsafe { spare.as_mut() }) else { return 0 };
    let told = write::<V>(spare, place, state, what);
    if !told {
        account::untold(if what == What::OPENED.0 as u32 { lost::OPENED } else { lost::ENDED });
    }
    told as u32
}

#[inline(always)]
fn write<V: Locate>(spare: &mut FlowKey<V::Addr>, place: u32, state: u64, what: u32) -> bool {
    let Some(forward) = entry_of::<V>(place, Word(state)) else { return false };
    let reply = visit_twin::<V>(forward.at(), spare);
    let forward = forward.at();
    let (target, target_port, bytes_out, created_low) = match reply {
        // SAFETY: the pointer comes from a search in this run.
        Some(reply) => unsafe {
            ((*reply.at()).src, (*reply.at()).sport, (*reply.at()).bytes, (*reply.at()).asked_at)
        },
        // SAFETY: as above. Who answers past the node has an entry only here.
        None => unsafe { ((*forward).nat_addr, (*forward).nat_port, 0, 0) },
    };
    let Some(mut record) = EVENTS.reserve(0) else { return false };
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
        (*to).v6 = V::IS_V6 as u8;
        (*to).created_low = created_low as u8 & ((1 << CREATED_SHIFT) - 1);
        (*to)._pad = 0;
        (*to).at = bpf_jiffies64() as u32;
    }
    // Who only keeps a log comes by now and then, and is woken by none of them.
    record.submit(if followed(listen::OPENED) { 0 } else { BPF_RB_NO_WAKEUP as u64 });
    true
}
