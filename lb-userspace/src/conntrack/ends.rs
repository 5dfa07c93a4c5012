//! The two ends of a connection that was closed.

use std::net::SocketAddr;

use lb_common::{
    abi::{Addr, Flow, PortBe},
    flow_state::Word,
};

use crate::datapath::{flows::FlowTable, provoke::Provoker};

/// Makes both ends of a connection say something, given its forward entry, so that the datapath tells them that it is over; those that
/// don't know yet.
pub fn tell<A: Addr>(provoker: &Provoker, table: &FlowTable<A>, flow: &Flow<A>) {
    let at = |addr: A, port: PortBe| SocketAddr::new(addr.to_ip(), port.get());
    let (client, vip) = (at(flow.src, flow.sport), at(flow.dst, flow.dport));
    let Some(beyond) = table.beyond(flow) else { return };
    let (near, backend) = (at(beyond.src, beyond.sport), at(beyond.dst, beyond.dport));
    let word = Word(flow.state);
    // Who answers past the node can't be made to do so by way of it; he hears of it from the client when he next says something.
    let unheard = word.knows(false) || flow.direction.is_direct();
    for (from, to, knows) in [(near, backend, unheard), (vip, client, word.knows(true))] {
        if !knows && let Err(e) = provoker.provoke(from, to) {
            tracing::debug!(%to, "can't be told that its connection is closed: {e}");
        }
    }
}
