//! What is done to a packet of a flow: it is counted, translated, and goes on.

use lb_common::abi::Reason;

use super::{Family, go_on, parsed, refuse};
use crate::{
    account,
    conntrack::{self, Entry},
    direct, fragment,
    packet::{Hook, Packet, Step, get},
    parse::Parsed,
    rewrite::{self, Translation},
};

/// Carries on a packet of a flow that is settled, as nearly all are: the destination or the source is replaced. What is more than that goes on as another
/// step.
#[inline(always)]
pub fn simply<V: Family, P: Packet>(
    mut packet: P,
    parsed: &mut Parsed<V::Addr>,
    flow: Entry<V::Addr>,
) -> P::Verdict {
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    let fast = packet.hook() == Hook::FAST;
    // By XDP both sides are seldom replaced, and its stack is short: shortest where checksums may be partial.
    let apart = match P::DIRECT {
        true => direction.is_direct(),
        false => (!fast || P::MAY_BE_PARTIAL) && (fast || direction.is_full()),
    };
    if apart {
        return with_place::<V, P>(packet, parsed, flow);
    }
    if fast || direction.is_full() {
        return both::<V, P>(packet, parsed, flow);
    }
    match one::<V, P>(&mut packet, parsed, flow) {
        0 => packet.pass(),
        reason => refuse::<V, P>(packet, parsed, reason - 1),
    }
}

/// Carries on the packet that has just opened its flow: here, if its destination is all that is replaced.
#[inline(always)]
pub fn first<V: Family, P: Packet>(mut packet: P, parsed: &mut Parsed<V::Addr>, place: u32) -> P::Verdict {
    match destination::<V, P>(&mut packet, parsed, place) {
        0 => packet.pass(),
        MORE => {
            parsed.place = place;
            go_on::<V, P>(packet, Step::Carry)
        }
        reason => refuse::<V, P>(packet, parsed, reason - 1),
    }
}

/// What [`destination`] says of a packet with which more is to be done.
const MORE: u32 = u32::MAX;

/// Replaces the destination of a packet. 0, or a reason plus one, or [`MORE`]. By itself for the sake of the stack.
#[inline(never)]
fn destination<V: Family, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>, place: u32) -> u32 {
    let Some(flow) = conntrack::entry::<V>(&parsed.key, place) else { return MORE };
    // SAFETY: the pointer comes from a search in this run.
    if packet.hook() == Hook::FAST || parsed.first != 0 || unsafe { (*flow.at()).direction }.is_special() {
        return MORE;
    }
    one::<V, P>(packet, parsed, flow)
}

/// Goes on with the step of this file.
#[inline(always)]
pub fn with_place<V: Family, P: Packet>(
    packet: P,
    parsed: &mut Parsed<V::Addr>,
    flow: Entry<V::Addr>,
) -> P::Verdict {
    parsed.place = flow.place;
    go_on::<V, P>(packet, Step::Carry)
}

/// The step: a packet that has just been seen to change its flow, or isn't simply carried on.
#[inline(always)]
pub fn carry<V: Family, P: Packet>(mut packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    let Some(flow) = conntrack::entry::<V>(&parsed.key, parsed.place) else {
        return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32);
    };
    if parsed.first != 0 {
        fragment::remember::<V>(parsed);
    }
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    if direction.is_direct() {
        if !P::DIRECT {
            // TC sees to it.
            return packet.pass();
        }
        return match direct::send::<V, P>(&mut packet, parsed, flow) {
            Ok(verdict) => verdict,
            Err(reason) => refuse::<V, P>(packet, parsed, reason),
        };
    }
    if packet.hook() == Hook::FAST || direction.is_full() {
        return both::<V, P>(packet, parsed, flow);
    }
    match one_apart::<V, P>(&mut packet, parsed, flow) {
        0 => packet.pass(),
        reason => refuse::<V, P>(packet, parsed, reason - 1),
    }
}

/// Replaces one side of a packet. 0, or a reason plus one.
#[inline(always)]
fn one<V: Family, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>, flow: Entry<V::Addr>) -> u32 {
    // SAFETY: the pointer comes from a search in this run.
    let to = unsafe { Translation::of(&*flow.at()) };
    if !conntrack::same(flow) {
        return Reason::FlowBusy as u32 + 1;
    }
    account::packet(flow, packet.segments(), parsed.bytes as u64, &parsed.segment);
    match rewrite::translate::<V, P>(packet, parsed, &to) {
        Some(()) => 0,
        None => Reason::Internal as u32 + 1,
    }
}

/// The same as a function by itself, for the sake of the stack.
#[inline(never)]
fn one_apart<V: Family, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>, flow: Entry<V::Addr>) -> u32 {
    one::<V, P>(packet, parsed, flow)
}

/// Replaces both sides of a packet, or sends it on from here. By itself for the sake of the stack.
#[inline(never)]
fn both<V: Family, P: Packet>(
    mut packet: P,
    parsed: &mut Parsed<V::Addr>,
    flow: Entry<V::Addr>,
) -> P::Verdict {
    // SAFETY: the pointer comes from a search in this run.
    let direction = unsafe { (*flow.at()).direction };
    let hook = packet.hook();
    let onward = hook == Hook::FAST || !(direction.is_ported() || hook == Hook::OUT);
    let Some(ip) = packet.bytes(parsed.l3(), V::LEN) else { return packet.drop() };
    // SAFETY: the fixed IP header at `ip` was just bounds-checked.
    let last = unsafe { get::<u8>(ip, V::HOPS) } <= 1;
    if onward && last && direction.is_full() && direction.is_forward() {
        // The stack tells the sender about the packet as it knows it; about a translated one it would tell itself.
        return packet.pass();
    }
    if !conntrack::translated::<V>(flow, &mut parsed.spare) || !conntrack::same(flow) {
        return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32);
    }
    account::packet(flow, packet.segments(), parsed.bytes as u64, &parsed.segment);
    if rewrite::replace::<V, P>(&mut packet, parsed, &parsed.spare).is_none() {
        return refuse::<V, P>(packet, parsed, Reason::Internal as u32);
    }
    if onward { packet.onward::<V>(parsed.l3(), parsed.headers(), &parsed.spare) } else { packet.pass() }
}
