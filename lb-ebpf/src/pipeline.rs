//! The packet's diary: what happens in which order, and what each outcome means.

use aya_log_ebpf::debug;
use lb_common::{
    abi::{
        Backend, BackendId, Direction, FlowKey, Forward, PortBe, Proto, Reason, Service, ServiceId, Stray,
        V4, V6,
    },
    flow_state::{Phase, flags},
    hash,
};

use crate::{
    account, affinity, choose,
    conntrack::{self, Entry, Opening, REFUSED, Step},
    direct, fragment,
    icmp::{self, Icmp, Meant},
    maps::BACKENDS,
    packet::{Packet, get, opaque},
    parse::{self, Header, Layer3, Parsed, Why},
    reset,
    rewrite::{self, Translation},
    service, unreachable,
};

/// Both IP versions can do all of this.
pub trait Family: Header + Icmp {}
impl<V: Header + Icmp> Family for V {}

/// A packet comes in.
#[inline(always)]
pub fn run<P: Packet>(packet: P) -> P::Verdict {
    match parse::ethernet(&packet) {
        Layer3::V4(at) => ip::<V4, P>(packet, at),
        Layer3::V6(at) => ip::<V6, P>(packet, at),
        Layer3::Other => packet.pass(),
    }
}

/// Not inlined: the two versions' frames would lie side by side on the 512 bytes of stack that there are.
#[inline(never)]
fn ip<V: Family, P: Packet>(mut packet: P, l3: usize) -> P::Verdict {
    let Some(parsed) = V::parsed().get_ptr_mut(0) else { return packet.pass() };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq, and nothing else refers to it.
    let parsed = unsafe { &mut *parsed };
    match V::parse(&packet, l3, parsed) {
        Ok(()) => {}
        Err(Why::FirstFragment) if fragment::first::<V>(parsed) => {}
        Err(Why::Fragment) if fragment::later::<V>(parsed) => {}
        Err(why) => return aside::<V, P>(packet, parsed, why),
    }
    let mut found = conntrack::find::<V>(&parsed.key);
    if let Some(flow) = found
        && parsed.key.proto == Proto::TCP
        && !conntrack::settled(flow, &parsed.segment)
    {
        match conntrack::track::<V>(flow, &parsed.segment) {
            Step::Belongs => {}
            Step::Anew => found = None,
            Step::Busy => return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32),
            Step::Closed => return refuse::<V, P>(packet, parsed, Reason::ConnectionClosed as u32),
        }
    }
    if found.is_none() {
        if parsed.l4() == 0 {
            // The flow is gone that its first fragment was of.
            return refuse::<V, P>(packet, parsed, Reason::Fragment as u32);
        }
        let Some(service) = service::lookup::<V>(&parsed.key) else { return packet.pass() };
        if !P::DIRECT && service.forward.is_direct() {
            // TC sees to it.
            return packet.pass();
        }
        if !service::admits::<V>(service, &parsed.key.src) {
            // Whatever it is: who isn't let in learns nothing.
            return refuse::<V, P>(packet, parsed, Reason::SourceNotAllowed as u32);
        }
        let opened = open::<V>(parsed, service);
        if opened & REFUSED != 0 {
            return refuse::<V, P>(packet, parsed, opened & !REFUSED);
        }
        found = conntrack::entry::<V>(&parsed.key, opened);
        log_open(packet.context(), parsed.key.sport, service.id);
    }
    let Some(flow) = found else { return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32) };
    // SAFETY: the pointer comes from a search in this run.
    if P::FAST || unsafe { (*flow.at()).direction }.is_special() {
        return special::<V, P>(packet, parsed, flow);
    }
    // SAFETY: as above.
    let to = unsafe { Translation::of(&*flow.at()) };
    if !conntrack::same(flow) {
        return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32);
    }
    account::packet(flow, packet.segments(), parsed.bytes as u64, &parsed.segment);
    match rewrite::translate::<V, P>(&mut packet, parsed, &to) {
        Some(()) => packet.pass(),
        None => refuse::<V, P>(packet, parsed, Reason::Internal as u32),
    }
}

/// A packet of a flow that is more than an address to be replaced. A step by itself for the sake of the stack.
#[inline(never)]
fn special<V: Family, P: Packet>(packet: P, parsed: &Parsed<V::Addr>, flow: Entry<V::Addr>) -> P::Verdict {
    // SAFETY: the pointer comes from a search in this run.
    if unsafe { (*flow.at()).direction }.is_direct() {
        return direct::send::<V, P>(packet, parsed, flow);
    }
    onward::<V, P>(packet, parsed, flow)
}

/// A packet of a flow that is sent on from here, or has an address of ours.
#[inline(never)]
fn onward<V: Family, P: Packet>(mut packet: P, parsed: &Parsed<V::Addr>, flow: Entry<V::Addr>) -> P::Verdict {
    let Some(ip) = packet.bytes(parsed.l3(), V::LEN) else { return packet.drop() };
    // SAFETY: the fixed IP header at `ip` was just bounds-checked; the pointer comes from a search in this run.
    let (last, direction) = unsafe { (get::<u8>(ip, V::HOPS) <= 1, (*flow.at()).direction) };
    if last && direction.is_full() && direction.is_forward() {
        // The stack tells the sender about the packet as he knows it; about a translated one it would tell itself.
        return packet.pass();
    }
    let Some(new) = conntrack::translated::<V>(flow) else {
        return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32);
    };
    if !conntrack::same(flow) {
        return refuse::<V, P>(packet, parsed, Reason::FlowBusy as u32);
    }
    account::packet(flow, packet.segments(), parsed.bytes as u64, &parsed.segment);
    if rewrite::replace::<V, P>(&mut packet, parsed, &new).is_none() {
        return refuse::<V, P>(packet, parsed, Reason::Internal as u32);
    }
    packet.onward::<V>(parsed.l3(), parsed.headers(), &new)
}

/// A packet of no flow, for a service: pins a new flow, if it may. As [`conntrack::pin`] says it.
#[inline(never)]
fn open<V: Family>(parsed: &Parsed<V::Addr>, service: &Service) -> u32 {
    let bits = parsed.segment.flags;
    let phase = match parsed.key.proto {
        Proto::UDP => Phase::UDP,
        _ if parsed.segment.opens() => Phase::SYN_SENT,
        _ if bits & flags::RST != 0 => return REFUSED | Reason::StrayReset as u32,
        _ if service.stray == Stray::FORWARD && bits & flags::SYN == 0 => Phase::ESTABLISHED,
        _ => return REFUSED | Reason::Stray as u32,
    };
    let hash = hash::flow(&parsed.key);
    let chance = conntrack::chance();
    let mut pinned = REFUSED | Reason::Internal as u32;
    for again in 0..opaque(2) {
        let chosen = if service.affine != 0 {
            affinity::choose(service, parsed.key.src, hash, chance)
        } else {
            choose::backend(service, hash, chance)
        };
        if chosen & REFUSED != 0 {
            return chosen;
        }
        let (backend, bound) = (BackendId(chosen & !affinity::BOUND), chosen & affinity::BOUND != 0);
        let Some(record) = BACKENDS.get(backend.0) else { return REFUSED | Reason::Internal as u32 };
        let way = way::<V>(service, record, parsed);
        pinned = conntrack::pin::<V>(parsed, record, &Opening { phase, backend, chance, hash, bound, way });
        if again != 0
            || pinned != REFUSED | Reason::PortConflict as u32
            || !conntrack::make_room::<V>(&parsed.key, record)
        {
            break;
        }
    }
    pinned
}

/// What is done to packets of a service's flow to a backend. A function by itself for the sake of the stack.
#[inline(never)]
fn way<V: Family>(service: &Service, backend: &Backend, parsed: &Parsed<V::Addr>) -> Direction {
    if service.forward.is_direct() {
        return Direction::direct(service.forward == Forward::DSR_IPIP);
    }
    // A backend that reaches itself would answer itself, past us.
    Direction::FORWARD.full_if(service.forward == Forward::SNAT || V::address(backend) == parsed.key.src)
}

/// One record per new flow, when the agent asked for it at load time; otherwise the verifier removes it. Little is said: each
/// argument costs stack, whether logging is on or not.
#[inline(never)]
fn log_open<C: aya_ebpf::EbpfContext>(ctx: &C, port: PortBe, service: ServiceId) {
    debug!(ctx, "new flow: service {}, client port {}", service, port.get());
}

/// A packet that goes no further: counted, and answered if its sender is waiting for an answer.
#[inline(never)]
fn refuse<V: Family, P: Packet>(mut packet: P, parsed: &Parsed<V::Addr>, reason: u32) -> P::Verdict {
    account::reason(reason);
    if parsed.l4() == 0 {
        return packet.drop();
    }
    let tcp = parsed.key.proto == Proto::TCP;
    let empty = reason == Reason::NoBackend as u32 || reason == Reason::BackendsFull as u32;
    let reset = empty
        || reason == Reason::TableFull as u32
        || reason == Reason::Stray as u32
        || reason == Reason::PortConflict as u32
        || reason == Reason::NoSourcePort as u32
        || reason == Reason::ConnectionClosed as u32;
    let answered = if tcp && reset {
        reset::make::<V, P>(&mut packet, parsed)
    } else if !tcp && empty {
        unreachable::make::<V, P>(&mut packet, parsed)
    } else {
        return packet.drop();
    };
    if answered {
        return packet.send_back();
    }
    account::reason(Reason::Unanswered as u32);
    packet.drop()
}

/// A packet without a 5-tuple.
#[inline(never)]
fn aside<V: Family, P: Packet>(mut packet: P, parsed: &Parsed<V::Addr>, why: Why) -> P::Verdict {
    if why == Why::Icmp {
        return match icmp::meet::<V, P>(&mut packet, parsed, true) {
            Meant::Onward => packet.pass(),
            Meant::Answer => packet.send_back(),
            Meant::Spoilt => refuse::<V, P>(packet, parsed, Reason::Internal as u32),
        };
    }
    if oddity::<V>(&parsed.key, why) { packet.drop() } else { packet.pass() }
}

/// A packet of the node's own, or one that it forwards, goes out: an error of the node's about a packet that came in by [`run`] speaks of it
/// as it is by now, and is made to speak of it as its sender knows it.
#[inline(always)]
pub fn leave<P: Packet>(packet: P) -> P::Verdict {
    match parse::ethernet(&packet) {
        Layer3::V4(at) => outgoing::<V4, P>(packet, at),
        Layer3::V6(at) => outgoing::<V6, P>(packet, at),
        Layer3::Other => packet.pass(),
    }
}

#[inline(never)]
fn outgoing<V: Family, P: Packet>(mut packet: P, l3: usize) -> P::Verdict {
    // Nearly everything is something else, and told by a byte.
    let Some(p) = packet.bytes(l3, V::LEN) else { return packet.pass() };
    // SAFETY: the fixed IP header at `p` was just bounds-checked.
    if unsafe { get::<u8>(p, V::PROTO) } != <V as Header>::ICMP.0 {
        return packet.pass();
    }
    let Some(parsed) = V::parsed().get_ptr_mut(0) else { return packet.pass() };
    // SAFETY: as in `ip`.
    let parsed = unsafe { &mut *parsed };
    if V::parse(&packet, l3, parsed) == Err(Why::Icmp)
        && icmp::meet::<V, P>(&mut packet, parsed, false) == Meant::Spoilt
    {
        return refuse::<V, P>(packet, parsed, Reason::Internal as u32);
    }
    packet.pass()
}

/// Drops such a packet? True: it is certainly ours and goes no further.
#[inline(never)]
fn oddity<V: Family>(key: &FlowKey<V::Addr>, why: Why) -> bool {
    let reason = match why {
        Why::Foreign | Why::Icmp | Why::FirstFragment => return false,
        Why::Malformed => Reason::Malformed,
        Why::Fragment => Reason::Fragment,
    };
    let ours = service::is_vip::<V>(key.dst);
    if ours {
        account::reason(reason as u32);
    }
    ours
}
