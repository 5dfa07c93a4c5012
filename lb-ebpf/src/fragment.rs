//! Fragments: they go where the first of their datagram goes, which alone has the ports.
//!
//! Nothing is held back: a fragment that overtakes its first is dropped, if it is to a VIP, and counted.

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
    FragmentKey { src: parsed.key.src, dst: parsed.key.dst, id: parsed.fragment, proto, _pad: [0; 3] }
}

/// A first fragment, which is parsed like a whole packet. If it is of a flow, or for a service, it is remembered; `false`: it isn't ours.
#[inline(never)]
pub fn first<V: Locate>(parsed: &Parsed<V::Addr>) -> bool {
    if service::lookup::<V>(&parsed.key).is_none() && table::visit::<V>(&parsed.key).is_none() {
        return false;
    }
    let first = FirstFragment {
        sport: parsed.key.sport,
        dport: parsed.key.dport,
        proto: parsed.key.proto,
        _pad: [0; 3],
    };
    // Should there be no room even so, the others are dropped and counted.
    let _ = V::fragments().insert(key::<V>(parsed), first, 0);
    true
}

/// Another fragment: gives it the ports that its first had. `false`: that hasn't come, or wasn't ours.
#[inline(never)]
pub fn later<V: Locate>(parsed: &mut Parsed<V::Addr>) -> bool {
    let Some(first) = V::fragments().get_ptr(key::<V>(parsed)) else { return false };
    // SAFETY: an element of a map, which is preallocated: it may be given to another datagram meanwhile, and this fragment go astray, as
    // one does whose identification is used again too soon.
    let first = unsafe { *first };
    (parsed.key.sport, parsed.key.dport, parsed.key.proto) = (first.sport, first.dport, first.proto);
    true
}
