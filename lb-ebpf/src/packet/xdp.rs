//! A packet as XDP brings it: bytes are the program's own, checksums too.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::{
    abi::{FlowKey, programs::STEPS},
    checksum,
};

use super::{Hook, L4Fix, Packet, Step, get, opaque, put, route};
use crate::{direct::Direct, maps::TAILS_XDP, reset::Answer, rewrite::Rewrite};

/// An XDP packet. `VIRTUAL`: it came by a veth, tun or tap, where a local sender leaves the checksum partial: the field holds
/// the pseudo-header's sum, and whoever transmits adds the rest. XDP isn't told, so such a field is recognised by its value. A
/// complete checksum equals that sum by chance once in 65,536 packets, and is then spoilt; on real devices, where nothing is
/// partial, the test isn't made.
pub struct XdpPacket<const VIRTUAL: bool> {
    ctx: XdpContext,
    hook: Hook,
    /// Its checksum was found to be partial.
    partial: bool,
}

impl<const VIRTUAL: bool> XdpPacket<VIRTUAL> {
    /// Wraps a context.
    #[inline(always)]
    pub const fn new(ctx: XdpContext, hook: Hook) -> Self {
        Self { ctx, hook, partial: false }
    }

    /// Bytes from userspace, which come in nowhere.
    #[inline(always)]
    pub const fn bare(ctx: XdpContext) -> Self {
        Self::new(ctx, Hook::ARRIVAL)
    }
}

impl<const VIRTUAL: bool> Packet for XdpPacket<VIRTUAL> {
    type Verdict = u32;
    type Context = XdpContext;
    const BIG: bool = false;
    const DIRECT: bool = false;
    const MAY_BE_PARTIAL: bool = VIRTUAL;

    #[inline(always)]
    fn hook(&self) -> Hook {
        self.hook
    }

    #[inline(always)]
    fn is_addressed(&self) -> Option<bool> {
        None
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn tail(&self, step: Step, v6: bool) {
        let half = if VIRTUAL { STEPS * 2 } else { 0 };
        // SAFETY: the context is the one the kernel gave this program, and nothing is left to be cleared up.
        unsafe { TAILS_XDP.tail_call(&self.ctx, half + step as u32 * 2 + v6 as u32) };
    }

    #[inline(always)]
    fn bytes(&self, at: usize, len: usize) -> Option<*mut u8> {
        let start = opaque(self.ctx.data()) + at;
        if start + len > opaque(self.ctx.data_end()) { None } else { Some(start as *mut u8) }
    }

    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        // The linear part usually has them all: then there is nobody to ask.
        opaque(self.ctx.data_end()) - opaque(self.ctx.data()) >= len || self.frame_len() >= len
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn segments(&self) -> u64 {
        1
    }

    #[inline(always)]
    fn fix_l4(&mut self, fix: &L4Fix) -> Option<()> {
        let p = self.bytes(fix.at, 2)?;
        // SAFETY: the two bytes at `p` were just bounds-checked.
        unsafe {
            let old: u16 = get(p, 0);
            let new = if VIRTUAL && old == fix.pseudo && old != 0 {
                self.partial = true;
                checksum::update_partial(old, fix.addr_delta)
            } else {
                let delta = checksum::add(fix.addr_delta, fix.port_delta);
                if fix.udp { checksum::update_udp(old, delta) } else { checksum::update(old, delta) }
            };
            put(p, 0, new);
        }
        Some(())
    }

    #[inline(always)]
    fn is_partial(&mut self, _at: usize, _pseudo: u16) -> bool {
        // What XDP sends back is never completed by anybody.
        false
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        let delta = len as i64 - self.frame_len() as i64;
        // SAFETY: the context is the one the kernel gave this program; pointers are derived anew after this.
        if delta < 0 && unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta as i32) } != 0 {
            return None;
        }
        Some(())
    }

    #[inline(always)]
    fn insert(&mut self, l2: usize, room: usize) -> Option<()> {
        // SAFETY: as in `truncate`.
        if unsafe { bpf_xdp_adjust_head(self.ctx.ctx, -(room as i32)) } != 0 {
            return None;
        }
        // The layer-2 header moves to the front in halves of words: 14, 18 or 22 bytes.
        let mut at = 0;
        while at < 22 {
            if at < l2 {
                let from = self.bytes(at + room, 2)?;
                let to = self.bytes(at, 2)?;
                // SAFETY: both were just bounds-checked.
                unsafe { put::<u16>(to, 0, get(from, 0)) };
            }
            at += 2;
        }
        Some(())
    }

    #[inline(always)]
    fn send_back(self) -> u32 {
        if !VIRTUAL {
            return xdp_action::XDP_TX;
        }
        // veth (drivers/net/veth.c) puts what XDP_TX sends into its peer's ring, but wakes the peer only if that has an XDP
        // program as well; for what is redirected it always does.
        // SAFETY: the helper only notes where to send.
        unsafe { bpf_redirect(self.interface(), 0) as u32 }
    }
    #[inline(always)]
    fn onward<V: Rewrite>(self, l3: usize, _headers: usize, key: &FlowKey<V::Addr>) -> u32 {
        // A partial checksum is the stack's to complete. The way of a tagged frame would be another interface's.
        if self.hook != Hook::FAST || self.partial || l3 != 14 {
            return xdp_action::XDP_PASS;
        }
        let Some(ip) = self.bytes(14, V::LEN) else { return xdp_action::XDP_DROP };
        // SAFETY: the fixed IP header at `ip` was just bounds-checked.
        let hops: u8 = unsafe { get(ip, V::HOPS) };
        let len = self.frame_len() - 14;
        let mut fib = route::question::<V>(self.interface(), key, route::shortened(len));
        if hops <= 1 || !route::back(&mut fib, self.ctx.ctx) {
            return xdp_action::XDP_PASS;
        }
        let Some(frame) = self.bytes(0, 14 + V::LEN) else { return xdp_action::XDP_DROP };
        // SAFETY: both headers at `frame` were just bounds-checked.
        unsafe {
            route::address(frame, &fib.macs());
            V::hops(frame.add(14), hops - 1);
        }
        self.send_back()
    }
    #[inline(always)]
    fn direct<V: Answer>(&mut self, _direct: &Direct<V::Addr>) -> Result<u32, u32> {
        Err(0)
    }
    #[inline(always)]
    fn let_pass(&self) -> u32 {
        xdp_action::XDP_PASS
    }
    #[inline(always)]
    fn drop(self) -> u32 {
        xdp_action::XDP_DROP
    }
    #[inline(always)]
    fn context(&self) -> &XdpContext {
        &self.ctx
    }
}
