//! Asks the kernel to remove flows, or to close connections: the requests go to the sweep programs as the packet of a test run.

use lb_common::abi::{
    Addr, Addr4, Addr6, Flow,
    affinity::ForgetRequest,
    programs,
    socket::SocketRequest,
    sweep::{BATCH, EXPIRE, HEADER, REMOVE, RESET, Request},
};

use super::{DatapathError, object::Object};

/// Which program serves which family.
pub trait Sweep: Addr {
    /// Name of the program.
    const PROGRAM: &'static str;
}

impl Sweep for Addr4 {
    const PROGRAM: &'static str = programs::SWEEP4;
}

impl Sweep for Addr6 {
    const PROGRAM: &'static str = programs::SWEEP6;
}

/// The request about a flow, given both entries as they were looked at; the reply's, if there was one.
pub fn request<A: Addr>(flow: &Flow<A>, reply: Option<&Flow<A>>) -> Request<A> {
    let seen_reply = reply.map_or(flow.last_seen, |reply| reply.last_seen);
    Request { state: flow.state, key: flow.key(), seen_forward: flow.last_seen, seen_reply }
}

/// Removes flows that have not changed since the requests were made. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn remove<A: Sweep>(object: &Object, requests: &[Request<A>]) -> Result<u32, DatapathError> {
    ask(object, A::PROGRAM, REMOVE, requests)
}

/// Closes connections (TCP) that have not changed since the requests were made. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn expire<A: Sweep>(object: &Object, requests: &[Request<A>]) -> Result<u32, DatapathError> {
    ask(object, A::PROGRAM, EXPIRE, requests)
}

/// Forgets clients whose bindings have not changed since they were looked at: those without open flows, or all of them if `force`. Returns
/// how many there were.
///
/// # Errors
/// The kernel refuses.
pub fn forget(object: &Object, force: bool, requests: &[ForgetRequest]) -> Result<u32, DatapathError> {
    ask(object, programs::FORGET, force.into(), requests)
}

/// Closes connections (TCP): who says something from now on is answered with a RST. Returns how many were open.
///
/// # Errors
/// The kernel refuses.
pub fn close<A: Sweep>(object: &Object, requests: &[Request<A>]) -> Result<u32, DatapathError> {
    ask(object, A::PROGRAM, RESET, requests)
}

/// Lets go of what sockets are pinned to; `what`: as for flows. Returns how many pins there were.
///
/// # Errors
/// The kernel refuses.
pub(super) fn release(object: &Object, what: u8, requests: &[SocketRequest]) -> Result<u32, DatapathError> {
    ask(object, programs::SWEEP_SOCKETS, what, requests)
}

/// `R`: plain data without padding (asserted in lb-common).
fn ask<R>(object: &Object, program: &str, what: u8, requests: &[R]) -> Result<u32, DatapathError> {
    let size = size_of::<R>();
    let mut done = 0;
    for batch in requests.chunks(BATCH) {
        let mut packet = vec![0u8; HEADER];
        packet[0] = what;
        for request in batch {
            // SAFETY: a request is plain data without padding (asserted in lb-common), so its bytes are all initialised.
            packet.extend_from_slice(unsafe {
                std::slice::from_raw_parts((&raw const *request).cast::<u8>(), size)
            });
        }
        done += object.run(program, &packet)?;
    }
    Ok(done)
}
