//! Sees answers to handshakes as they come in: before the stack, which has reasons to drop what is from a VIP (`rp_filter`, the VIP on the
//! node itself), and behind XDP. All of them by one socket, whose filter lets nearly nothing else through: the first half of each sequence
//! number is the socket's mark, which the answer acknowledges.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lb_common::flow_state::flags::{ACK, RST, SYN};
use socket2::{Domain, SockFilter, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
};

use super::sender::link_address;

/// Bytes of the longest IPv4 header and of TCP's as far as it is looked at.
const HEADERS: usize = 80;
/// TCP (RFC 9293).
const TCP: u8 = 6;
/// The control bits that tell an answer.
const BITS: u8 = SYN | RST | ACK;

/// What a backend answers a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A SYN-ACK.
    Accepted,
    /// A RST.
    Refused,
    /// None of its own: the SYN came back to the node.
    Returned,
}

/// Which packet is an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Expected {
    from: SocketAddr,
    to: SocketAddr,
    acknowledgement: u32,
}

/// See the module.
pub struct Tap {
    /// `None` when it is closed.
    socket: Option<AsyncFd<Socket>>,
    mark: u16,
    waiting: Mutex<HashMap<Expected, oneshot::Sender<Answer>>>,
}

impl Tap {
    /// Of one IP version.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or packet sockets.
    pub fn open(v6: bool) -> io::Result<Self> {
        let mark = rand::random();
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(0.into()))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&if v6 { filter_v6(mark) } else { filter_v4(mark) })?;
        // From all interfaces: answers may come by another one than questions leave by.
        socket.bind(&link_address(0, [0; 6], if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP }))?;
        // SAFETY: what is registered owns the socket, which keeps its number until it is closed, and is taken out before that.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket: Some(socket), mark, waiting: Mutex::default() })
    }

    /// A sequence number for a SYN whose answer is to be seen.
    pub fn sequence(&self) -> u32 {
        // The answer acknowledges the next one, in the same half.
        u32::from(self.mark) << 16 | rand::random_range(0..u32::from(u16::MAX))
    }

    /// Waits for the answer to a SYN, from when this is called.
    pub fn wait(self: &Arc<Self>, from: SocketAddr, to: SocketAddr, acknowledgement: u32) -> Waiting {
        let expected = Expected { from, to, acknowledgement };
        let (send, answer) = oneshot::channel();
        self.lock().insert(expected, send);
        Waiting { tap: self.clone(), expected, answer }
    }

    /// Hands answers to those who wait for them, and ends only when it can't go on.
    async fn watch(&self) -> io::Result<Infallible> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        loop {
            let mut packet = [0; HEADERS];
            let read = |mut socket: &Socket| socket.read(&mut packet);
            let length = socket.async_io(Interest::READABLE, read).await?;
            if let Some((expected, answer)) = understood(&packet[..length])
                && let Some(waiting) = self.lock().remove(&expected)
            {
                // Who waited may have gone.
                let _ = waiting.send(answer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Expected, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let socket = self.socket.take().map(AsyncFd::into_inner);
        // The kernel waits until no CPU uses it any more (`packet_release`).
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(socket));
        }
    }
}

/// Somebody who waits for an answer.
pub struct Waiting {
    tap: Arc<Tap>,
    expected: Expected,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting {
    /// The answer, when it comes. Whoever waits looks for all.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        tokio::select! {
            answer = &mut self.answer => answer.map_err(io::Error::other),
            failed = self.tap.watch() => failed.map(|never| match never {}),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.tap.lock().remove(&self.expected);
    }
}

/// A packet that answers a SYN, from its IP header on.
fn understood(packet: &[u8]) -> Option<(Expected, Answer)> {
    let (protocol, from, to, l4): (u8, IpAddr, IpAddr, usize) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(Ipv4Addr::from(field::<4>(packet, at)?).into());
            (*packet.get(9)?, address(12)?, address(16)?, usize::from(packet[0] & 0xf) * 4)
        }
        6 => {
            let address = |at: usize| Some(Ipv6Addr::from(field::<16>(packet, at)?).into());
            (*packet.get(6)?, address(8)?, address(24)?, 40)
        }
        _ => return None,
    };
    let tcp = packet.get(l4..).filter(|_| protocol == TCP)?;
    let port = |at| Some(u16::from_be_bytes(field(tcp, at)?));
    let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
    let acknowledgement = u32::from_be_bytes(field(tcp, 8)?);
    let answer = match *tcp.get(13)? & BITS {
        bits if bits == SYN | ACK => Answer::Accepted,
        bits if bits == RST | ACK => Answer::Refused,
        _ => return None,
    };
    Some((Expected { from, to, acknowledgement }, answer))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Loads a byte, or a half-word, at an offset from the IP header (`ABS`), or from there and the index register (`IND`).
const fn load(size: u32, mode: u32, at: u32) -> SockFilter {
    SockFilter::new((libc::BPF_LD | size | mode) as u16, 0, 0, at)
}

/// Goes on if the comparison with this comes out so; else skips to the end.
const fn only_if(how: u32, with: u32, is: bool, end: u8) -> SockFilter {
    let (yes, no) = if is { (0, end) } else { (end, 0) };
    SockFilter::new((libc::BPF_JMP | how | libc::BPF_K) as u16, yes, no, with)
}

const fn verdict(bytes: usize) -> SockFilter {
    SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes as u32)
}

/// The last steps: `mode` says how TCP's header is found, which begins at `l4`.
fn answers(mode: u32, l4: u32, mark: u16) -> [SockFilter; 8] {
    let bits = |wanted: u8| u32::from(wanted);
    [
        load(libc::BPF_H, mode, l4 + 8),
        only_if(libc::BPF_JEQ, u32::from(mark), true, 5),
        load(libc::BPF_B, mode, l4 + 13),
        SockFilter::new((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, bits(BITS)),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 1, 0, bits(SYN | ACK)),
        only_if(libc::BPF_JEQ, bits(RST | ACK), true, 1),
        verdict(HEADERS),
        verdict(0),
    ]
}

/// TCP, no fragment but a first one, and an answer with the mark.
fn filter_v4(mark: u16) -> Vec<SockFilter> {
    let mut filter = vec![
        load(libc::BPF_B, libc::BPF_ABS, 9),
        only_if(libc::BPF_JEQ, u32::from(TCP), true, 10),
        load(libc::BPF_H, libc::BPF_ABS, 6),
        only_if(libc::BPF_JSET, 0x1fff, false, 8),
        SockFilter::new((libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16, 0, 0, 0),
    ];
    filter.extend(answers(libc::BPF_IND, 0, mark));
    filter
}

/// TCP right behind the fixed header, and an answer with the mark.
fn filter_v6(mark: u16) -> Vec<SockFilter> {
    let mut filter =
        vec![load(libc::BPF_B, libc::BPF_ABS, 6), only_if(libc::BPF_JEQ, u32::from(TCP), true, 7)];
    filter.extend(answers(libc::BPF_ABS, 40, mark));
    filter
}

#[cfg(test)]
mod tests;
