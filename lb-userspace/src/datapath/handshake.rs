//! A handshake with a backend by way of a VIP: a SYN from the node itself that goes as the datapath sends clients' packets where
//! backends answer past the node, and the answer to it. No connection is opened: a RST follows a SYN-ACK.
//!
//! The answer is from the VIP, and the node's stack, which has sent nothing, would answer it with a RST by the route to the VIP, which
//! doesn't lead to the backend. So the port that it is for is taken by a socket that drops all that comes.

mod sender;
mod tap;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use lb_common::flow_state::flags::{RST, SYN};
use socket2::{Domain, SockFilter, Socket, Type};
use tokio::time::{Instant, interval, timeout_at};

pub use self::{sender::Path, tap::Answer};
use self::{sender::Sender, tap::Tap};
use super::segment::Segment;

/// An unanswered SYN is sent again after so long, as TCP does (RFC 6298, section 2).
const AGAIN: Duration = Duration::from_secs(1);
/// What a SYN says of segments: none will come. Those of an Ethernet frame, of either IP version.
const LARGEST: u16 = 1440;
/// So many ports are tried until there is no flow from one to the VIP.
const PORTS: usize = 8;

/// Why nothing was asked, which says nothing of the backend.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message is the documentation of each variant and names its fields")]
pub enum NotAsked {
    #[error("no raw or packet socket: {error}{}", remedy(error))]
    Sockets { error: io::Error },
    #[error("no port at {address} to ask from: {error}")]
    Port { address: IpAddr, error: io::Error },
    #[error("{PORTS} ports at {address} were tried to ask {vip} from, and each has a flow to it already")]
    Flows { address: IpAddr, vip: SocketAddr },
    #[error("a SYN to the VIP can't be sent: {0}")]
    Send(io::Error),
}

impl NotAsked {
    const fn sockets(error: io::Error) -> Self {
        Self::Sockets { error }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::EAFNOSUPPORT) => {
            "; give the agent CAP_NET_RAW, and its unit AF_PACKET in RestrictAddressFamilies="
        }
        _ => "",
    }
}

/// Can backends be asked?
///
/// # Errors
/// They can't.
pub fn can_ask() -> Result<(), NotAsked> {
    let open = |domain, kind, protocol: i32| Socket::new(domain, kind, Some(protocol.into()));
    open(Domain::PACKET, Type::DGRAM, 0)
        .and_then(|_| open(Domain::IPV4, Type::RAW, libc::IPPROTO_RAW))
        .map(drop)
        .map_err(NotAsked::sockets)
}

/// What handshakes share.
#[derive(Default)]
pub struct Handshakes {
    sender: Sender,
    /// By IP version. There is one while any answer is waited for, since it looks at each packet for the stack.
    taps: [Mutex<Weak<Tap>>; 2],
}

impl Handshakes {
    /// Asks a backend at a VIP, from an address of the node's, of the same family. `None`: no answer until then.
    ///
    /// A backend without the VIP that forwards packets sends the SYN on, by way of this node perhaps, which leads it to
    /// another one: then there is a flow, and the answer is that one's.
    /// `flow` says of one, by both ends, which number follows its client's SYN. Only one that came of this SYN counts: packets
    /// from the node's address can be anybody's, so that none is there before, and nobody else knows the number.
    ///
    /// # Errors
    /// It couldn't be asked.
    pub async fn shake(
        &self,
        from: IpAddr,
        (vip, path): (SocketAddr, Path),
        until: Instant,
        flow: impl Fn(SocketAddr, SocketAddr) -> Option<u32>,
    ) -> Result<Option<Answer>, NotAsked> {
        let tap = self.tap(vip.is_ipv6()).map_err(NotAsked::sockets)?;
        let (held, from) = unused(from, vip, &flow)?;
        let sequence = tap.sequence();
        let next = sequence.wrapping_add(1);
        let mut waiting = tap.wait(vip, from, next);
        let syn = Segment { from, to: vip, sequence, acknowledgement: 0, flags: SYN, largest: Some(LARGEST) };
        let answer = timeout_at(until, async {
            let mut again = interval(AGAIN);
            loop {
                tokio::select! {
                    _ = again.tick() => self.sender.send(&syn.packet(), path)?,
                    answer = waiting.answer() => return answer.map_err(NotAsked::sockets),
                }
            }
        });
        let answer = match answer.await {
            Ok(answer) => Some(answer?),
            Err(_) => None,
        };
        let answer = judged(answer, flow(from, vip), next);
        if answer != Some(Answer::Refused) {
            // Also if none has come: one may be on its way.
            let rst = Segment { sequence: next, flags: RST, largest: None, ..syn };
            self.sender.send(&rst.packet(), path)?;
        }
        drop(held);
        Ok(answer)
    }

    /// Where answers are seen.
    fn tap(&self, v6: bool) -> io::Result<Arc<Tap>> {
        let mut known = self.taps[usize::from(v6)].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tap) = known.upgrade() {
            return Ok(tap);
        }
        let tap = Arc::new(Tap::open(v6)?);
        *known = Arc::downgrade(&tap);
        Ok(tap)
    }
}

/// What has become of a SYN. `flow`: the number that follows the SYN of the flow between its ends, if there is one; `next`: the
/// one that follows this SYN.
fn judged(answer: Option<Answer>, flow: Option<u32>, next: u32) -> Option<Answer> {
    if flow == Some(next) { Some(Answer::Returned) } else { answer }
}

/// Takes a port at an address from which there is no flow to the VIP.
fn unused(
    address: IpAddr,
    vip: SocketAddr,
    flow: impl Fn(SocketAddr, SocketAddr) -> Option<u32>,
) -> Result<(Socket, SocketAddr), NotAsked> {
    // Kept until there is one, so that none is tried twice.
    let mut used = Vec::new();
    while used.len() < PORTS {
        let (held, from) = hold(address).map_err(|error| NotAsked::Port { address, error })?;
        if flow(from, vip).is_none() {
            return Ok((held, from));
        }
        used.push(held);
    }
    Err(NotAsked::Flows { address, vip })
}

/// Takes a port at an address for as long as the socket is there. What comes to it is dropped, and not answered.
fn hold(address: IpAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None)?;
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[drop_all])?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    // Only who listens is found by what comes.
    socket.listen(1)?;
    let port = socket.local_addr()?.as_socket().map_or(0, |bound| bound.port());
    Ok((socket, SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_answers_nobody() {
        let (held, at) = hold("127.0.0.1".parse().unwrap()).unwrap();
        let limit = Duration::from_millis(50);
        let error = std::net::TcpStream::connect_timeout(&at, limit).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        let error = std::net::TcpStream::connect_timeout(&at, Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_port_with_a_flow_to_the_vip_is_not_asked_from() {
        let (address, vip) = ("127.0.0.1".parse().unwrap(), "10.96.0.10:80".parse().unwrap());
        let tried = Mutex::new(Vec::new());
        let flow = |from: SocketAddr, _| {
            let mut tried = tried.lock().unwrap();
            tried.push(from.port());
            (tried.len() < 3).then_some(7)
        };
        let (_held, from) = unused(address, vip, flow).unwrap();
        let mut ports = tried.into_inner().unwrap();
        assert_eq!(ports.last(), Some(&from.port()));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 3, "{ports:?}");
        let none = unused(address, vip, |_, _| Some(7));
        assert!(matches!(none, Err(NotAsked::Flows { .. })), "{none:?}");
    }

    #[test]
    fn only_the_flow_of_its_own_syn_says_that_it_came_back() {
        for answer in [None, Some(Answer::Refused), Some(Answer::Accepted)] {
            assert_eq!(judged(answer, Some(8), 8), Some(Answer::Returned));
            assert_eq!(judged(answer, Some(9), 8), answer);
            assert_eq!(judged(answer, None, 8), answer);
        }
    }

    #[test]
    fn what_is_lacking_is_said_with_what_helps() {
        let of = |code| NotAsked::sockets(io::Error::from_raw_os_error(code)).to_string();
        assert!(of(libc::EPERM).contains("CAP_NET_RAW"), "{}", of(libc::EPERM));
        assert!(of(libc::EAFNOSUPPORT).contains("RestrictAddressFamilies="), "{}", of(libc::EAFNOSUPPORT));
        assert!(!of(libc::EMFILE).contains("CAP_NET_RAW"), "{}", of(libc::EMFILE));
    }
}
