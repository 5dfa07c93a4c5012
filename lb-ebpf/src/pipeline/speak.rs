//! A datagram of a backend's that belongs to no flow: it may be for somebody who has asked by way of a VIP, after so long
//! that the flow was forgotten, or from another port than was asked at (TFTP). Then it opens the flow.

use lb_common::{
    abi::{Addr as _, Backend, Direction, Proto, Spoken, spoken::ANY_PORT},
    flow_state::Phase,
};

use super::{Family, open::hashed};
use crate::{
    account,
    conntrack::{self, Opening, REFUSED},
    maps::BACKENDS,
    packet::copy,
    parse::Parsed,
    service, spoken,
    table::NOWHERE,
};

/// Where the entry is to go by; or a [`Reason`](lb_common::abi::Reason) with [`REFUSED`] set; or [`NOWHERE`]: nobody has asked.
#[inline(always)]
pub fn speak<V: Family>(parsed: &mut Parsed<V::Addr>) -> u32 {
    if parsed.key.proto != Proto::UDP || !service::may_be_backend(parsed.key.src) {
        return NOWHERE;
    }
    let Some(spoken) = asked::<V>(parsed) else { return NOWHERE };
    let opened = pin::<V>(parsed, spoken);
    if opened & REFUSED != 0 {
        return opened;
    }
    conntrack::tell_opened::<V>(opened, &mut parsed.spare);
    // None: the client has a flow with another backend by now.
    conntrack::find::<V>(&parsed.key).map_or(NOWHERE, |flow| flow.place)
}

/// Whom the datagram's receiver has asked, if that service and that backend are still there. What is left in `spare`: by
/// which port that is known.
#[inline(never)]
fn asked<V: Family>(parsed: &mut Parsed<V::Addr>) -> Option<&'static Spoken<V::Addr>> {
    // SAFETY: two fields of a map's value.
    unsafe { copy(&raw mut parsed.spare, &raw const parsed.key) };
    let mut known = V::spoken().get_ptr(&parsed.spare);
    if known.is_none() {
        parsed.spare.sport = ANY_PORT;
        known = V::spoken().get_ptr(&parsed.spare);
    }
    // SAFETY: an element of a map, which is preallocated: it may be another's meanwhile, which is looked at below.
    let known = unsafe { &*known? };
    let backend: &Backend = BACKENDS.get(known.backend.0)?;
    let service = service::at::<V>(known.vip, known.port, Proto::UDP)?;
    let is = V::Addr::from_words(backend.addr) == parsed.key.src
        && backend.service == service.id
        && !backend.is_retired();
    if is { Some(known) } else { None }
}

/// Pins the flow to which what the backend says belongs. As [`conntrack::pin`].
#[inline(never)]
fn pin<V: Family>(parsed: &mut Parsed<V::Addr>, spoken: &Spoken<V::Addr>) -> u32 {
    // Known from any port: there the client answers.
    let port = if parsed.spare.sport.0 == ANY_PORT.0 { parsed.key.sport } else { spoken.port };
    // SAFETY: fields of maps' values, which don't overlap. One by one: the stack has no room for keys.
    unsafe {
        copy(&raw mut parsed.quoted, &raw const parsed.key);
        copy(&raw mut parsed.key.src, &raw const parsed.quoted.dst);
        copy(&raw mut parsed.key.dst, &raw const spoken.vip);
    }
    (parsed.key.sport, parsed.key.dport) = (parsed.quoted.dport, port);
    if !account::reserve(spoken.backend, u32::MAX) {
        return NOWHERE;
    }
    let opened = conntrack::pin::<V>(Opening {
        addr: parsed.quoted.src.words(),
        phase: Phase::UDP,
        backend: spoken.backend,
        chance: conntrack::chance(),
        hash: hashed::<V>(parsed),
        bound: false,
        port: parsed.quoted.sport,
        again: false,
        way: Direction::FORWARD,
    });
    // SAFETY: as above.
    unsafe { copy(&raw mut parsed.key, &raw const parsed.quoted) };
    opened
}

/// A flow was opened at this place whose backend may answer from any port.
#[inline(never)]
pub fn may_answer_from_any_port<V: Family>(parsed: &mut Parsed<V::Addr>, place: u32) {
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
