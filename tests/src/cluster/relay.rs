//! What lies between nodes: it takes its time, and now and then loses a packet.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::world::wait_until;
use crate::harness::Ns;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    /// From one end to the other.
    pub one_way: Duration,
    /// One piece in so many is lost and comes again after [`AGAIN`], and what is behind it waits.
    pub lost: u64,
}

/// The least time after which Linux sends again what nobody has acknowledged (`TCP_RTO_MIN`, include/net/tcp.h).
const AGAIN: Duration = Duration::from_millis(200);

/// Where the relay takes connections to a node.
pub const fn port(node: usize) -> u16 {
    8_000 + node as u16
}

/// Starts it: for each node the port that leads there. Its threads are in the namespace, and end with the process.
///
/// # Panics
/// It can't listen.
pub fn start(ns: &Ns, nodes: impl Iterator<Item = (u16, SocketAddr)> + Send, delay: Delay) {
    let start = |(port, node)| {
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("a port");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A node that isn't there refuses: so does the relay.
                let Ok(server) = TcpStream::connect(node) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a socket's option");
                }
                carry(&client, &server, delay);
                carry(&server, &client, delay);
            }
        });
    };
    ns.run(|| nodes.for_each(start));
}

/// Carries one way what comes, late.
fn carry(from: &TcpStream, to: &TcpStream, delay: Delay) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let ((mut from, ended), mut to) = ((clone(from), clone(from)), clone(to));
    let (sent, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut number = 0u64;
        let mut piece = [0; 16 << 10];
        // The end of the connection, whichever way it came, is that of the channel.
        while let Ok(length @ 1..) = from.read(&mut piece) {
            number += 1;
            let again = if number.is_multiple_of(delay.lost) { AGAIN } else { Duration::ZERO };
            let due = Instant::now() + delay.one_way + again;
            if sent.send((due, piece[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in pieces {
            wait_until(due);
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        // Either may be closed already.
        let _ = (to.shutdown(Shutdown::Both), ended.shutdown(Shutdown::Both));
    });
}
