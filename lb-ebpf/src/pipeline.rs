//! The packet's diary: what happens in which order, and what each outcome means.
//!
//! ```text
//! enter, leave   a packet comes in, or leaves: nearly all are nobody's, or of a flow that is settled, and done with here
//!   ├─▶ aside    no ports: ICMP, fragments, what is broken
//!   ├─▶ flow     it may change its flow's state
//!   ├─▶ open     it belongs to no flow: chooses and pins
//!   ├─▶ past     it belongs to no flow, and is for no service; or a backend says it and nobody has asked
//!   ├─▶ reuse    a flow that gives way may have the port, or the place, that its own was to have
//!   ├─▶ carry    it goes on, but not simply, or was seen to change its flow
//!   └─▶ answer   it goes no further: counted, and answered if its sender waits for an answer
//! ```
//!
//! Each arrow is a tail call: what stands at its end is a program of its own, with a stack and a budget of instructions of its own. What one
//! finds out, the next finds in this CPU's [`Parsed`].

mod answer;
mod aside;
mod carry;
mod enter;
mod flow;
mod leave;
mod open;
mod past;
mod reuse;
mod speak;

use lb_common::abi::Reason;

pub use self::{
    answer::answer,
    aside::aside,
    carry::carry,
    enter::enter,
    flow::flow,
    leave::leave,
    open::{Choosing, backend_port, open},
    past::past,
    reuse::reuse,
};
use crate::{
    account,
    conntrack::Pin,
    icmp::Icmp,
    packet::{Packet, Step},
    parse::{Header, Parsed},
};

/// Both IP versions can do all of this.
pub trait Family: Header + Icmp + Pin {}
impl<V: Header + Icmp + Pin> Family for V {}

/// What the packet at hand is.
#[inline(always)]
pub fn parsed<V: Family>() -> Option<&'static mut Parsed<V::Addr>> {
    // SAFETY: this CPU's own slot; programs on it don't preempt each other in softirq, and each refers to it once.
    V::parsed().get_ptr_mut(0).map(|parsed| unsafe { &mut *parsed })
}

/// Goes on with a further step.
#[inline(always)]
fn go_on<V: Family, P: Packet>(packet: P, step: Step) -> P::Verdict {
    packet.tail(step, V::IS_V6);
    // Not reached, unless the agent has left the step out.
    account::reason(Reason::Internal as u32);
    packet.drop()
}

/// A packet that goes no further.
#[inline(always)]
fn refuse<V: Family, P: Packet>(packet: P, parsed: &mut Parsed<V::Addr>, reason: u32) -> P::Verdict {
    parsed.because = reason;
    go_on::<V, P>(packet, Step::Answer)
}
