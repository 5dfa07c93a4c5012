//! The kernel's list of sockets (sock_diag(7)): where a socket is that is known by its cookie, and how it is ended.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::OnceLock,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// Room for a part of the kernel's answer (`NETLINK_DUMP` uses at most 32 KiB at a time).
const PART: usize = 32 * 1024;
/// Whatever socket is there (`INET_DIAG_NOCOOKIE` in include/uapi/linux/inet_diag.h).
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// A socket, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its own address and port.
    pub local: SocketAddr,
    /// Those that it is connected to; unspecified: to none.
    pub peer: SocketAddr,
    /// TCP: its state (include/net/tcp_states.h).
    pub state: u8,
    /// To end it.
    pub handle: Handle,
}

/// By which the kernel finds a socket again, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    family: u8,
    protocol: u8,
    /// As the socket has them: IPv4 in IPv6's clothes is that here.
    addresses: [IpAddr; 2],
    ports: [u16; 2],
    interface: u32,
    cookie: [u8; 8],
}

impl Handle {
    fn of(family: u8, protocol: u8, id: &SocketId) -> Self {
        Self {
            family,
            protocol,
            addresses: [id.source_address, id.destination_address],
            ports: [id.source_port, id.destination_port],
            interface: id.interface_id,
            cookie: id.cookie,
        }
    }

    fn id(&self) -> SocketId {
        SocketId {
            source_port: self.ports[0],
            destination_port: self.ports[1],
            source_address: self.addresses[0],
            destination_address: self.addresses[1],
            interface_id: self.interface,
            cookie: self.cookie,
        }
    }
}

/// TCP and UDP sockets of this network namespace, by cookie.
///
/// # Errors
/// Netlink refuses.
pub fn sockets() -> io::Result<HashMap<u64, Known>> {
    let mut found = HashMap::new();
    for family in [AF_INET, AF_INET6] {
        for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
            dump(family, protocol, &mut found)?;
        }
    }
    Ok(found)
}

/// Ends sockets of this network namespace.
pub struct Ender(Socket);

impl Ender {
    /// Ready to.
    ///
    /// # Errors
    /// Netlink refuses.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        Ok(Self(socket))
    }

    /// Ends one: a TCP connection is reset, a UDP socket connected to nobody, and whoever has it gets
    /// "software caused connection abort" (ECONNABORTED) once. False: it isn't there any more, or is connected to
    /// something else.
    ///
    /// # Errors
    /// The kernel can't (`Unsupported`: it was built without CONFIG_INET_DIAG_DESTROY), or CAP_NET_ADMIN is missing.
    pub fn end(&self, handle: &Handle) -> io::Result<bool> {
        let states = StateFlags::all();
        let request = request(handle.family, handle.protocol, states, handle.id());
        self.0.send(&bytes(NLM_F_REQUEST | NLM_F_ACK, SockDiagDestroy::new(request)), 0)?;
        let mut answer = Vec::with_capacity(PART);
        self.0.recv(&mut answer, 0)?;
        match message(&answer)?.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(true),
            NetlinkPayload::Error(error) => match error.to_io() {
                gone if gone.kind() == io::ErrorKind::NotFound => Ok(false),
                error => Err(error),
            },
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}"))),
        }
    }
}

/// Can sockets be ended? Tried once, with a socket made for it.
///
/// # Errors
/// Why not, in words.
pub fn can_end() -> Result<(), String> {
    static KNOWN: OnceLock<Result<(), String>> = OnceLock::new();
    KNOWN.get_or_init(try_to_end).clone()
}

fn try_to_end() -> Result<(), String> {
    let trial = || {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let socket = bound.or_else(|_| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)))?;
        let own = socket.local_addr()?;
        socket.connect(own)?;
        let (addresses, ports) = ([own.ip(); 2], [own.port(); 2]);
        let family = if own.is_ipv4() { AF_INET } else { AF_INET6 };
        let (protocol, interface, cookie) = (IPPROTO_UDP, 0, ANY_COOKIE);
        Ender::open()?.end(&Handle { family, protocol, addresses, ports, interface, cookie })
    };
    match trial() {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel doesn't find a socket that is there".into()),
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Err("the kernel was built without CONFIG_INET_DIAG_DESTROY".into())
        }
        Err(e) => Err(e.to_string()),
    }
}

fn request(family: u8, protocol: u8, states: StateFlags, socket_id: SocketId) -> SockDiagMessage {
    let extensions = ExtensionFlags::empty();
    SockDiagMessage::InetRequest(InetRequest { family, protocol, extensions, states, socket_id })
}

fn bytes<M: NetlinkSerializable>(flags: u16, message: M) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn message(bytes: &[u8]) -> io::Result<NetlinkMessage<SockDiagMessage>> {
    NetlinkMessage::deserialize(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}

fn dump(family: u8, protocol: u8, found: &mut HashMap<u64, Known>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let any = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request = request(family, protocol, StateFlags::all(), any);
    socket.send(&bytes(NLM_F_REQUEST | NLM_F_DUMP, request), 0)?;
    loop {
        let mut part = Vec::with_capacity(PART);
        socket.recv(&mut part, 0)?;
        let mut rest = part.as_slice();
        while !rest.is_empty() {
            let message = message(rest)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let id = &response.header.socket_id;
                    let handle = Handle::of(family, protocol, id);
                    let local = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
                    let peer = SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
                    // Two halves, the lower first (`sock_diag_save_cookie` in net/core/sock_diag.c).
                    let half = |i: usize| {
                        u64::from(u32::from_ne_bytes([
                            id.cookie[i],
                            id.cookie[i + 1],
                            id.cookie[i + 2],
                            id.cookie[i + 3],
                        ]))
                    };
                    let known = Known { local, peer, state: response.header.state, handle };
                    found.insert(half(4) << 32 | half(0), known);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len().max(16));
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The socket that is bound there.
    fn at(local: SocketAddr) -> Known {
        let all = sockets().unwrap();
        *all.values()
            .find(|known| known.local == local && !known.peer.ip().is_unspecified())
            .expect("it is there")
    }

    #[test]
    fn a_socket_is_found_with_its_peer() {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.connect(other.local_addr().unwrap()).unwrap();
        let known = at(one.local_addr().unwrap());
        assert_eq!(known.peer, other.local_addr().unwrap());
        assert_eq!(known.handle.id().destination_port, known.peer.port());
    }
}
