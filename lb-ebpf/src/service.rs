//! Address, port, protocol → service, or not ours.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{
    abi::{Addr, Client, FlowKey, PortBe, Proto, Service, ServiceKey, SourceRanges, Vip},
    filter,
};

use crate::maps::{FILTER, Maps};

#[inline(always)]
fn is_set((word, bit): (u32, u32)) -> bool {
    FILTER.get(word).is_some_and(|value| value >> bit & 1 != 0)
}

/// May packets to this address be of flows, or of services? False is certain.
#[inline(always)]
pub fn may_be_destination<A: Addr>(addr: A) -> bool {
    is_set(filter::destination(addr))
}

/// May packets from this address be answers of a backend? False is certain.
#[inline(always)]
pub fn may_be_backend<A: Addr>(addr: A) -> bool {
    is_set(filter::backend(addr))
}

/// The service that a packet with this 5-tuple is for.
#[inline(always)]
pub fn lookup<V: Maps>(key: &FlowKey<V::Addr>) -> Option<&'static Service> {
    at::<V>(key.dst, key.dport, key.proto)
}

/// The service that is reached there.
#[inline(always)]
pub fn at<V: Maps>(vip: V::Addr, port: PortBe, proto: Proto) -> Option<&'static Service> {
    if !is_set(filter::bit(vip, port, proto)) {
        return None;
    }
    // SAFETY: the map isn't preallocated, so that a replaced value lives on until the program is done; nobody writes in place.
    unsafe { V::services().get(ServiceKey::new(vip, port, proto)) }
}

/// May this client open flows of the service? A function by itself for the sake of the stack.
#[inline(never)]
pub fn admits<V: Maps>(service: &Service, client: &V::Addr) -> bool {
    if service.source_ranges == SourceRanges::OPEN {
        return true;
    }
    let client = Client { service: service.ranges, addr: *client };
    V::source_ranges().get(&Key::new(Client::<V::Addr>::WHOLE, client)).is_some()
}

/// What is known of an address that packets go to; `None`: it is no VIP.
#[inline(always)]
pub fn vip<V: Maps>(addr: V::Addr) -> Option<Vip> {
    // SAFETY: a whole word that only the agent writes, by replacing the element.
    unsafe { V::vips().get(addr) }.copied()
}
