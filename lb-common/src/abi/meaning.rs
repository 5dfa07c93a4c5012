//! What the bits of fields mean, as numbers: of places that fixed keys have, and of the encodings of words. A build with another number for a map
//! doesn't understand what is in it, however long its records are.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{
    ASKED_SHIFT, Addr, Addr4, Addr6, BackendId, CREATED_SHIFT, Direction, FlowKey, List, PortBe, Proto,
    limits, table,
};
use crate::{
    affinity::{self, Binding},
    filter, flow_state,
    flow_table::{self, LANES, claimed, place, without},
    hash, socket_table,
};

/// FNV-1a, 64 bits, a word at a time.
fn of(words: impl IntoIterator<Item = u64>) -> u64 {
    words
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3))
}

fn addresses() -> (Addr4, Addr6) {
    (Ipv4Addr::new(192, 0, 2, 17).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 0x11).into())
}

fn key<A: Addr>(src: A, dst: A) -> FlowKey<A> {
    FlowKey::new(src, dst, PortBe::new(40_001), PortBe::new(443), Proto::TCP)
}

/// Flow tables: where a key lies, what a head says, and what a flow's word and direction do.
pub fn flows() -> u64 {
    let (v4, v6) = addresses();
    let (k4, k6) = (key(v4, Addr4(!v4.0)), key(v6, Addr6(v6.0.map(|word| !word))));
    let places = [place(&k4, 7, 499_323), place(&k6, 7, 499_323)];
    let places = places.into_iter().flat_map(|p| [p.first.into(), p.second.into(), p.tag.into()]);
    let heads = [LANES as u64, claimed(0, 3, 0x5a), without(3), flow_table::buckets(1 << 20).into()];
    let directions = [
        Direction::FORWARD,
        Direction::REPLY,
        Direction::FORWARD.tracked(),
        Direction::FORWARD.ported(),
        Direction::FORWARD.full_if(true),
        Direction::direct(false),
        Direction::direct(true),
    ];
    let directions = directions.map(|direction| direction.0.into());
    let stamps = [CREATED_SHIFT.into(), ASKED_SHIFT.into()];
    of(places.chain(heads).chain(flow_state::ENCODING).chain(directions).chain(stamps))
}

/// Affinity: keys, groups and bindings.
pub fn affinity() -> u64 {
    let (v4, v6) = addresses();
    let keys = [affinity::key(9, v4.wide(), 64), affinity::key(9, v6.wide(), 64)];
    let keys = keys.into_iter().flat_map(|key| [key.group, key.high, key.low]);
    let binding = Binding::new(BackendId(0x155), 0x12_3456);
    let bindings = [
        binding.0,
        binding.more(BackendId(0x2aa)).map_or(0, |binding| binding.0),
        binding.gone().0,
        binding.confirmed().0,
    ];
    of(keys.chain(bindings).chain([affinity::group_at(9, PortBe::new(443), Proto::TCP)]))
}

/// Sockets: where a socket's pins lie, and what a place's state says.
pub fn sockets() -> u64 {
    let home = socket_table::home(0x1234_5678);
    let places = [home, socket_table::probe(home, 3), socket_table::PROBES, limits::SOCKET_PLACES];
    of(places.map(u64::from).into_iter().chain([socket_table::pinned(0x1234, 0x56)]))
}

/// The filter: which bit is whose.
pub fn filter() -> u64 {
    let (v4, v6) = addresses();
    let (port, proto) = (PortBe::new(443), Proto::TCP);
    let bits = [filter::bit(v4, port, proto), filter::bit(v6, port, proto), filter::destination(v4)];
    let bits = bits.into_iter().chain([filter::destination(v6), filter::backend(v4), filter::backend(v6)]);
    of(bits.flat_map(|(word, bit)| [word.into(), bit.into()]))
}

/// Maglev tables: where a service's lie, and which slot a flow has.
pub fn tables() -> u64 {
    let (v4, v6) = addresses();
    let (k4, k6) = (key(v4, Addr4(!v4.0)), key(v6, v6));
    let flow = hash::flow(&k4, 1);
    let slots = [flow, hash::flow(&k6, 1), hash::reduce(flow, 16_411)];
    of(slots
        .into_iter()
        .chain([table::index(7, List::new(true, true)), table::chunks(16_411)])
        .map(u64::from))
}
