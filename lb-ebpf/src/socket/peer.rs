//! An address in the context of a hook: read, compared, replaced.

use aya_ebpf::bindings::bpf_sock_addr;
use lb_common::abi::{Addr as _, Addr4, Addr6, Backend, PortBe, Proto, Service, V4, V6};

use crate::service;

/// The first half of an IPv4-mapped address (RFC 4291, section 2.5.5.2), last word.
const MAPPED: u32 = 0xffffu32.to_be();

/// An address in the context of a hook.
#[derive(Clone, Copy)]
pub struct Peer {
    /// As [`Addr::words`].
    pub addr: [u32; 4],
    /// The port.
    pub port: PortBe,
    /// TCP, UDP, or something that doesn't concern us.
    pub proto: Proto,
    /// As [`Backend`] has it.
    pub family: u8,
}

impl Peer {
    /// Of an IPv4 hook.
    #[inline(always)]
    pub fn v4(ctx: *const bpf_sock_addr) -> Self {
        // SAFETY: the kernel's context; fields are read whole, each once.
        unsafe {
            Self {
                addr: [(&raw const (*ctx).user_ip4).read_volatile(), 0, 0, 0],
                port: PortBe((&raw const (*ctx).user_port).read_volatile() as u16),
                proto: Proto((&raw const (*ctx).protocol).read_volatile() as u8),
                family: Backend::V4,
            }
        }
    }

    /// Of an IPv6 hook, where IPv4 addresses come in IPv6's clothes.
    #[inline(always)]
    pub fn v6(ctx: *const bpf_sock_addr) -> Self {
        // SAFETY: as above.
        let (addr, port, proto) = unsafe {
            let word = |i: usize| (&raw const (*ctx).user_ip6[i]).read_volatile();
            (
                [word(0), word(1), word(2), word(3)],
                PortBe((&raw const (*ctx).user_port).read_volatile() as u16),
                Proto((&raw const (*ctx).protocol).read_volatile() as u8),
            )
        };
        if addr[0] | addr[1] == 0 && addr[2] == MAPPED {
            return Self { addr: [addr[3], 0, 0, 0], port, proto, family: Backend::V4 };
        }
        Self { addr, port, proto, family: Backend::V6 }
    }

    /// Puts it there.
    #[inline(always)]
    pub fn write4(&self, ctx: *mut bpf_sock_addr) {
        // SAFETY: the kernel's context; fields that a hook may write, each whole.
        unsafe {
            (&raw mut (*ctx).user_ip4).write_volatile(self.addr[0]);
            (&raw mut (*ctx).user_port).write_volatile(self.port.0 as u32);
        }
    }

    /// Likewise.
    #[inline(always)]
    pub fn write6(&self, ctx: *mut bpf_sock_addr) {
        // SAFETY: as above.
        unsafe {
            if self.family == Backend::V4 {
                (&raw mut (*ctx).user_ip6[3]).write_volatile(self.addr[0]);
            } else {
                (&raw mut (*ctx).user_ip6[0]).write_volatile(self.addr[0]);
                (&raw mut (*ctx).user_ip6[1]).write_volatile(self.addr[1]);
                (&raw mut (*ctx).user_ip6[2]).write_volatile(self.addr[2]);
                (&raw mut (*ctx).user_ip6[3]).write_volatile(self.addr[3]);
            }
            (&raw mut (*ctx).user_port).write_volatile(self.port.0 as u32);
        }
    }

    /// The service that is reached there. By itself, for the sake of the stack.
    #[inline(never)]
    pub fn service(&self) -> Option<&'static Service> {
        if self.family == Backend::V4 {
            service::at::<V4>(Addr4(self.addr[0]), self.port, self.proto)
        } else {
            service::at::<V6>(Addr6(self.addr), self.port, self.proto)
        }
    }

    /// Word by word: the stack has no room for copies.
    ///
    /// # Safety
    /// `addr` must be valid.
    #[inline(always)]
    pub unsafe fn turn_into(&mut self, addr: *const [u32; 4], port: PortBe) {
        let word = addr.cast::<u32>();
        // SAFETY: the caller vouches for four words.
        unsafe {
            self.addr[0] = word.read_volatile();
            self.addr[1] = word.add(1).read_volatile();
            self.addr[2] = word.add(2).read_volatile();
            self.addr[3] = word.add(3).read_volatile();
        }
        self.port = port;
    }

    /// Is it this one?
    #[inline(always)]
    pub fn is(&self, addr: &[u32; 4], port: PortBe) -> bool {
        self.addr[0] == addr[0]
            && self.addr[1] == addr[1]
            && self.addr[2] == addr[2]
            && self.addr[3] == addr[3]
            && self.port == port
    }
}

/// Who the node is as a client of a family, as in [`Backend`]: it has no address yet when it connects.
#[inline(always)]
pub fn node(family: u8) -> (u64, u64) {
    if family == Backend::V4 { Addr4(0).wide() } else { Addr6([0; 4]).wide() }
}
