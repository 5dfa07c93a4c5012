//! The way a packet goes from here, by the kernel's routes and rules, without its IP stack.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, xdp_md,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh, bpf_redirect_peer},
};
use lb_common::abi::{Addr, FlowKey, PortBe, Proto};

use super::put;
use crate::{direct::Direct, maps::PEERS, rewrite::Rewrite};

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
    /// The MAC addresses of a frame to it, if `across`.
    pub macs: Macs,
    /// Does the interface's other end take packets directly?
    pub across: bool,
}

impl Fib {
    /// The way that the kernel has answered.
    #[inline(always)]
    const fn way(&self) -> Way {
        Way {
            ifindex: self.ifindex,
            hop: NextHop { family: self.family as u32, addr: self.dst },
            macs: self.macs(),
            across: false,
        }
    }

    /// The MAC addresses of a frame to the next hop.
    #[inline(always)]
    const fn macs(&self) -> Macs {
        // `smac` comes before `dmac` there; a frame has them the other way round.
        let [a, b, c] = self.macs;
        [b >> 16 | c << 16, a << 16 | c >> 16, b << 16 | a >> 16]
    }
}

/// What the kernel is asked about packets with this 5-tuple that come in where this one does. `len`: their bytes from the IP header on; 0: the
/// kernel is to compare this one with the interface's MTU.
#[inline(always)]
fn question<V: Rewrite>(ifindex: u32, key: &FlowKey<V::Addr>, len: u16) -> Fib {
    Fib {
        family: if V::IS_V6 { AF_INET6 } else { AF_INET },
        proto: key.proto.0,
        sport: key.sport.0,
        dport: key.dport.0,
        len,
        ifindex,
        info: 0,
        src: key.src.words(),
        dst: key.dst.words(),
        vlan: 0,
        macs: [0; 3],
    }
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

/// The way for packets with this 5-tuple that come in where this one does. `None`: the stack is to see to it, since there is none, or it
/// isn't for others, or the packet is too large for it. `headers`: bytes from the IP header to the payload.
#[inline(always)]
pub fn find<V: Rewrite>(skb: *mut __sk_buff, headers: usize, key: &FlowKey<V::Addr>) -> Option<Way> {
    // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
    let mut fib = question::<V>(unsafe { (*skb).ifindex }, key, 0);
    let found = ask(skb.cast(), &mut fib, 0);
    if !leads_on(found) {
        return None;
    }
    // With segments to come the kernel doesn't compare.
    // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
    let segment = unsafe { (*skb).gso_size } as usize;
    if segment != 0 && segment + headers > fib.len as usize {
        return None;
    }
    let across = found == BPF_FIB_LKUP_RET_SUCCESS as i64 && PEERS.get_ptr(fib.ifindex).is_some();
    Some(Way { across, ..fib.way() })
}

/// MAC addresses of a frame: destination and source, as they lie in it.
pub type Macs = [u32; 3];

/// The way back, for an XDP packet of `len` bytes from its IP header on. `None`: it leads elsewhere, or the next hop isn't known, or the packet is too
/// large: the stack is to see to it.
#[inline(always)]
pub fn back<V: Rewrite>(ctx: *mut xdp_md, len: usize, key: &FlowKey<V::Addr>) -> Option<Macs> {
    // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    let len = if len > u16::MAX as usize { u16::MAX } else { len as u16 };
    let mut fib = question::<V>(ifindex, key, len);
    if ask(ctx.cast(), &mut fib, 0) != BPF_FIB_LKUP_RET_SUCCESS as i64 || fib.ifindex != ifindex {
        return None;
    }
    Some(fib.macs())
}

/// The way to a host, and the node's address there.
pub struct Straight {
    fib: Fib,
}

impl Straight {
    /// The node's address.
    #[inline(always)]
    pub fn source<A: Addr>(&self) -> A {
        A::from_words(self.fib.src)
    }
    /// The way.
    #[inline(always)]
    pub const fn way(&self) -> Way {
        self.fib.way()
    }
}

/// The way to a backend for a packet that stays as it is, or is put in another one whose header is `outer` bytes long. `Err`: the packet is larger
/// than this, or there is no way (0).
#[inline(always)]
pub fn straight<V: Rewrite>(
    skb: *mut __sk_buff,
    direct: &Direct<V::Addr>,
    outer: usize,
) -> Result<Straight, u32> {
    // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
    let segment = unsafe { (*skb).gso_size } as usize;
    let len = if segment != 0 { segment + direct.headers } else { direct.bytes } + outer;
    let len = if len > u16::MAX as usize { u16::MAX } else { len as u16 };
    let proto = Proto(if V::IS_V6 { 41 } else { 4 });
    let key = FlowKey::new(Default::default(), direct.to, PortBe(0), PortBe(0), proto);
    // The node's address is wanted only where it is sent.
    let flags = if outer != 0 { BPF_FIB_LOOKUP_SRC } else { 0 };
    // SAFETY: as above.
    let mut fib = question::<V>(unsafe { (*skb).ifindex }, &key, len);
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
    Ok(Straight { fib })
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
pub fn cross(way: &Way) -> i32 {
    // SAFETY: the helper only notes where to send.
    unsafe { bpf_redirect_peer(way.ifindex, 0) as i32 }
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
