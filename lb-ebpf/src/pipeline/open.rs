//! A packet of no flow: if it is for a service, it pins a new flow, if it may.

use aya_log_ebpf::debug;
use lb_common::{
    abi::{
        Addr as _, Backend, Direction, Forward, Interface, PortBe, Proto, Reason, Service, ServiceId, Source,
        Stray, spoken::TFTP,
    },
    flow_state::{Phase, flags},
    hash,
};

use super::{Family, carry, go_on, parsed, refuse, speak};
use crate::{
    account, affinity,
    choose::{self, Pick, SKIPS},
    conntrack::{
        self, Opening, REFUSED,
        waiting::{self, Scarce},
    },
    foreign,
    maps::{BACKENDS, CHOOSING, HASH_SEED, INTERFACES},
    packet::{Hook, Packet, Step, opaque},
    parse::{ANOTHER_PORT, Parsed, ROOM},
    service,
};

/// How often a port of a closed flow is looked for, among other ports each time.
const REUSES: u32 = 4;
/// How often room is made, in a full table, on a backend or for a binding: the next try may have another backend or port, and so belong
/// elsewhere, and others open flows meanwhile.
pub(super) const ROOMS: u32 = 4;

/// See the module.
#[inline(always)]
pub fn open<V: Family, P: Packet>(packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    if parsed.l4() == 0 {
        // The flow is gone that its first fragment was of.
        return refuse::<V, P>(packet, parsed, Reason::Fragment as u32);
    }
    let Some(service) = service::lookup::<V>(&parsed.key) else {
        return go_on::<V, P>(packet, Step::Past);
    };
    if foreign::is_foreign(&packet, parsed.key.src) {
        account::reason(Reason::Foreign as u32);
        return packet.pass();
    }
    // Most services don't mind, and are spared a lookup.
    let source = if service.asks_source() { source(packet.interface()) } else { Source::ELSEWHERE };
    if service.forward(source).is_direct() != (packet.hook() == Hook::BESIDES)
        && (!P::DIRECT || packet.hook() == Hook::BESIDES)
    {
        // TC sees to what is direct, XDP to the rest.
        return packet.pass();
    }
    if !service::admits::<V>(service, &parsed.key.src) {
        // Whatever it is: who isn't let in learns nothing.
        return refuse::<V, P>(packet, parsed, Reason::SourceNotAllowed as u32);
    }
    let begins = parsed.key.proto != Proto::TCP || parsed.segment.opens();
    if !begins && service.stray == Stray::PASS {
        return packet.pass();
    }
    let opened = pin::<V>(parsed, service, source);
    if opened & REFUSED != 0 {
        let reason = opened & !REFUSED;
        let retry = match reason {
            _ if reason == Reason::PortConflict as u32 => parsed.tried() == 0,
            _ if reason == Reason::NoSourcePort as u32 => parsed.tried() < REUSES,
            _ if reason == Reason::TableFull as u32 => parsed.again < ROOMS * ROOM,
            _ if reason == Reason::AffinityFull as u32 => true,
            _ if reason == Reason::BackendsFull as u32 => service.scarce != 0 && parsed.again < ROOMS * ROOM,
            _ => false,
        };
        if retry {
            parsed.because = reason;
            return go_on::<V, P>(packet, Step::Reuse);
        }
        return refuse::<V, P>(packet, parsed, reason);
    }
    log_open(packet.context(), parsed.key.sport, service.id);
    if service.scarce != 0 {
        waiting::note::<V>(service.id, Scarce::Places, opened);
    }
    conntrack::tell_opened::<V>(opened, &mut parsed.spare);
    if parsed.key.dport.0 == TFTP.0 {
        speak::may_answer_from_any_port::<V>(parsed, opened);
    }
    carry::first::<V, P>(packet, parsed, opened)
}

/// Where packets come from that come in by an interface.
#[inline(always)]
fn source(interface: u32) -> Source {
    // SAFETY: a whole word that only the agent writes, by replacing the element.
    let known: Option<&Interface> = unsafe { INTERFACES.get(interface) };
    if known.is_some_and(|interface| interface.is_pod()) { Source::POD } else { Source::ELSEWHERE }
}

/// The first phase of a flow that a packet opens; or why it opens none.
#[inline(always)]
pub(super) fn phase<A>(parsed: &Parsed<A>, stray: Stray) -> Result<Phase, u32> {
    let bits = parsed.segment.flags;
    match parsed.key.proto {
        Proto::UDP => Ok(Phase::UDP),
        _ if parsed.segment.opens() => Ok(Phase::SYN_SENT),
        _ if bits & flags::RST != 0 => Err(REFUSED | Reason::StrayReset as u32),
        _ if stray == Stray::FORWARD && bits & flags::SYN == 0 => Ok(Phase::PROVISIONAL),
        _ => Err(REFUSED | Reason::Stray as u32),
    }
}

/// A choice that is being made, per CPU: the stack has no room for it.
#[repr(C)]
pub struct Choosing {
    pick: Pick,
    client: affinity::Client,
}

/// This CPU's.
#[inline(always)]
fn choosing() -> Option<&'static mut Choosing> {
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq, and each refers to it once.
    CHOOSING.get_ptr_mut(0).map(|choosing| unsafe { &mut *choosing })
}

/// Chooses a backend and pins the flow to it. As [`conntrack::pin`] says it. A backend that can't take the flow is passed over.
#[inline(always)]
fn pin<V: Family>(parsed: &mut Parsed<V::Addr>, service: &Service, source: Source) -> u32 {
    let phase = match phase(parsed, service.stray) {
        Ok(phase) => phase,
        Err(why) => return why,
    };
    let Some(choosing) = choosing() else { return REFUSED | Reason::Internal as u32 };
    let hash = hashed::<V>(parsed);
    choosing.pick.begin(service, service.list(source, V::IS_V6), conntrack::chance());
    let (mut pinned, mut fresh) = (REFUSED | Reason::Internal as u32, false);
    for attempt in 0..opaque(SKIPS + 1) {
        let chosen = choose::<V>(parsed, service, choosing, hash);
        if chosen & REFUSED != 0 {
            // Of those that were passed over, the last says why.
            return if attempt == 0 { chosen } else { pinned };
        }
        let backend = affinity::chosen(chosen);
        let bound = chosen & affinity::BOUND != 0;
        let Some(record) = BACKENDS.get(backend.0) else { return REFUSED | Reason::Internal as u32 };
        let mut way = way::<V>(service.forward(source), record, parsed);
        if parsed.again & ANOTHER_PORT != 0 && !way.is_direct() {
            way = way.with_another_port((parsed.again & Direction::TRIED_MAX as u32) as u8);
        } else if parsed.tried() != 0 && way.is_full() {
            // All are taken, and one is used again that was ours a moment ago: whatever the backend knows by it is ours.
            way = way.with_another_port(Direction::TRIED_MAX);
        }
        let port = backend_port(record, service.target, parsed.key.dport);
        let chance = choosing.pick.chance;
        let again = parsed.tried() != 0;
        let limited = service.limited_id();
        let opening =
            Opening { addr: record.addr, phase, backend, chance, hash, bound, port, again, way, limited };
        pinned = conntrack::pin::<V>(opening);
        fresh = chosen & affinity::FRESH != 0;
        if pinned == REFUSED | Reason::BackendsFull as u32 {
            // Another CPU took a place at the same instant, and one of the two is too many.
            continue;
        }
        let unfit = pinned == REFUSED | Reason::PortConflict as u32
            || pinned == REFUSED | Reason::NoSourcePort as u32;
        // What is in the way may only linger.
        if !unfit || !again || !choosing.pick.pass_over(backend) {
            break;
        }
    }
    if fresh && pinned & REFUSED == 0 {
        waiting::note::<V>(service.id, Scarce::Bindings, pinned);
    }
    pinned
}

/// The flow's hash. By itself for the sake of the stack.
#[inline(never)]
pub(super) fn hashed<V: Family>(parsed: &Parsed<V::Addr>) -> u32 {
    hash::flow(&parsed.key, HASH_SEED.load())
}

/// A backend with a place taken on it: the outcome of `choose` or `affinity`.
#[inline(never)]
fn choose<V: Family>(parsed: &Parsed<V::Addr>, service: &Service, choosing: &mut Choosing, hash: u32) -> u32 {
    if service.limited != 0 && choose::is_beyond(service.id, 1) {
        return REFUSED | Reason::BackendsFull as u32;
    }
    // Rather without a binding than not at all.
    if service.affine == 0 || parsed.again >= ROOMS * ROOM {
        return choose::backend(service.algorithm, &mut choosing.pick, hash);
    }
    let key = &parsed.key;
    choosing.client = affinity::Client::new(key.src.wide(), key.dport, key.proto);
    affinity::choose(service.algorithm, &mut choosing.client, &mut choosing.pick, hash)
}

/// The port that a flow reaches a backend at.
#[inline(always)]
pub const fn backend_port(backend: &Backend, target: PortBe, used: PortBe) -> PortBe {
    match (backend.port, target) {
        (PortBe(0), PortBe(0)) => used,
        (PortBe(0), target) => target,
        (port, _) => port,
    }
}

/// What is done to packets of a flow to a backend.
#[inline(always)]
fn way<V: Family>(forward: Forward, backend: &Backend, parsed: &Parsed<V::Addr>) -> Direction {
    if forward.is_direct() {
        return Direction::direct(forward == Forward::DSR_IPIP);
    }
    // A backend that reaches itself would answer itself, past us.
    let itself = V::Addr::from_words(backend.addr) == parsed.key.src;
    // A socket of the node's answers the client by the hooks of the client's side. With an address of the node's for a source it would answer
    // the node, past all hooks.
    let masked = forward == Forward::SNAT && !backend.is_on_node();
    Direction::FORWARD.full_if(masked || itself)
}

/// One record per new flow, when the agent asked for it at load time; otherwise the verifier removes it. Little is said: each
/// argument costs stack, whether logging is on or not.
#[inline(never)]
fn log_open<C: aya_ebpf::EbpfContext>(ctx: &C, port: PortBe, service: ServiceId) {
    debug!(ctx, "new flow: service {}, client port {}", service, port.get());
}
