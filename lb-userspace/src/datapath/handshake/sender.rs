//! Sends packets to backends as the datapath does where they answer past the node.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::NotAsked;
use crate::datapath::segment::in_another;

/// How a packet for a VIP gets to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// As it is, in a frame (`dsr-l2`).
    Frame {
        /// Index of the interface by which it leaves.
        interface: u32,
        /// The backend's MAC address there.
        mac: [u8; 6],
    },
    /// In another packet (`dsr-ipip`).
    Tunnel {
        /// The node's address.
        from: IpAddr,
        /// The backend's.
        to: IpAddr,
    },
}

/// A socket that is opened when it is first wanted. To close one that sends frames takes the kernel a moment, so that it is kept.
#[derive(Default)]
struct Kept(Mutex<Option<Arc<Socket>>>);

impl Kept {
    fn get(&self, domain: Domain, kind: Type, protocol: i32) -> Result<Arc<Socket>, NotAsked> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &*kept {
            return Ok(socket.clone());
        }
        let open = || {
            let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
            socket.set_nonblocking(true)?;
            Ok(Arc::new(socket))
        };
        let socket = open().map_err(NotAsked::sockets)?;
        *kept = Some(socket.clone());
        Ok(socket)
    }
}

/// See the module. None of its sockets receives anything.
#[derive(Default)]
pub struct Sender {
    frames: Kept,
    raw: [Kept; 2],
}

impl Sender {
    /// Sends a packet, its IP header included.
    ///
    /// # Errors
    /// There is no socket to send it by, or the kernel refuses it.
    pub fn send(&self, packet: &[u8], path: Path) -> Result<(), NotAsked> {
        let sent = match path {
            Path::Frame { interface, mac } => {
                let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
                let to = link_address(interface, mac, if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP });
                self.frames.get(Domain::PACKET, Type::DGRAM, 0)?.send_to(packet, &to)
            }
            Path::Tunnel { from, to } => {
                let (v6, outer) = (to.is_ipv6(), in_another(from, to, packet));
                let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
                let socket = self.raw[usize::from(v6)].get(domain, Type::RAW, libc::IPPROTO_RAW)?;
                socket.send_to(&outer, &SocketAddr::new(to, 0).into())
            }
        };
        sent.map(drop).map_err(NotAsked::Send)
    }
}

/// A packet socket's address; `protocol`: what is in the frame.
pub(super) fn link_address(interface: u32, mac: [u8; 6], protocol: libc::c_int) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: it is an address of this kind that is read from it, by the length below.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = interface.cast_signed();
    address.sll_halen = mac.len() as u8;
    address.sll_addr[..mac.len()].copy_from_slice(&mac);
    // SAFETY: all of such an address has been written, or is zero.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
