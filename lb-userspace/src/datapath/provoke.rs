//! Makes both ends of a connection say something, so that the datapath can answer: a bare ACK in the other end's name, with
//! numbers that fit nowhere. Who has the connection answers it with its own numbers at once (RFC 9293, section 3.10.7.4;
//! RFC 5961, section 5), which is what a RST must carry to be believed; who hasn't answers with a RST.

use std::{
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

use lb_common::flow_state::flags::ACK;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
    },
};

use super::segment::Segment;

/// Raw sockets, one for each IP version.
pub struct Provoker {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Provoker {
    /// Opens them.
    ///
    /// # Errors
    /// Without CAP_NET_RAW; then ends of a closed connection hear of it when they next say something.
    pub fn open() -> Result<Self, Errno> {
        let raw = |family| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
        Ok(Self { v4: raw(AddressFamily::Inet)?, v6: raw(AddressFamily::Inet6)? })
    }

    /// Says something to `to` in the name of `from`, of the same family.
    ///
    /// # Errors
    /// There is no way there, or the like.
    pub fn provoke(&self, from: SocketAddr, to: SocketAddr) -> Result<(), Errno> {
        let [sequence, acknowledgement] = rand::random();
        let packet = Segment { from, to, sequence, acknowledgement, flags: ACK, largest: None }.packet();
        let sent = match to {
            SocketAddr::V4(to) => {
                let to = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
                sendto(self.v4.as_raw_fd(), &packet, &to, MsgFlags::empty())
            }
            SocketAddr::V6(to) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(*to.ip(), 0, 0, 0));
                sendto(self.v6.as_raw_fd(), &packet, &to, MsgFlags::empty())
            }
        };
        sent.map(|_| ())
    }
}
