//! Sockets of the node's own processes, among the connections.

use std::net::SocketAddr;

use lb_common::{
    abi::Proto,
    expiry::{age, idle},
};

use super::connections::Order;
use crate::{
    api::types::ConnectionView,
    conntrack::{
        matches::{Filter, Place},
        sockets::{self, SocketMatch},
    },
    datapath::{Clock, sockets::address},
};

/// A pin that matches.
pub struct Row<'a> {
    of: SocketMatch<'a>,
    clock: Clock,
}

impl Row<'_> {
    fn age(&self) -> u64 {
        age(self.clock.now(), self.of.socket.pin.created)
    }

    /// Ticks since it was last heard of; of a connected socket that is since it was connected.
    fn idle(&self) -> u32 {
        idle(self.clock.now() as u32, self.of.socket.pin.last_seen)
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
        let pin = &self.of.socket.pin;
        ConnectionView {
            service: self.of.service.into(),
            client: self.of.client.to_string(),
            vip: SocketAddr::new(address(pin.vip, pin.family), pin.vip_port.get()).to_string(),
            backend: self.of.backend.to_string(),
            protocol: if pin.proto == Proto::TCP { "tcp" } else { "udp" }.into(),
            state: self.of.state.into(),
            age_seconds: self.clock.seconds(self.age()),
            idle_seconds: self.clock.seconds(self.idle().into()),
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
        }
    }
}

/// Hands every pin that matches to `visit`.
pub fn each<'a>(place: Place<'a>, filter: &Filter<'_>, mut visit: impl FnMut(Row<'a>)) {
    sockets::each(place, filter, |of| visit(Row { of, clock: place.clock }));
}
