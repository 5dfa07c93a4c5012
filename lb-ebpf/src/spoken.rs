//! Whom clients have asked by UDP, for what their backends say outside of a flow.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use lb_common::abi::{BackendId, Flow, FlowKey, Proto, Spoken};

use crate::{maps::Maps, packet::copy};

/// Remembers a flow by what its backend sends: `key`, or the same from any port. `forward`: its forward entry.
#[inline(never)]
pub fn remember<V: Maps>(key: &FlowKey<V::Addr>, forward: *const Flow<V::Addr>) {
    // SAFETY: the pointer comes from a search in this run; what another flow has become of it by now is only read.
    let spoken = unsafe {
        let backend: BackendId = (*forward).backend;
        // Flows past us are no service's; and what was sent from an address of ours may be from anybody's.
        if backend.block() == 0 || (*forward).direction.is_special() || (*forward).proto != Proto::UDP {
            return;
        }
        Spoken { vip: (*forward).dst, backend, at: bpf_jiffies64() as u32, port: (*forward).dport, _pad: 0 }
    };
    let Some(parsed) = V::parsed().get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq. Before Linux 6.2 a key has to lie in a map or on the stack, which
    // has no room for it.
    let own = unsafe {
        copy(&raw mut (*parsed).quoted, &raw const *key);
        &(*parsed).quoted
    };
    // Should there be no room even so, it isn't translated.
    let _ = V::spoken().insert(own, spoken, 0);
}
