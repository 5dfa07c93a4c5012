//! Entries in the kernel's connection tracking (nf_conntrack) that stand for connections which it doesn't see: nf_nat gives
//! their addresses and ports to nobody else then. By netlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use lb_common::abi::Proto;
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

/// A message about conntrack (`NFNL_SUBSYS_CTNETLINK << 8`).
const CTNETLINK: u16 = 1 << 8;
const NEW: u16 = CTNETLINK;
const DELETE: u16 = CTNETLINK | 2;
/// Messages in one send.
const TOGETHER: usize = 64;
/// Room for the answers to them: an error quotes the message that it is about.
const ANSWERS: usize = 64 * 1024;
/// nlmsghdr and nfgenmsg.
const HEADER: usize = 20;

/// `enum ctattr_type` and those nested in it.
mod attribute {
    pub const NESTED: u16 = 1 << 15;
    pub const TUPLE_ORIGINAL: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const PROTOCOL_INFO: u16 = 4;
    pub const TIMEOUT: u16 = 7;
    pub const ADDRESSES: u16 = 1;
    pub const PORTS: u16 = 2;
    pub const TCP: u16 = 1;
    pub const TCP_STATE: u16 = 1;
}
/// `TCP_CONNTRACK_ESTABLISHED` (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
const ESTABLISHED: u8 = 3;

/// Packets of a connection as they leave the node towards its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// TCP or UDP.
    pub proto: Proto,
    /// The address and port of ours.
    pub from: SocketAddr,
    /// The backend's.
    pub to: SocketAddr,
}

/// A way to those entries.
pub struct Tracked(Socket);

impl Tracked {
    /// Opens it. `None`: this kernel tracks no connections, so that nobody takes ports by that.
    ///
    /// # Errors
    /// Netlink refuses.
    pub fn open() -> io::Result<Option<Self>> {
        if !Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists() {
            return Ok(None);
        }
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        Ok(Some(Self(socket)))
    }

    /// Makes entries that last so long. Which of them were made: the others' packets would be taken for those of another
    /// connection, which is there already.
    ///
    /// # Errors
    /// Netlink refuses.
    pub fn make(&self, tuples: &[Tuple], lasting: Duration) -> io::Result<Vec<bool>> {
        self.ask(NEW, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16, tuples, Some(lasting))
    }

    /// Lets entries that were made last so long from now on. Which of them were there.
    ///
    /// # Errors
    /// Netlink refuses.
    pub fn keep(&self, tuples: &[Tuple], lasting: Duration) -> io::Result<Vec<bool>> {
        self.ask(NEW, 0, tuples, Some(lasting))
    }

    /// Removes entries. Which of them were there.
    ///
    /// # Errors
    /// Netlink refuses.
    pub fn remove(&self, tuples: &[Tuple]) -> io::Result<Vec<bool>> {
        self.ask(DELETE, 0, tuples, None)
    }

    fn ask(
        &self,
        kind: u16,
        flags: u16,
        tuples: &[Tuple],
        lasting: Option<Duration>,
    ) -> io::Result<Vec<bool>> {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut done = vec![false; tuples.len()];
        for (batch, done) in tuples.chunks(TOGETHER).zip(done.chunks_mut(TOGETHER)) {
            let messages: Vec<u8> = (0u32..)
                .zip(batch)
                .flat_map(|(number, tuple)| message(kind, flags, number, tuple, lasting))
                .collect();
            self.0.send(&messages, 0)?;
            let mut left = batch.len();
            while left > 0 {
                let mut answers = Vec::with_capacity(ANSWERS);
                self.0.recv(&mut answers, 0)?;
                let errors = errors(&answers);
                if errors.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no answer to a request"));
                }
                for (number, code) in errors {
                    left = left.saturating_sub(1);
                    match (code, done.get_mut(number as usize)) {
                        (0, Some(done)) => *done = true,
                        // There already; not there.
                        (libc::EEXIST | libc::ENOENT, _) => {}
                        (code, _) => return Err(io::Error::from_raw_os_error(code)),
                    }
                }
            }
        }
        Ok(done)
    }
}

/// The number of each message that is answered, and the error or 0.
fn errors(mut answers: &[u8]) -> Vec<(u32, i32)> {
    let word = |at: usize, bytes: &[u8]| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
    };
    let mut errors = Vec::new();
    while let (Some(length), Some(number), Some(code)) =
        (word(0, answers), word(8, answers), word(16, answers))
    {
        errors.push((number, (code as i32).saturating_neg()));
        answers = answers.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    errors
}

fn message(kind: u16, flags: u16, number: u32, tuple: &Tuple, lasting: Option<Duration>) -> Vec<u8> {
    let family = if tuple.to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut bytes = Vec::with_capacity(192);
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0, 0, 0, 0, family as u8, 0, 0, 0]);
    debug_assert_eq!(bytes.len(), HEADER);
    let reply = Tuple { from: tuple.to, to: tuple.from, ..*tuple };
    nest(&mut bytes, attribute::TUPLE_ORIGINAL, |bytes| put_tuple(bytes, tuple));
    if let Some(lasting) = lasting {
        nest(&mut bytes, attribute::TUPLE_REPLY, |bytes| put_tuple(bytes, &reply));
        let seconds = u32::try_from(lasting.as_secs()).unwrap_or(u32::MAX);
        put(&mut bytes, attribute::TIMEOUT, &seconds.to_be_bytes());
        if tuple.proto == Proto::TCP {
            nest(&mut bytes, attribute::PROTOCOL_INFO, |bytes| {
                nest(bytes, attribute::TCP, |bytes| put(bytes, attribute::TCP_STATE, &[ESTABLISHED]));
            });
        }
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

fn put_tuple(bytes: &mut Vec<u8>, tuple: &Tuple) {
    let address = |of: IpAddr| match of {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let (from, to) = if tuple.to.is_ipv4() { (1, 2) } else { (3, 4) };
    nest(bytes, attribute::ADDRESSES, |bytes| {
        put(bytes, from, &address(tuple.from.ip()));
        put(bytes, to, &address(tuple.to.ip()));
    });
    nest(bytes, attribute::PORTS, |bytes| {
        put(bytes, 1, &[tuple.proto.0]);
        put(bytes, 2, &tuple.from.port().to_be_bytes());
        put(bytes, 3, &tuple.to.port().to_be_bytes());
    });
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn nest(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = bytes.len();
    put(bytes, kind | attribute::NESTED, &[]);
    fill(bytes);
    let length = (bytes.len() - at) as u16;
    bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
}
