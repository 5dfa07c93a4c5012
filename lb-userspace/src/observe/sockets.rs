//! Sockets of the node's own processes, among the connections.

use std::{collections::HashMap, net::SocketAddr};

use lb_common::{
    abi::{Proto, SocketPin},
    expiry::{age, idle},
};

use super::connections::Order;
use crate::{
    api::types::ConnectionView,
    conntrack::matches::{Filter, Place},
    datapath::{
        Clock,
        diag::{self, Known},
        sockets::address,
    },
};

/// TCP states of the kernel's (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;

/// A pin that matches.
pub struct Row<'a> {
    pin: SocketPin,
    clock: Clock,
    service: &'a str,
    client: SocketAddr,
    backend: SocketAddr,
    state: &'static str,
}

impl Row<'_> {
    fn age(&self) -> u64 {
        age(self.clock.now(), self.pin.created)
    }

    /// Ticks since it was last heard of; of a connected socket that is since it was connected.
    fn idle(&self) -> u32 {
        idle(self.clock.now() as u32, self.pin.last_seen)
    }

    /// As for flows. Its packets and bytes are not known here.
    pub fn rank(&self, order: Order) -> u64 {
        match order {
            Order::Age => self.age(),
            Order::Idle => self.idle().into(),
            Order::Bytes => 0,
        }
    }

    /// For people.
    pub fn view(&self) -> ConnectionView {
        let pin = &self.pin;
        ConnectionView {
            service: self.service.into(),
            client: self.client.to_string(),
            vip: SocketAddr::new(address(pin.vip, pin.family), pin.vip_port.get()).to_string(),
            backend: self.backend.to_string(),
            protocol: if pin.proto == Proto::TCP { "tcp" } else { "udp" }.into(),
            state: self.state.into(),
            age_seconds: self.clock.seconds(self.age()),
            idle_seconds: self.clock.seconds(self.idle().into()),
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
        }
    }
}

/// What a connection's state is called, by the kernel's for its socket.
const fn state(proto: Proto, known: Option<Known>) -> &'static str {
    match known {
        _ if proto.0 == Proto::UDP.0 => "active",
        Some(Known { state: SYN_SENT, .. }) => "syn-sent",
        Some(Known { state: CLOSE, .. }) => "closed",
        Some(Known { state: ESTABLISHED, .. }) | None => "established",
        Some(_) => "closing",
    }
}

/// Hands every pin that matches to `visit`. A socket's own address is the kernel's to say, and only of this network namespace; of others it is
/// shown as unspecified.
pub fn each<'a>(place: Place<'a>, filter: &Filter<'_>, mut visit: impl FnMut(Row<'a>)) {
    let mut pins = place.sockets.iter().peekable();
    if pins.peek().is_none() {
        return;
    }
    let known: HashMap<u64, Known> = diag::sockets().unwrap_or_else(|e| {
        tracing::debug!("the kernel's list of sockets: {e}");
        HashMap::new()
    });
    for socket in pins {
        let pin = socket.pin;
        let known = known.get(&socket.cookie()).copied();
        let unspecified = SocketAddr::new(address([0; 4], pin.family), 0);
        let client = known.map_or(unspecified, |known| known.local);
        let backend = SocketAddr::new(address(pin.addr, pin.family), pin.port.get());
        let service = place.directory.name(pin.backend);
        let state = state(pin.proto, known);
        if filter.takes(client, backend, service, state) {
            visit(Row { pin, clock: place.clock, service, client, backend, state });
        }
    }
}
