//! Makes both ends of a connection say something, so that the datapath can answer: a bare ACK in the other end's name, with
//! numbers that fit nowhere. Who has the connection answers it with its own numbers at once (RFC 9293, section 3.10.7.4;
//! RFC 5961, section 5), which is what a RST must carry to be believed; who hasn't answers with a RST.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

use lb_common::checksum;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
    },
};

const TCP: u8 = 6;
const TCP_LEN: usize = 20;

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
        let packet = packet(from, to, rand::random());
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

/// The packet, IP header included. `numbers`: sequence and acknowledgement number.
fn packet(from: SocketAddr, to: SocketAddr, numbers: [u32; 2]) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(TCP_LEN);
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
    // Five words; ACK; a window that closes nobody's, should the numbers fit after all; checksum to come; nothing urgent.
    tcp.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    let len = TCP_LEN as u8;
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let (src, dst) = (octets(from.ip()), octets(to.ip()));
    let sum = !checksum::fold(sum(&[&src, &dst, &[0, 0, 0, len, 0, 0, 0, TCP], &tcp]));
    tcp[16..18].copy_from_slice(&sum.to_ne_bytes());
    let mut packet = match to {
        // The kernel writes the checksum and the identification.
        SocketAddr::V4(_) => vec![0x45, 0, 0, 20 + len, 0, 0, 0x40, 0, 64, TCP, 0, 0],
        SocketAddr::V6(_) => vec![0x60, 0, 0, 0, 0, len, TCP, 64],
    };
    packet.extend(src);
    packet.extend(dst);
    packet.extend(tcp);
    packet
}

/// Sum of parts whose lengths are multiples of four.
fn sum(parts: &[&[u8]]) -> u32 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(4));
    words.fold(0, |sum, w| checksum::add(sum, u32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        for (from, to, header) in
            [("192.0.2.1:40000", "10.2.0.2:80", 20), ("[2001:db8::1]:40000", "[fd00::2]:80", 40)]
        {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = packet(from, to, [1, 0xdead_beef]);
            assert_eq!(packet.len(), header + 20);
            let addresses = if header == 20 { &packet[12..20] } else { &packet[8..40] };
            let all = sum(&[addresses, &[0, 0, 0, 20, 0, 0, 0, 6], &packet[header..]]);
            assert_eq!(checksum::fold(all), 0xffff, "{from} to {to}");
        }
    }
}
