//! A packet, whichever hook brought it. Steps are written over this trait; the faces hide what differs: how bytes are reached,
//! who keeps the layer-4 checksum right, and what a verdict is called.

mod route;
mod slice;
mod tc;
mod xdp;

pub use slice::SlicePacket;
pub use tc::TcPacket;
pub use xdp::XdpPacket;

use lb_common::abi::{Direction, FlowKey, programs::STEPS};

use crate::{direct::Direct, reset::Answer, rewrite::Rewrite};

/// Where a packet is met, and what is seen to there.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hook(pub u32);

impl Hook {
    /// It comes in, and the stack carries it on. Answers of backends are left to [`OUT`](Self::OUT).
    pub const IN: Self = Self(0);
    /// It comes in, and the stack carries it on. Answers of backends are translated here.
    pub const ARRIVAL: Self = Self(1);
    /// It comes in, and is sent on past the stack once it is translated.
    pub const FAST: Self = Self(2);
    /// It leaves.
    pub const OUT: Self = Self(3);
    /// It comes in, and XDP has seen to it but for what goes to backends that answer past the node.
    pub const BESIDES: Self = Self(4);

    /// Are packets of an entry with this direction left alone here, since another hook sees to them?
    #[inline(always)]
    pub const fn leaves_alone(self, direction: Direction) -> bool {
        (self.0 == Self::OUT.0 && direction.is_forward())
            || (self.0 == Self::IN.0 && direction.is_plain_reply())
            || (self.0 == Self::BESIDES.0 && !direction.is_direct())
    }
}

/// A further step of a packet, by a program of its own.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It may change its flow's state.
    Flow = 0,
    /// It belongs to no flow.
    Open = 1,
    /// It belongs to no flow and is for no service.
    Past = 2,
    /// A flow that is closed may have the port that its own is to have.
    Reuse = 3,
    /// It goes on, but not simply.
    Carry = 4,
    /// It is refused.
    Answer = 5,
    /// It has no ports: ICMP, a fragment, or broken.
    Aside = 6,
}

const _: () = assert!(Step::Aside as u32 + 1 == STEPS);

/// What a change of address and port does to a layer-4 checksum.
#[derive(Clone, Copy)]
pub struct L4Fix {
    /// Offset of the checksum in the frame.
    pub at: usize,
    /// Change of the pseudo-header's sum.
    pub addr_delta: u32,
    /// Change of the header's own sum; 0: the port stays.
    pub port_delta: u32,
    /// UDP: 0 means "no checksum".
    pub udp: bool,
    /// The address change isn't balanced by an IP header checksum.
    pub v6: bool,
    /// Sum of the pseudo-header as it was, folded, not complemented: what the field holds if the checksum is partial. Only
    /// set if [`Packet::MAY_BE_PARTIAL`].
    pub pseudo: u16,
}

/// A packet as the steps see it. Offsets count from the start of the frame.
pub trait Packet: Sized {
    /// What the hook returns.
    type Verdict;
    /// The context that log records want.
    type Context: aya_ebpf::EbpfContext;
    /// Can the length in the IP header be 0 because the packet is a GSO packet over 64 KiB (BIG TCP)?
    const BIG: bool;
    /// Can packets be [sent](Packet::direct) as they are?
    const DIRECT: bool;
    /// May the layer-4 checksum be partial, and is it up to the packet path to notice?
    const MAY_BE_PARTIAL: bool;

    /// Where it is met.
    fn hook(&self) -> Hook;
    /// Was its frame addressed to the interface that it came in by? `None`: that isn't known, or it was to another machine, or another interface.
    fn is_addressed(&self) -> Option<bool>;
    /// Index of the interface.
    fn interface(&self) -> u32;
    /// Goes on with the program of a further step. Comes back only if there is none, which is a bug.
    fn tail(&self, step: Step, v6: bool);

    /// Pointer to `len` bytes at offset `at`; `None` if they are not all in the linear part of the packet.
    ///
    /// The pointer is good until the next call that takes `&mut self`.
    fn bytes(&self, at: usize, len: usize) -> Option<*mut u8>;
    /// Are there so many bytes in the frame, including those outside the linear part?
    fn holds(&self, len: usize) -> bool;
    /// Bytes in the frame, including those outside the linear part.
    fn frame_len(&self) -> usize;
    /// Packets on the wire that this one stands for (GSO).
    fn segments(&self) -> u64;
    /// Brings the layer-4 checksum up to date after the bytes were rewritten.
    fn fix_l4(&mut self, fix: &L4Fix) -> Option<()>;

    /// Is the checksum at `at` partial, to be completed by whoever transmits? Only asked when answering.
    fn is_partial(&mut self, at: usize, pseudo: u16) -> bool;
    /// Cuts the frame to `len` bytes.
    fn truncate(&mut self, len: usize) -> Option<()>;
    /// Inserts `room` bytes between a layer-2 header of `l2` bytes and what follows.
    fn insert(&mut self, l2: usize, room: usize) -> Option<()>;
    /// Verdict: send it to where it came from: out of the interface it came in by, or, where it leaves, back into the stack as if it had come in there.
    fn send_back(self) -> Self::Verdict;
    /// Verdict: on to where it is addressed by now, past the IP stack if that is possible. `l3`: offset of the IP header; `headers`:
    /// bytes from there to the payload; `key`: its 5-tuple.
    fn onward<V: Rewrite>(self, l3: usize, headers: usize, key: &FlowKey<V::Addr>) -> Self::Verdict;
    /// Verdict: to a backend as it is, but for the time to live. `Err`: it is larger than this, a packet's bytes from its IP header on, or there is no way (0).
    fn direct<V: Answer>(&mut self, direct: &Direct<V::Addr>) -> Result<Self::Verdict, u32>;
    /// Verdict: on to the next program and the IP stack.
    fn let_pass(&self) -> Self::Verdict;
    /// The same, as the last word on it.
    #[inline(always)]
    fn pass(self) -> Self::Verdict {
        self.let_pass()
    }
    /// Verdict: drop.
    fn drop(self) -> Self::Verdict;
    /// For log records.
    fn context(&self) -> &Self::Context;
}

/// Reads and writes in a packet. Packets are only 2-byte aligned; BPF on every architecture lets a program access a packet
/// unaligned where the CPU can, and the loader's verifier refuses where it can't, so that in the kernel these are plain
/// loads. On the host they are unaligned loads.
///
/// # Safety
/// `p + at` must be valid for an access of that width: within what [`Packet::bytes`] returned.
#[inline(always)]
pub unsafe fn get<T: Copy>(p: *const u8, at: usize) -> T {
    #[cfg(target_arch = "bpf")]
    // SAFETY: valid by this function's contract; alignment as argued above.
    unsafe {
        *(p.add(at) as *const T)
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid by this function's contract.
    unsafe {
        (p.add(at) as *const T).read_unaligned()
    }
}

/// See [`get`].
///
/// # Safety
/// As for [`get`].
#[inline(always)]
pub unsafe fn put<T: Copy>(p: *mut u8, at: usize, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: valid by this function's contract; alignment as argued at `get`.
    unsafe {
        *(p.add(at) as *mut T) = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid by this function's contract.
    unsafe {
        (p.add(at) as *mut T).write_unaligned(value);
    }
}

/// Copies a value from one place to another, of which the optimiser couldn't tell that they are two: it would call a function that copies bytes.
///
/// # Safety
/// Both must be valid, and not overlap.
#[inline(always)]
pub(crate) unsafe fn copy<T>(to: *mut T, from: *const T) {
    // SAFETY: the caller vouches for both.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

/// The same value, about which the optimiser knows nothing. It knows that `data` and `data_end` are 32-bit fields of the context and
/// would compare them as such; the verifier knows that they are pointers and wants them compared whole.
#[inline(always)]
pub(crate) fn opaque(value: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // A real instruction: two line records for one place are refused.
        // SAFETY: moves a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags))
        };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}
