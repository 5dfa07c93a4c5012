//! A packet that goes no further: counted, and answered if its sender is waiting for an answer.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use lb_common::{
    abi::{Answer, Proto, Reason},
    flow_state::flags,
};

use super::{Family, go_on, parsed};
use crate::{
    account,
    packet::{Packet, Step, opaque},
    parse::{Parsed, ROOM},
    reset,
    table::NOWHERE,
    unreachable,
};

/// Reasons by their answer, a bit for each.
const RESET: u64 = Reason::answered(Answer::Reset);
const REFUSED: u64 = Reason::answered(Answer::Refused);
const SIZE: u64 = Reason::answered(Answer::Size);
/// How often a datagram looks for its flow. Each takes three steps, of the 33 that the kernel lets a packet take.
const LOOKS: u32 = 9;
/// Reads of the clock before the first of them, about half a microsecond. Each time there are twice as many: all in all a quarter of a millisecond, which
/// only a CPU takes that was interrupted.
const READS: usize = 16;

/// See the module.
#[inline(always)]
pub fn answer<V: Family, P: Packet>(mut packet: P) -> P::Verdict {
    let Some(parsed) = parsed::<V>() else { return packet.drop() };
    if may_go_again(parsed) {
        pause(READS << (parsed.again / ROOM).min(LOOKS));
        parsed.again += ROOM;
        parsed.place = NOWHERE;
        return go_on::<V, P>(packet, Step::Flow);
    }
    account::reason(parsed.because);
    if parsed.l4() == 0 {
        return packet.drop();
    }
    match make::<V, P>(&mut packet, parsed) {
        None => packet.drop(),
        Some(true) => packet.send_back(),
        Some(false) => {
            account::reason(Reason::Unanswered as u32);
            packet.drop()
        }
    }
}

/// Lets another CPU get on.
#[inline(always)]
fn pause(reads: usize) {
    for read in 0..opaque(READS << LOOKS) {
        if read >= reads {
            break;
        }
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_ns() };
    }
}

/// Does a datagram meet its flow while another CPU makes it, or takes it away? That is over in a microsecond, and nobody would say it again: it looks once
/// more. So does a SYN, which would be said again a second later.
#[inline(always)]
fn may_go_again<A>(parsed: &Parsed<A>) -> bool {
    parsed.because == Reason::FlowBusy as u32
        && (parsed.key.proto == Proto::UDP || parsed.segment.opens())
        && parsed.l4() != 0
        && parsed.again < LOOKS * ROOM
}

/// Makes the packet its answer. `None`: there is none to be given; false: it can't be made.
#[inline(always)]
fn make<V: Family, P: Packet>(packet: &mut P, parsed: &Parsed<V::Addr>) -> Option<bool> {
    let answered = |by: u64| by & 1 << (parsed.because & 63) != 0;
    if answered(SIZE) {
        return Some(unreachable::too_big::<V, P>(packet, parsed, parsed.mtu));
    }
    match parsed.key.proto {
        // Never answered (RFC 9293, section 3.10.7.1): two who did would go on for ever.
        Proto::TCP if parsed.segment.flags & flags::RST != 0 => None,
        Proto::TCP if answered(RESET | REFUSED) => Some(reset::make::<V, P>(packet, parsed)),
        Proto::UDP if answered(REFUSED) => Some(unreachable::make::<V, P>(packet, parsed)),
        _ => None,
    }
}
