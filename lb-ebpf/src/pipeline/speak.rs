//! A datagram of a backend's that belongs to no flow: it may be for somebody who has asked by way of a VIP, after so long
//! that the flow was forgotten, or from another port than was asked at (TFTP). Then it opens the flow.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::{
    abi::{
        Addr as _, BLOCK_SLOTS, BackendId, Direction, PortBe, Proto, Reason, Service, ServiceId,
        spoken::ANY_PORT,
    },
    expiry::idle,
    flow_state::Phase,
};

use super::{Family, open::hashed};
use crate::{
    account,
    conntrack::{self, Opening, REFUSED},
    maps::{BACKENDS, POOLS, TICK_HZ},
    packet::copy,
    parse::Parsed,
    service, spoken,
    table::NOWHERE,
};

/// How long is known whom clients have asked: as long as a VPN or a SIP phone may be silent.
const KNOWN_FOR: u32 = 3600;
/// How long of a request that is answered from any port: those begin at once.
const ANY_PORT_FOR: u32 = 300;
/// Ports below are servers': what a backend says to them it may say as their client.
const CLIENTS_PORTS: u16 = 1024;

/// Where the entry is to go by; or a [`Reason`](lb_common::abi::Reason) with [`REFUSED`] set; or [`NOWHERE`]: nobody has asked.
#[inline(always)]
pub fn speak<V: Family>(parsed: &mut Parsed<V::Addr>) -> u32 {
    if parsed.key.proto != Proto::UDP || !service::may_be_backend(parsed.key.src) {
        return NOWHERE;
    }
    let backend = asked::<V>(parsed);
    if backend == 0 {
        return NOWHERE;
    }
    let opened = pin::<V>(parsed, BackendId(backend));
    if opened & REFUSED != 0 {
        // As if nobody had asked.
        return NOWHERE;
    }
    // None: the client has a flow with another backend by now.
    let Some(flow) = conntrack::find::<V>(&parsed.key) else { return NOWHERE };
    conntrack::tell_opened::<V>(opened, &mut parsed.spare);
    flow.place
}

/// The backend, if the datagram's receiver has asked it by way of a VIP, may do so still, and it takes flows; else 0. What is
/// left in `spare`: VIP and port as destination, and as source [`ANY_PORT`] if it may answer from any.
#[inline(never)]
fn asked<V: Family>(parsed: &mut Parsed<V::Addr>) -> u32 {
    let backend = known::<V>(parsed, parsed.key.sport, KNOWN_FOR);
    if backend != 0 { backend } else { known::<V>(parsed, ANY_PORT, ANY_PORT_FOR) }
}

/// The same as far as it is known by a port, and for so many seconds.
#[inline(always)]
fn known<V: Family>(parsed: &mut Parsed<V::Addr>, port: PortBe, seconds: u32) -> u32 {
    // SAFETY: two fields of a map's value.
    unsafe { copy(&raw mut parsed.spare, &raw const parsed.key) };
    parsed.spare.sport = port;
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would lie on the stack")]
    let Some(known) = V::spoken().get_ptr(&parsed.spare) else {
        return 0;
    };
    // SAFETY: an element of a map, which is preallocated: it may be another's meanwhile. So it is read once, and what was read is looked at.
    let (id, at) = unsafe {
        copy(&raw mut parsed.spare.dst, &raw const (*known).vip);
        parsed.spare.dport = (&raw const (*known).port).read_volatile();
        ((&raw const (*known).backend).read_volatile(), (&raw const (*known).at).read_volatile())
    };
    // SAFETY: the helper has no preconditions.
    if idle(unsafe { bpf_jiffies64() } as u32, at) / TICK_HZ.load().max(1) > seconds {
        return 0;
    }
    let (Some(backend), Some(block)) = (BACKENDS.get(id.0), POOLS.get(id.block())) else { return 0 };
    let Some(service) = service::at::<V>(parsed.spare.dst, parsed.spare.dport, Proto::UDP) else { return 0 };
    let is = V::Addr::from_words(backend.addr) == parsed.key.src
        && backend.service == service.id
        && block.weight[id.slot() & (BLOCK_SLOTS - 1)] != 0
        && service::admits::<V>(service, &parsed.key.dst);
    if is { id.0 } else { 0 }
}

/// Pins the flow to which what the backend says belongs. As [`conntrack::pin`].
#[inline(never)]
fn pin<V: Family>(parsed: &mut Parsed<V::Addr>, backend: BackendId) -> u32 {
    // Known from any port: there the client answers.
    let port = if parsed.spare.sport.0 == ANY_PORT.0 { parsed.key.sport } else { parsed.spare.dport };
    // SAFETY: fields of a map's value, which don't overlap. One by one: the stack has no room for keys.
    unsafe {
        copy(&raw mut parsed.quoted, &raw const parsed.key);
        copy(&raw mut parsed.key.src, &raw const parsed.quoted.dst);
        copy(&raw mut parsed.key.dst, &raw const parsed.spare.dst);
    }
    (parsed.key.sport, parsed.key.dport) = (parsed.quoted.dport, port);
    let service = service::at::<V>(parsed.spare.dst, parsed.spare.dport, Proto::UDP);
    let limited = service.map_or(ServiceId::MAX, Service::limited_id);
    let limit = POOLS.get(backend.block()).map_or(0, |block| block.limit[backend.slot() & (BLOCK_SLOTS - 1)]);
    let mut opened = REFUSED | Reason::BackendsFull as u32;
    if account::reserve(backend, limit) {
        opened = conntrack::pin::<V>(Opening {
            addr: parsed.quoted.src.words(),
            phase: Phase::UDP,
            backend,
            chance: conntrack::chance(),
            hash: hashed::<V>(parsed),
            bound: false,
            port: parsed.quoted.sport,
            again: false,
            way: Direction::FORWARD,
            limited,
        });
    }
    // SAFETY: as above.
    unsafe { copy(&raw mut parsed.key, &raw const parsed.quoted) };
    opened
}

/// A flow was opened at this place whose backend may answer from any port.
#[inline(never)]
pub fn may_answer_from_any_port<V: Family>(parsed: &mut Parsed<V::Addr>, place: u32) {
    if parsed.key.sport.get() < CLIENTS_PORTS {
        return;
    }
    let Some(flow) = conntrack::entry::<V>(&parsed.key, place) else { return };
    // SAFETY: the pointer comes from a search in this run; fields of maps' values, which don't overlap.
    unsafe {
        copy(&raw mut parsed.spare, &raw const parsed.key);
        copy(&raw mut parsed.spare.src, &raw const (*flow.at()).nat_addr);
        copy(&raw mut parsed.spare.dst, &raw const parsed.key.src);
    }
    (parsed.spare.sport, parsed.spare.dport) = (ANY_PORT, parsed.key.sport);
    spoken::remember::<V>(&parsed.spare, flow.at());
}
