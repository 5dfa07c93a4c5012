//! Fragments: they go where the first of their datagram goes, which alone has the ports.
//!
//! Nothing is held back: a fragment that overtakes its first is dropped, if it is to a VIP, and counted. What is remembered is of flows, so of those
//! who were let in, and of each pair of addresses so many at a time: nobody's datagrams make room for another's, but in the order in which they came.

use lb_common::abi::{FirstFragment, FragmentKey};

use crate::{
    maps::Maps,
    parse::Parsed,
    service,
    table::{self, Locate},
};

#[inline(always)]
fn key<V: Maps>(parsed: &Parsed<V::Addr>) -> FragmentKey<V::Addr> {
    let proto = if V::IS_V6 { Default::default() } else { parsed.key.proto };
    let place = FragmentKey::<V::Addr>::place(parsed.fragment);
    FragmentKey { src: parsed.key.src, dst: parsed.key.dst, place, proto, _pad: [0; 3] }
}

/// Is a first fragment, which is parsed like a whole packet, of a flow, or for a service?
#[inline(never)]
pub fn is_ours<V: Locate>(parsed: &Parsed<V::Addr>) -> bool {
    service::lookup::<V>(&parsed.key).is_some() || table::visit::<V>(&parsed.key).is_some()
}

/// The first fragment of a datagram of a flow: the others are to find its ports.
#[inline(never)]
pub fn remember<V: Maps>(parsed: &Parsed<V::Addr>) {
    let first = FirstFragment {
        id: parsed.fragment,
        sport: parsed.key.sport,
        dport: parsed.key.dport,
        proto: parsed.key.proto,
        _pad: [0; 3],
    };
    // Should there be no room even so, the others are dropped and counted.
    let _ = V::fragments().insert(key::<V>(parsed), first, 0);
}

/// Another fragment: gives it the ports that its first had. `false`: that hasn't come, or wasn't ours.
#[inline(never)]
pub fn later<V: Locate>(parsed: &mut Parsed<V::Addr>) -> bool {
    let Some(first) = V::fragments().get_ptr(key::<V>(parsed)) else { return false };
    // SAFETY: an element of a map, which is preallocated: it may be given to another datagram meanwhile, and this fragment go astray, as
    // one does whose identification is used again too soon.
    let first = unsafe { *first };
    if first.id != parsed.fragment {
        return false;
    }
    (parsed.key.sport, parsed.key.dport, parsed.key.proto) = (first.sport, first.dport, first.proto);
    parsed.first = 0;
    true
}
