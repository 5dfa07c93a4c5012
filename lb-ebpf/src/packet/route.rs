//! The way a packet goes from here, by the kernel's routes and rules, without its IP stack.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, xdp_md,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh, bpf_redirect_peer},
};
use lb_common::abi::{Addr, FlowKey, Proto};

use super::{opaque, put};
use crate::{direct::Direct, maps::INTERFACES, rewrite::Rewrite};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the kernel is asked, and answers in place: `struct bpf_fib_lookup` (include/uapi/linux/bpf.h). Addresses: the first word for IPv4. It is 64
/// bytes, and the stack has no room for a second one.
#[repr(C)]
pub struct Fib {
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

impl Fib {
    /// The MAC addresses of a frame to the next hop, once the kernel has answered.
    #[inline(always)]
    pub const fn macs(&self) -> Macs {
        // `smac` comes before `dmac` there; a frame has them the other way round.
        let [a, b, c] = self.macs;
        [b >> 16 | c << 16, a << 16 | c >> 16, b << 16 | a >> 16]
    }

    /// The node's address on the way, if it was asked for.
    #[inline(always)]
    pub fn source<A: Addr>(&self) -> A {
        A::from_words(self.src)
    }
}

/// The question about packets of this protocol from and to these addresses that come in by an interface. `len`: their bytes from the IP header on; 0: the
/// kernel is to compare this one with the interface's MTU.
#[inline(always)]
fn about<V: Rewrite>(ifindex: u32, src: [u32; 4], dst: V::Addr, proto: Proto, len: u16) -> Fib {
    // Out of the optimiser's sight, which would make a call of writing several zeros.
    let zero = opaque(0) as u32;
    let dst = dst.words();
    Fib {
        family: if V::IS_V6 { AF_INET6 } else { AF_INET },
        proto: proto.0,
        sport: zero as u16,
        dport: zero as u16,
        len,
        ifindex,
        info: zero,
        src,
        dst: if V::IS_V6 { dst } else { [dst[0], zero, zero, zero] },
        vlan: zero,
        macs: [zero, zero, zero],
    }
}

/// The question about packets with this 5-tuple.
#[inline(always)]
pub fn question<V: Rewrite>(ifindex: u32, key: &FlowKey<V::Addr>, len: u16) -> Fib {
    let (zero, src) = (opaque(0) as u32, key.src.words());
    let src = if V::IS_V6 { src } else { [src[0], zero, zero, zero] };
    let mut fib = about::<V>(ifindex, src, key.dst, key.proto, len);
    (fib.sport, fib.dport) = (key.sport.0, key.dport.0);
    fib
}

/// Has it answered, in place: by reference, since the stack has no room for a second one.
#[inline(always)]
fn ask(ctx: *mut c_void, fib: &mut Fib, flags: u32) -> i64 {
    // SAFETY: the parameters are as long as is said, and laid out as the helper wants them.
    unsafe { bpf_fib_lookup(ctx, (&raw mut *fib).cast(), size_of::<Fib>() as i32, flags) }
}

/// Is there a way? Who the next hop is need not be known yet: sending there finds out.
#[inline(always)]
const fn leads_on(found: i64) -> bool {
    found == BPF_FIB_LKUP_RET_SUCCESS as i64 || found == BPF_FIB_LKUP_RET_NO_NEIGH as i64
}

/// Finds the way for packets of a [`question`] that come in where this one does. `None`: the stack is to see to it, since there is none, or it
/// isn't for others, or the packet is too large for it; true: the other end of the interface takes packets directly. `headers`: bytes from the
/// IP header to the payload.
#[inline(always)]
pub fn find(fib: &mut Fib, skb: *mut __sk_buff, headers: usize) -> Option<bool> {
    let found = ask(skb.cast(), fib, 0);
    if !leads_on(found) {
        return None;
    }
    // With segments to come the kernel doesn't compare.
    // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
    let segment = unsafe { (*skb).gso_size } as usize;
    if segment != 0 && segment + headers > fib.len as usize {
        return None;
    }
    Some(found == BPF_FIB_LKUP_RET_SUCCESS as i64 && is_peer(fib.ifindex))
}

/// A length as the kernel wants it.
#[inline(always)]
pub const fn shortened(len: usize) -> u16 {
    if len > u16::MAX as usize { u16::MAX } else { len as u16 }
}

/// Does an interface's other end take packets directly?
#[inline(always)]
fn is_peer(ifindex: u32) -> bool {
    // SAFETY: a whole word that only the agent writes, by replacing the element.
    unsafe { INTERFACES.get(ifindex) }.is_some_and(|interface| interface.is_peer())
}

/// MAC addresses of a frame: destination and source, as they lie in it.
pub type Macs = [u32; 3];

/// Finds the way back, for an XDP packet. False: it leads elsewhere, or the next hop isn't known, or the packet is
/// too large: the stack is to see to it.
#[inline(always)]
pub fn back(fib: &mut Fib, ctx: *mut xdp_md) -> bool {
    let ifindex = fib.ifindex;
    ask(ctx.cast(), fib, 0) == BPF_FIB_LKUP_RET_SUCCESS as i64 && fib.ifindex == ifindex
}

/// Finds the way to a backend for a packet that stays as it is, or is put in another one whose header is `outer` bytes long. `Err`: the packet is larger
/// than this, or there is no way (0).
#[inline(always)]
pub fn straight<V: Rewrite>(skb: *mut __sk_buff, direct: &Direct<V::Addr>, outer: usize) -> Result<Fib, u32> {
    // SAFETY: the context is the one the kernel gave this program; the fields may be read by this program type.
    let (segment, ifindex) = unsafe { ((*skb).gso_size as usize, (*skb).ifindex) };
    let len = if segment != 0 { segment + direct.headers } else { direct.bytes } + outer;
    let proto = Proto(if V::IS_V6 { 41 } else { 4 });
    let zero = opaque(0) as u32;
    let mut fib = about::<V>(ifindex, [zero, zero, zero, zero], direct.to, proto, shortened(len));
    // The node's address is wanted only where it is sent.
    let flags = if outer != 0 { BPF_FIB_LOOKUP_SRC } else { 0 };
    let found = ask(skb.cast(), &mut fib, flags);
    if found == BPF_FIB_LKUP_RET_FRAG_NEEDED as i64 {
        return Err((fib.len as u32).saturating_sub(outer as u32));
    }
    let hop = &fib.dst;
    let to = direct.to.words();
    // By layer 2 there is no router between.
    let router = (hop[0] ^ to[0]) | (hop[1] ^ to[1]) | (hop[2] ^ to[2]) | (hop[3] ^ to[3]);
    if !leads_on(found) || (outer == 0 && router != 0) {
        return Err(0);
    }
    Ok(fib)
}

/// The node's address on the way is asked for (Linux 6.7, include/uapi/linux/bpf.h).
const BPF_FIB_LOOKUP_SRC: u32 = 1 << 4;

/// Writes them into a frame.
///
/// # Safety
/// There are twelve bytes at `frame`.
#[inline(always)]
pub unsafe fn address(frame: *mut u8, macs: &Macs) {
    // SAFETY: the caller vouches for them.
    unsafe {
        put(frame, 0, macs[0]);
        put(frame, 4, macs[1]);
        put(frame, 8, macs[2]);
    }
}

/// The verdict that hands the packet to the other end of a veth on the way, as if it had come in there: past this end's queues and programs,
/// and past the CPU's backlog.
#[inline(always)]
pub fn cross(fib: &Fib) -> i32 {
    // SAFETY: the helper only notes where to send.
    unsafe { bpf_redirect_peer(fib.ifindex, 0) as i32 }
}

/// Bytes of `struct bpf_redir_neigh`: a family, and an address of either.
const NEXT_HOP: i32 = 20;

/// The verdict that sends the packet that way. The next hop is told where it lies: its address is in its place, and what is before it, the end of the
/// source address, gives way to its family.
#[inline(always)]
pub fn follow(fib: &mut Fib) -> i32 {
    fib.src[3] = fib.family as u32;
    let hop = (&raw mut fib.src[3]).cast();
    // SAFETY: the next hop is as long as is said, and laid out as the helper wants it.
    unsafe { bpf_redirect_neigh(fib.ifindex, hop, NEXT_HOP, 0) as i32 }
}

const _: () = assert!(core::mem::offset_of!(Fib, dst) == core::mem::offset_of!(Fib, src) + 16);
