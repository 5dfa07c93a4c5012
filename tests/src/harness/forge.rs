//! Packets as an attacker sends them: whole, with any source address.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::Ns;
use crate::packet::build::Frame;

/// Sends packets of its maker's from a namespace; the kernel adds what lies below IP.
#[derive(Debug)]
pub struct Forger {
    v4: Socket,
    v6: Socket,
}

impl Forger {
    /// In a namespace.
    ///
    /// # Panics
    /// The kernel has no raw sockets for this process.
    pub fn new(ns: &Ns) -> Self {
        // Whoever opens one for this protocol brings its IP headers along (raw(7)).
        let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        ns.run(|| Self { v4: open(Domain::IPV4).expect("raw"), v6: open(Domain::IPV6).expect("raw") })
    }

    /// Sends a packet towards an address, its Ethernet header left out.
    ///
    /// # Panics
    /// There is no route, or the packet makes no sense.
    pub fn send(&self, packet: &Frame, towards: IpAddr) {
        let socket = if towards.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.send_to(&packet.packet(), &SocketAddr::new(towards, 0).into()).expect("it is sent");
    }
}
