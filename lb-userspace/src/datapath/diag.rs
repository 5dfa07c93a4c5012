//! The kernel's list of sockets (sock_diag(7)): where a socket is that is known by its cookie.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// Room for a part of the kernel's answer (`NETLINK_DUMP` uses at most 32 KiB at a time).
const PART: usize = 32 * 1024;

/// A socket, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its own address and port.
    pub local: SocketAddr,
    /// TCP: its state (include/net/tcp_states.h).
    pub state: u8,
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

fn dump(family: u8, protocol: u8, found: &mut HashMap<u64, Known>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let mut part = Vec::with_capacity(PART);
        socket.recv(&mut part, 0)?;
        let mut rest = part.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let id = &response.header.socket_id;
                    let address = match id.source_address {
                        IpAddr::V6(a) => a.to_ipv4_mapped().map_or(IpAddr::V6(a), IpAddr::V4),
                        v4 => v4,
                    };
                    let local = SocketAddr::new(address, id.source_port);
                    // Two halves, the lower first (`sock_diag_save_cookie` in net/core/sock_diag.c).
                    let half = |i: usize| {
                        u64::from(u32::from_ne_bytes([
                            id.cookie[i],
                            id.cookie[i + 1],
                            id.cookie[i + 2],
                            id.cookie[i + 3],
                        ]))
                    };
                    found.insert(half(4) << 32 | half(0), Known { local, state: response.header.state });
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
