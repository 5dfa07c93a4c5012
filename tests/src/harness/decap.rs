//! The far end of a tunnel: takes packets out of the packets that they came in (RFC 2003, RFC 2473) and hands them to the host they are for.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::Ns;

/// Takes packets out in a namespace, both families, for as long as the process lives. What comes out is sent to the host itself over its
/// loopback, as it is.
pub fn start(ns: &Ns) {
    for v6 in [false, true] {
        let (outer, inner) = ns.run(|| {
            let (domain, protocol) = if v6 { (Domain::IPV6, 41) } else { (Domain::IPV4, 4) };
            let raw = |protocol| {
                Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).expect("a raw socket")
            };
            // Packets to send come with their IP headers.
            let (outer, inner) = (raw(protocol), raw(libc::IPPROTO_RAW));
            outer.set_recv_buffer_size(8 << 20).expect("room");
            (outer, inner)
        });
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let length = match (&outer).read(&mut buffer) {
                    Ok(length) => length,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                // IPv4's raw sockets see the outer header as well.
                let skip = if v6 { 0 } else { usize::from(buffer[0] & 0xf) * 4 };
                let Some(packet) = buffer.get(skip..length) else { continue };
                let Some(to) = destination(packet, v6) else { continue };
                // Not for an address of this host's, or no room: as if it were lost.
                let _ = inner.send_to(packet, &SocketAddr::new(to, 0).into());
            }
        });
    }
}

fn destination(packet: &[u8], v6: bool) -> Option<IpAddr> {
    if v6 {
        let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    } else {
        let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    }
}
