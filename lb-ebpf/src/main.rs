//! Entry points. What happens to a packet: `lb_ebpf::pipeline`.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::xdp_action,
        helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
        macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp},
        programs::{SockAddrContext, SockContext, TcContext, XdpContext},
    };
    use lb_common::abi::{V4, V6};
    use lb_ebpf::{
        packet::{Packet, TcPacket, XdpPacket, put},
        pipeline,
        socket::{self, Call},
        sweep,
    };

    #[xdp(frags)]
    pub fn flowpin_xdp(ctx: XdpContext) -> u32 {
        pipeline::run(XdpPacket::<false, false>::new(ctx))
    }

    #[xdp(frags)]
    pub fn flowpin_xdp_virt(ctx: XdpContext) -> u32 {
        pipeline::run(XdpPacket::<true, false>::new(ctx))
    }

    #[xdp(frags)]
    pub fn flowpin_xdp_fast(ctx: XdpContext) -> u32 {
        pipeline::run(XdpPacket::<false, true>::new(ctx))
    }

    #[xdp(frags)]
    pub fn flowpin_xdp_virt_fast(ctx: XdpContext) -> u32 {
        pipeline::run(XdpPacket::<true, true>::new(ctx))
    }

    #[classifier]
    pub fn flowpin_tc(ctx: TcContext) -> i32 {
        pipeline::run(TcPacket::<false>::new(ctx))
    }

    #[classifier]
    pub fn flowpin_tc_fast(ctx: TcContext) -> i32 {
        pipeline::run(TcPacket::<true>::new(ctx))
    }

    #[classifier]
    pub fn flowpin_egress(ctx: TcContext) -> i32 {
        pipeline::leave(TcPacket::<false>::new(ctx))
    }

    #[xdp]
    pub fn flowpin_sweep4(ctx: XdpContext) -> u32 {
        sweep::run::<V4>(ctx)
    }

    #[xdp]
    pub fn flowpin_sweep6(ctx: XdpContext) -> u32 {
        sweep::run::<V6>(ctx)
    }

    #[xdp]
    pub fn flowpin_forget(ctx: XdpContext) -> u32 {
        sweep::forget(ctx)
    }

    #[cgroup_sock_addr(connect4)]
    pub fn flowpin_connect4(ctx: SockAddrContext) -> i32 {
        socket::v4(ctx, Call::Connect)
    }

    #[cgroup_sock_addr(connect6)]
    pub fn flowpin_connect6(ctx: SockAddrContext) -> i32 {
        socket::v6(ctx, Call::Connect)
    }

    #[cgroup_sock_addr(sendmsg4)]
    pub fn flowpin_sendmsg4(ctx: SockAddrContext) -> i32 {
        socket::v4(ctx, Call::Send)
    }

    #[cgroup_sock_addr(sendmsg6)]
    pub fn flowpin_sendmsg6(ctx: SockAddrContext) -> i32 {
        socket::v6(ctx, Call::Send)
    }

    #[cgroup_sock_addr(recvmsg4)]
    pub fn flowpin_recvmsg4(ctx: SockAddrContext) -> i32 {
        socket::v4(ctx, Call::Ask)
    }

    #[cgroup_sock_addr(recvmsg6)]
    pub fn flowpin_recvmsg6(ctx: SockAddrContext) -> i32 {
        socket::v6(ctx, Call::Ask)
    }

    #[cgroup_sock_addr(getpeername4)]
    pub fn flowpin_getpeername4(ctx: SockAddrContext) -> i32 {
        socket::v4(ctx, Call::Ask)
    }

    #[cgroup_sock_addr(getpeername6)]
    pub fn flowpin_getpeername6(ctx: SockAddrContext) -> i32 {
        socket::v6(ctx, Call::Ask)
    }

    #[cgroup_sock(sock_release)]
    pub fn flowpin_sock_release(ctx: SockContext) -> i32 {
        socket::closed(ctx)
    }

    #[xdp]
    pub fn flowpin_sweep_sockets(ctx: XdpContext) -> u32 {
        socket::sweep(ctx)
    }

    /// Writes jiffies and monotonic nanoseconds at offsets 16 and 24 of the packet.
    #[xdp]
    pub fn flowpin_clock(ctx: XdpContext) -> u32 {
        let packet = XdpPacket::<false, false>::new(ctx);
        let Some(p) = packet.bytes(16, 16) else { return xdp_action::XDP_ABORTED };
        // SAFETY: the bytes at `p` were just bounds-checked; the helpers have no preconditions.
        unsafe {
            put(p, 0, bpf_jiffies64());
            put(p, 8, bpf_ktime_get_ns());
        }
        xdp_action::XDP_PASS
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // Never reached: the verifier would refuse a program that could loop here.
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
