//! Address, port, protocol → service, or not ours.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{
    abi::{Client, FlowKey, Guard, PortBe, Proto, Service, ServiceKey},
    filter,
};

use crate::maps::{FILTER, Tables};

/// The service that a packet with this 5-tuple is for.
#[inline(always)]
pub fn lookup<V: Tables>(key: &FlowKey<V::Addr>) -> Option<&'static Service> {
    at::<V>(key.dst, key.dport, key.proto)
}

/// The service that is reached there.
#[inline(always)]
pub fn at<V: Tables>(vip: V::Addr, port: PortBe, proto: Proto) -> Option<&'static Service> {
    let (word, bit) = filter::bit(vip, port, proto);
    if FILTER.get(word)? >> bit & 1 == 0 {
        return None;
    }
    // SAFETY: the map isn't preallocated, so that a replaced value lives on until the program is done; nobody writes in place.
    unsafe { V::services().get(ServiceKey::new(vip, port, proto)) }
}

/// May this client open flows of the service? A function by itself for the sake of the stack.
#[inline(never)]
pub fn admits<V: Tables>(service: &Service, client: &V::Addr) -> bool {
    if service.guard == Guard::OPEN {
        return true;
    }
    let client = Client { service: service.id, addr: *client };
    V::admitted().get(&Key::new(Client::<V::Addr>::WHOLE, client)).is_some()
}

/// Is this address a VIP? For packets that have no ports to look a service up by.
#[inline(always)]
pub fn is_vip<V: Tables>(addr: V::Addr) -> bool {
    V::vips().get_ptr(addr).is_some()
}
