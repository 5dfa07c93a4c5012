//! Short connections and datagrams, as many and as fast as they go, while the sweeper walks: afterwards nothing may be left.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::at,
    topology::Family::V4,
};
use serde_json::Value;

use crate::round::nothing_left;

/// Clients at once.
const CLIENTS: usize = 4;
/// A client sends a datagram, whose flow only the sweeper ends, with every so many connections.
const DATAGRAM_EVERY: usize = 4;
const BACKENDS: usize = 2;

/// Opens and ends this many connections by TC and XDP at once; panics if one fails, or if a flow or a count is left at the end.
pub fn run(connections: usize) {
    let net = Net::new(BACKENDS);
    net.backends.iter().for_each(serve);
    let backends: Vec<String> = (0..BACKENDS).map(|i| V4.backend(i)).collect();
    let config = interfaces(&[("c0", "tc"), ("b*", "xdp")])
        + &service("churn", &V4.vip(0), "\"80/tcp\", \"53/udp\"", &backends, "timeouts = { udp = \"1s\" }");
    let agent = Agent::start(&net.node, &config);
    let next = AtomicUsize::new(0);
    net.client.run(|| {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < connections {
                        let number = next.load(Ordering::Relaxed);
                        one(number).unwrap_or_else(|e| panic!("connection {number}: {e}; {}", said(&agent)));
                    }
                });
            }
        });
    });
    nothing_left(&agent);
    let total = &agent.json(&["service", "show", "churn"])["backends"];
    let total: u64 =
        total.as_array().expect("backends").iter().filter_map(|b| b["total_connections"].as_u64()).sum();
    assert!(total >= connections as u64, "{total} of {connections} connections are counted");
}

/// What the agent has to say about connections that fail.
pub fn said(agent: &Agent) -> String {
    let stats = agent.json(&["stats"]);
    let counted = |(name, count): (&String, &Value)| (*count != 0).then(|| format!("{name} {count}"));
    let drops: Vec<String> = stats["drops"].as_object().into_iter().flatten().filter_map(counted).collect();
    format!("dropped: {}", drops.join(", "))
}

/// Asked, answered, ended by the server; or, every other time, reset by the client.
fn one(number: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&at(&V4.vip(0), 80), Duration::from_secs(60))?;
    stream.write_all(b"?")?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer)?;
    if number.is_multiple_of(DATAGRAM_EVERY) {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"?", at(&V4.vip(0), 53))?;
    }
    if number.is_multiple_of(2) {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    } else {
        stream.read(&mut answer).map(drop)
    }
}

/// Answers with a byte and closes. Ends with the process.
fn serve(ns: &Ns) {
    let (listener, datagrams) = ns.run(|| {
        let datagrams = UdpSocket::bind("0.0.0.0:53").expect("bind");
        (TcpListener::bind("0.0.0.0:80").expect("bind"), datagrams)
    });
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
            // The client has gone.
            let _ = datagrams.send_to(&buffer[..len], from);
        }
    });
    for _ in 0..CLIENTS {
        let listener = listener.try_clone().expect("a descriptor");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut asked = [0; 1];
                // A client that resets is one of those that may.
                let _ = stream.read_exact(&mut asked).and_then(|()| stream.write_all(&asked));
            }
        });
    }
}
