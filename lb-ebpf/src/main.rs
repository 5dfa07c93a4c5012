//! Entry points. What happens to a packet: `lb_ebpf::pipeline`.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::{TC_ACT_SHOT, xdp_action},
        helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
        macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp},
        programs::{SockAddrContext, SockContext, TcContext, XdpContext},
    };
    use lb_common::abi::{V4, V6};
    use lb_ebpf::{
        packet::{Hook, Packet, TcPacket, XdpPacket, put},
        pipeline::{self, parsed},
        socket::{self, Call},
        sweep,
    };

    /// Programs of XDP hooks: virtual device or not, and where they stand.
    macro_rules! xdp_hooks {
        ($($name:ident: $virtual:literal, $hook:ident;)*) => {$(
            #[xdp(frags)]
            pub fn $name(ctx: XdpContext) -> u32 {
                pipeline::enter(XdpPacket::<$virtual>::new(ctx, Hook::$hook))
            }
        )*};
    }

    xdp_hooks! {
        flowpin_xdp: false, IN;
        flowpin_xdp_ingress: false, ARRIVAL;
        flowpin_xdp_fast: false, FAST;
        flowpin_xdp_virt: true, IN;
        flowpin_xdp_virt_ingress: true, ARRIVAL;
        flowpin_xdp_virt_fast: true, FAST;
    }

    /// Programs of TC hooks, likewise.
    macro_rules! tc_hooks {
        ($($name:ident: $way:ident, $hook:ident;)*) => {$(
            #[classifier]
            pub fn $name(ctx: TcContext) -> i32 {
                pipeline::$way(TcPacket::new(ctx, Hook::$hook))
            }
        )*};
    }

    tc_hooks! {
        flowpin_tc: enter, IN;
        flowpin_tc_ingress: enter, ARRIVAL;
        flowpin_tc_fast: enter, FAST;
        flowpin_tc_besides: enter, BESIDES;
        flowpin_egress: leave, OUT;
    }

    /// Programs of further steps by XDP, IPv4 and IPv6.
    macro_rules! xdp_steps {
        ($($v4:ident, $v6:ident: $virtual:literal, $step:ident;)*) => {$(
            #[xdp(frags)]
            pub fn $v4(ctx: XdpContext) -> u32 {
                let Some(parsed) = parsed::<V4>() else { return xdp_action::XDP_ABORTED };
                pipeline::$step::<V4, _>(XdpPacket::<$virtual>::new(ctx, Hook(parsed.hook)))
            }
            #[xdp(frags)]
            pub fn $v6(ctx: XdpContext) -> u32 {
                let Some(parsed) = parsed::<V6>() else { return xdp_action::XDP_ABORTED };
                pipeline::$step::<V6, _>(XdpPacket::<$virtual>::new(ctx, Hook(parsed.hook)))
            }
        )*};
    }

    xdp_steps! {
        flowpin_xdp_flow4, flowpin_xdp_flow6: false, flow;
        flowpin_xdp_open4, flowpin_xdp_open6: false, open;
        flowpin_xdp_past4, flowpin_xdp_past6: false, past;
        flowpin_xdp_reuse4, flowpin_xdp_reuse6: false, reuse;
        flowpin_xdp_carry4, flowpin_xdp_carry6: false, carry;
        flowpin_xdp_answer4, flowpin_xdp_answer6: false, answer;
        flowpin_xdp_aside4, flowpin_xdp_aside6: false, aside;
        flowpin_xdp_virt_flow4, flowpin_xdp_virt_flow6: true, flow;
        flowpin_xdp_virt_open4, flowpin_xdp_virt_open6: true, open;
        flowpin_xdp_virt_past4, flowpin_xdp_virt_past6: true, past;
        flowpin_xdp_virt_reuse4, flowpin_xdp_virt_reuse6: true, reuse;
        flowpin_xdp_virt_carry4, flowpin_xdp_virt_carry6: true, carry;
        flowpin_xdp_virt_answer4, flowpin_xdp_virt_answer6: true, answer;
        flowpin_xdp_virt_aside4, flowpin_xdp_virt_aside6: true, aside;
    }

    /// Programs of further steps by TC, likewise.
    macro_rules! tc_steps {
        ($($v4:ident, $v6:ident: $step:ident;)*) => {$(
            #[classifier]
            pub fn $v4(ctx: TcContext) -> i32 {
                let Some(parsed) = parsed::<V4>() else { return TC_ACT_SHOT };
                pipeline::$step::<V4, _>(TcPacket::resumed(ctx, Hook(parsed.hook)))
            }
            #[classifier]
            pub fn $v6(ctx: TcContext) -> i32 {
                let Some(parsed) = parsed::<V6>() else { return TC_ACT_SHOT };
                pipeline::$step::<V6, _>(TcPacket::resumed(ctx, Hook(parsed.hook)))
            }
        )*};
    }

    tc_steps! {
        flowpin_tc_flow4, flowpin_tc_flow6: flow;
        flowpin_tc_open4, flowpin_tc_open6: open;
        flowpin_tc_past4, flowpin_tc_past6: past;
        flowpin_tc_reuse4, flowpin_tc_reuse6: reuse;
        flowpin_tc_carry4, flowpin_tc_carry6: carry;
        flowpin_tc_answer4, flowpin_tc_answer6: answer;
        flowpin_tc_aside4, flowpin_tc_aside6: aside;
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
        let packet = XdpPacket::<false>::bare(ctx);
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
