//! A packet in memory, for tests on the host: same steps, no kernel.

use aya_ebpf::programs::XdpContext;
use lb_common::{abi::FlowKey, checksum};

use super::{Hook, L4Fix, Packet, Step, get, put};
use crate::{direct::Direct, reset::Answer, rewrite::Rewrite};

/// What became of a [`SlicePacket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to the stack.
    Pass,
    /// Dropped.
    Drop,
    /// Sent back.
    SentBack,
}

/// A frame in a buffer, all of it linear, checksum complete.
pub struct SlicePacket<'a> {
    frame: &'a mut [u8],
}

impl<'a> SlicePacket<'a> {
    /// Wraps a frame.
    pub fn new(frame: &'a mut [u8]) -> Self {
        Self { frame }
    }
}

impl Packet for SlicePacket<'_> {
    type Verdict = Outcome;
    type Context = XdpContext;
    const BIG: bool = false;
    const DIRECT: bool = false;
    const MAY_BE_PARTIAL: bool = false;

    fn hook(&self) -> Hook {
        Hook::ARRIVAL
    }
    fn is_addressed(&self) -> Option<bool> {
        None
    }
    fn interface(&self) -> u32 {
        0
    }
    fn tail(&self, _step: Step, _v6: bool) {}
    fn bytes(&self, at: usize, len: usize) -> Option<*mut u8> {
        self.frame.get(at..at.checked_add(len)?).map(|s| s.as_ptr().cast_mut())
    }
    fn holds(&self, len: usize) -> bool {
        self.frame.len() >= len
    }
    fn frame_len(&self) -> usize {
        self.frame.len()
    }
    fn segments(&self) -> u64 {
        1
    }
    fn fix_l4(&mut self, fix: &L4Fix) -> Option<()> {
        let p = self.bytes(fix.at, 2)?;
        let delta = checksum::add(fix.addr_delta, fix.port_delta);
        // SAFETY: just bounds-checked, and `self` is borrowed mutably.
        unsafe {
            let old: u16 = get(p, 0);
            put(p, 0, if fix.udp { checksum::update_udp(old, delta) } else { checksum::update(old, delta) });
        }
        Some(())
    }
    fn is_partial(&mut self, _at: usize, _pseudo: u16) -> bool {
        false
    }
    fn truncate(&mut self, len: usize) -> Option<()> {
        let frame = core::mem::take(&mut self.frame);
        self.frame = frame.get_mut(..len)?;
        Some(())
    }
    fn insert(&mut self, _l2: usize, _room: usize) -> Option<()> {
        None
    }
    fn send_back(self) -> Outcome {
        Outcome::SentBack
    }
    fn onward<V: Rewrite>(self, _l3: usize, _headers: usize, _key: &FlowKey<V::Addr>) -> Outcome {
        Outcome::Pass
    }
    fn direct<V: Answer>(&mut self, _direct: &Direct<V::Addr>) -> Result<Outcome, u32> {
        Err(0)
    }
    fn let_pass(&self) -> Outcome {
        Outcome::Pass
    }
    fn drop(self) -> Outcome {
        Outcome::Drop
    }
    fn context(&self) -> &XdpContext {
        unreachable!("nothing is logged outside the kernel")
    }
}
