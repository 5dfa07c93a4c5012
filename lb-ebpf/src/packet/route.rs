//! The way a packet goes from here, by the kernel's routes and rules, without its IP stack: TC only.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS},
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh},
};
use lb_common::abi::{Addr, FlowKey};

use crate::rewrite::Rewrite;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h). Addresses: the first word for IPv4.
#[repr(C)]
struct Fib {
    family: u8,
    proto: u8,
    sport: u16,
    dport: u16,
    /// In: 0, the kernel is to compare the packet with the interface's MTU. Out: that.
    len: u16,
    ifindex: u32,
    info: u32,
    src: [u32; 4],
    dst: [u32; 4],
    vlan: u32,
    macs: [u32; 3],
}

/// `struct bpf_redir_neigh`.
#[repr(C)]
struct NextHop {
    family: u32,
    addr: [u32; 4],
}

/// An interface and the next hop there.
pub struct Way {
    ifindex: u32,
    hop: NextHop,
}

/// The way for packets with this 5-tuple that come in where this one does. `None`: the stack is to see to it, since there is none, or it
/// isn't for others, or the packet is too large for it. `headers`: bytes from the IP header to the payload.
#[inline(always)]
pub fn find<V: Rewrite>(skb: *mut __sk_buff, headers: usize, key: &FlowKey<V::Addr>) -> Option<Way> {
    let mut fib = Fib {
        family: if V::IS_V6 { AF_INET6 } else { AF_INET },
        proto: key.proto.0,
        sport: key.sport.0,
        dport: key.dport.0,
        len: 0,
        // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
        ifindex: unsafe { (*skb).ifindex },
        info: 0,
        src: key.src.words(),
        dst: key.dst.words(),
        vlan: 0,
        macs: [0; 3],
    };
    // SAFETY: the parameters are as long as is said, and laid out as the helper wants them.
    let found =
        unsafe { bpf_fib_lookup(skb.cast::<c_void>(), (&raw mut fib).cast(), size_of::<Fib>() as i32, 0) };
    // Who the next hop is need not be known yet: sending there finds out.
    if found != BPF_FIB_LKUP_RET_SUCCESS as i64 && found != BPF_FIB_LKUP_RET_NO_NEIGH as i64 {
        return None;
    }
    // With segments to come the kernel doesn't compare.
    // SAFETY: as above.
    let segment = unsafe { (*skb).gso_size } as usize;
    if segment != 0 && segment + headers > fib.len as usize {
        return None;
    }
    Some(Way { ifindex: fib.ifindex, hop: NextHop { family: fib.family as u32, addr: fib.dst } })
}

/// The verdict that sends the packet that way.
#[inline(always)]
pub fn follow(way: &Way) -> i32 {
    // SAFETY: the next hop is as long as is said, and laid out as the helper wants it.
    unsafe {
        bpf_redirect_neigh(
            way.ifindex,
            (&raw const way.hop).cast_mut().cast(),
            size_of::<NextHop>() as i32,
            0,
        ) as i32
    }
}
