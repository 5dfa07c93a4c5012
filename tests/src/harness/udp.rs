//! UDP: a server that echoes, a client that insists on its own bytes.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    ops::Range,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::Ns;

/// The largest datagram.
const LARGEST: usize = 65_507;
/// How long an answer may take before the query is sent again.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is.
const TRIES: usize = 20;

/// Echoes datagrams at a port, both families, for as long as the process lives.
pub fn echo(ns: &Ns, port: u16) {
    echo_at(ns, (Ipv6Addr::UNSPECIFIED, port).into());
}

/// The same at one address, from which answers come whatever the way to the client. `[::]` is both families.
pub fn echo_at(ns: &Ns, address: SocketAddr) {
    let socket: UdpSocket = ns.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).expect("socket");
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified()).expect("families");
        }
        // One address beside all of them.
        socket.set_reuse_address(true).expect("reuse");
        socket.bind(&address.into()).expect("bind");
        socket.into()
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; LARGEST];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // An error is the client's, who may be gone.
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
}

/// Sends a datagram to each of these ports of an IPv4 address, from a socket of its own: a flow each.
///
/// # Panics
/// There is no such route.
pub fn to_each_port(ns: &Ns, address: &str, ports: Range<u16>) {
    ns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let address = address.parse::<IpAddr>().expect("an address");
        for port in ports {
            socket.send_to(b"x", SocketAddr::from((address, port))).expect("sent");
        }
    });
}

/// A client's socket, connected.
///
/// # Panics
/// There is no such route.
pub fn connect(to: SocketAddr) -> UdpSocket {
    connect_from(0, to)
}

/// The same from a port of the client's, which sockets of others may share; 0: any.
///
/// # Panics
/// There is no such route, or the port is taken.
pub fn connect_from(port: u16, to: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if to.is_ipv4() { ([0u8; 4], port).into() } else { ([0u16; 8], port).into() };
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None).expect("a socket");
    socket.set_reuse_address(port != 0).expect("reuse");
    socket.bind(&any.into()).expect("a port");
    let socket = UdpSocket::from(socket);
    socket.connect(to).expect("a route");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    socket
}

/// Sends `len` bytes, different ones each time, and insists on getting them back. UDP may lose some: what isn't answered is sent again, and how
/// often that was is returned.
///
/// # Panics
/// Nothing comes, or something else.
pub fn exchange(socket: &UdpSocket, number: u64, len: usize) -> usize {
    let mut sent = number.to_le_bytes().to_vec();
    sent.extend((8..len).map(|i| (i as u64).wrapping_mul(number | 1).to_le_bytes()[1]));
    let mut received = vec![0; LARGEST];
    for again in 0..TRIES {
        // Not the same datagram again: of those with a finished checksum XDP on veth spoils one in 65,536 (docs/limits.md), and the same one each time.
        if let Some(place) = sent.get_mut(8..16) {
            place.copy_from_slice(&(again as u64).to_le_bytes());
        }
        socket.send(&sent).expect("sent");
        while let Ok(len) = socket.recv(&mut received) {
            // An answer to an earlier one, which was sent twice.
            let head = len.min(16).min(sent.len());
            if received[..head] != sent[..head] {
                continue;
            }
            assert!(received[..len] == sent, "other bytes, {len} of {}", sent.len());
            return again;
        }
    }
    panic!("no answer to {len} bytes in {TRIES} tries");
}
