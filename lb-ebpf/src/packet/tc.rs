//! A packet as TC brings it: an skb, whose checksum may be complete, partial or already summed by the device. Only the kernel
//! knows which, so the checksum is left to its helpers; all else is written directly.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS,
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail,
        bpf_skb_pull_data,
    },
    programs::TcContext,
};

use lb_common::{
    abi::{FlowKey, Proto},
    checksum,
};

use super::{Hook, L4Fix, Packet, Step, get, opaque, put, route};
use crate::{
    direct::Direct,
    maps::TAILS_TC,
    parse::{ETH_P_IP, ETH_P_IPV6},
    reset::Answer,
    rewrite::Rewrite,
};

/// Tells `bpf_l4_csum_replace` that the address change is not balanced by an IPv4 header checksum, which matters when the
/// device has summed the packet. Since Linux 6.16; older kernels refuse the flag.
const BPF_F_IPV6: u64 = 1 << 7;

/// Headers fit in this many bytes: Ethernet with two tags, the longest IPv4 header, the longest TCP header, or as much of
/// IPv6 with extensions.
const HEADERS: u32 = 192;
/// Ethernet, IPv4 without options, and as much of TCP as is looked at.
const V4_HEADERS: usize = 14 + 20 + 20;
/// Ethernet, IPv6 without extensions, and as much of TCP as is looked at.
const V6_HEADERS: usize = 14 + 40 + 20;

/// Whom a frame was addressed to (include/uapi/linux/if_packet.h): the interface, all, or some.
const PACKET_HOST: u32 = 0;
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;

/// A TC packet.
pub struct TcPacket {
    ctx: TcContext,
    hook: Hook,
}

impl TcPacket {
    /// Wraps a context; pulls the headers into the linear part if they aren't there.
    #[inline(always)]
    pub fn new(ctx: TcContext, hook: Hook) -> Self {
        let packet = Self { ctx, hook };
        let want = packet.ctx.len().min(HEADERS);
        if packet.bytes(0, want as usize).is_none() && !packet.has_its_headers() {
            // SAFETY: the context is the one the kernel gave this program. If it fails, parsing finds less and the packet
            // passes or is counted as malformed.
            unsafe { bpf_skb_pull_data(packet.ctx.skb.skb, want) };
        }
        packet
    }

    /// Is it of the usual kind, TCP or UDP right behind an IP header without options, and are both headers in the linear part? To pull more than
    /// that would copy payload, and with a segment that its sender still has, a clone, all of the head.
    #[inline(always)]
    fn has_its_headers(&self) -> bool {
        let ports = |proto: u8| proto == Proto::TCP.0 || proto == Proto::UDP.0;
        if let Some(frame) = self.bytes(0, V4_HEADERS) {
            // SAFETY: the bytes up to there were just bounds-checked.
            let (kind, first, proto): (u16, u8, u8) =
                unsafe { (get(frame, 12), get(frame, 14), get(frame, 23)) };
            if kind == ETH_P_IP {
                return first == 0x45 && ports(proto);
            }
        }
        let Some(frame) = self.bytes(0, V6_HEADERS) else { return false };
        // SAFETY: as above.
        let (kind, next): (u16, u8) = unsafe { (get(frame, 12), get(frame, 20)) };
        kind == ETH_P_IPV6 && ports(next)
    }

    /// The same for a further step.
    #[inline(always)]
    pub const fn resumed(ctx: TcContext, hook: Hook) -> Self {
        Self { ctx, hook }
    }

    #[inline(always)]
    fn csum_replace(&self, at: usize, delta: u32, flags: u64) -> bool {
        // SAFETY: the context is the one the kernel gave this program; pointers are derived anew after this.
        unsafe { bpf_l4_csum_replace(self.ctx.skb.skb, at as u32, 0, delta as u64, flags) == 0 }
    }
}

impl Packet for TcPacket {
    type Verdict = i32;
    type Context = TcContext;
    const BIG: bool = true;
    const DIRECT: bool = true;
    const MAY_BE_PARTIAL: bool = false;

    #[inline(always)]
    fn hook(&self) -> Hook {
        self.hook
    }

    #[inline(always)]
    fn is_addressed(&self) -> Option<bool> {
        // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
        match unsafe { (*self.ctx.skb.skb).pkt_type } {
            PACKET_HOST => Some(true),
            PACKET_BROADCAST | PACKET_MULTICAST => Some(false),
            // A port of a bridge is shown what is for the bridge.
            _ => None,
        }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    #[inline(always)]
    fn tail(&self, step: Step, v6: bool) {
        // SAFETY: the context is the one the kernel gave this program, and nothing is left to be cleared up.
        unsafe { TAILS_TC.tail_call(&self.ctx, step as u32 * 2 + v6 as u32) };
    }

    #[inline(always)]
    fn bytes(&self, at: usize, len: usize) -> Option<*mut u8> {
        let start = opaque(self.ctx.data()) + at;
        if start + len > opaque(self.ctx.data_end()) { None } else { Some(start as *mut u8) }
    }

    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        self.frame_len() >= len
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn segments(&self) -> u64 {
        // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
        let segments = unsafe { (*self.ctx.skb.skb).gso_segs };
        if segments == 0 { 1 } else { segments as u64 }
    }

    #[inline(always)]
    fn fix_l4(&mut self, fix: &L4Fix) -> Option<()> {
        if fix.udp {
            let p = self.bytes(fix.at, 2)?;
            // SAFETY: the two bytes at `p` were just bounds-checked.
            if unsafe { get::<u16>(p, 0) } == 0 {
                // No checksum, and so no helper that would tell a sum of the device's of what was written.
                let sum = if fix.v6 { checksum::add(fix.addr_delta, fix.port_delta) } else { fix.port_delta };
                // SAFETY: the context is the one the kernel gave this program. It fails if there is no such sum.
                unsafe { bpf_csum_update(self.ctx.skb.skb, sum) };
                return Some(());
            }
        }
        let udp = if fix.udp { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        let pseudo = udp | BPF_F_PSEUDO_HDR as u64;
        let done = if fix.v6 {
            self.csum_replace(fix.at, fix.addr_delta, pseudo | BPF_F_IPV6)
                || self.csum_replace(fix.at, fix.addr_delta, pseudo)
        } else {
            self.csum_replace(fix.at, fix.addr_delta, pseudo)
        };
        if !done || (fix.port_delta != 0 && !self.csum_replace(fix.at, fix.port_delta, udp)) {
            return None;
        }
        Some(())
    }

    /// Nothing in the context says so, but `bpf_l4_csum_replace` leaves the field alone on a change outside the
    /// pseudo-header if, and only if, the checksum is partial: so a change is tried, looked at and taken back.
    #[inline(always)]
    fn is_partial(&mut self, at: usize, pseudo: u16) -> bool {
        let Some(p) = self.bytes(at, 2) else { return false };
        // SAFETY: just bounds-checked.
        let before: u16 = unsafe { get(p, 0) };
        if before != pseudo || !self.csum_replace(at, 1, 0) {
            return false;
        }
        let Some(p) = self.bytes(at, 2) else { return false };
        // SAFETY: just bounds-checked.
        let partial = before == unsafe { get(p, 0) };
        // SAFETY: just bounds-checked.
        unsafe { put(p, 0, before) };
        partial
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        // SAFETY: the context is the one the kernel gave this program; pointers are derived anew after this.
        match unsafe { bpf_skb_change_tail(self.ctx.skb.skb, len as u32, 0) } {
            0 => Some(()),
            _ => None,
        }
    }

    #[inline(always)]
    fn insert(&mut self, l2: usize, room: usize) -> Option<()> {
        // The helper inserts behind the MAC header; tags that lie in the frame would stay on the wrong side.
        if l2 != 14 {
            return None;
        }
        // SAFETY: as in `truncate`.
        match unsafe { bpf_skb_adjust_room(self.ctx.skb.skb, room as i32, BPF_ADJ_ROOM_MAC, 0) } {
            0 => Some(()),
            _ => None,
        }
    }

    #[inline(always)]
    fn send_back(self) -> i32 {
        let flags = if self.hook == Hook::OUT { BPF_F_INGRESS as u64 } else { 0 };
        // SAFETY: the helper only notes where to send.
        unsafe { bpf_redirect(self.interface(), flags) as i32 }
    }
    #[inline(always)]
    fn onward<V: Rewrite>(self, l3: usize, headers: usize, key: &FlowKey<V::Addr>) -> i32 {
        let Some(ip) = self.bytes(l3, V::LEN) else { return TC_ACT_SHOT };
        // SAFETY: the fixed IP header at `ip` was just bounds-checked.
        let hops: u8 = unsafe { get(ip, V::HOPS) };
        let mut fib = route::question::<V>(self.interface(), key, 0);
        let found = if hops > 1 { route::find(&mut fib, self.ctx.skb.skb, headers) } else { None };
        let Some(across) = found else { return TC_ACT_UNSPEC };
        // SAFETY: as above.
        unsafe { V::hops(ip, hops - 1) };
        // SAFETY: the context is the one the kernel gave this program; the field may be read by this program type.
        let untagged = l3 == 14 && unsafe { (*self.ctx.skb.skb).vlan_present } == 0;
        if across
            && untagged
            && let Some(frame) = self.bytes(0, 14)
        {
            // SAFETY: the Ethernet header at `frame` was just bounds-checked.
            unsafe { route::address(frame, &fib.macs()) };
            return route::cross(&fib);
        }
        route::follow(&mut fib)
    }
    #[inline(always)]
    fn direct<V: Answer>(&mut self, direct: &Direct<V::Addr>) -> Result<i32, u32> {
        let outer = if direct.tunnel { V::LEN } else { 0 };
        let mut fib = route::straight::<V>(self.ctx.skb.skb, direct, outer)?;
        let ip = self.bytes(direct.l3, V::LEN).ok_or(0u32)?;
        // SAFETY: the fixed IP header at `ip` was just bounds-checked.
        unsafe { V::hops(ip, get::<u8>(ip, V::HOPS).wrapping_sub(1)) };
        if direct.tunnel {
            // As in `insert`.
            if direct.l3 != 14 {
                return Err(0);
            }
            let kind = if V::IS_V6 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 };
            // Segments stay as long as their sender wants them: that they fit has been looked at.
            let flags = kind as u64 | BPF_F_ADJ_ROOM_FIXED_GSO as u64;
            // SAFETY: as in `truncate`.
            let made =
                unsafe { bpf_skb_adjust_room(self.ctx.skb.skb, V::LEN as i32, BPF_ADJ_ROOM_MAC, flags) };
            if made != 0 {
                return Err(0);
            }
            let ip = self.bytes(14, V::LEN).ok_or(0u32)?;
            let proto = Proto(if V::IS_V6 { 41 } else { 4 });
            // SAFETY: the bytes at `ip` were just bounds-checked.
            unsafe { V::header(ip, fib.source(), direct.to, proto, direct.bytes) };
        }
        Ok(route::follow(&mut fib))
    }
    #[inline(always)]
    fn let_pass(&self) -> i32 {
        TC_ACT_UNSPEC
    }
    #[inline(always)]
    fn drop(self) -> i32 {
        TC_ACT_SHOT
    }
    #[inline(always)]
    fn context(&self) -> &TcContext {
        &self.ctx
    }
}
