//! nginx before two name servers, by UDP.

use std::{
    io::ErrorKind,
    net::UdpSocket,
    sync::atomic::{AtomicU16, Ordering},
};

use flowpin_tests::harness::{
    Net, Ns, agent::interfaces, eventually, program::Program, topology::Family::V4, udp,
};
use nix::sys::signal::Signal;

use super::{LIMIT, await_healthy, start, text, vip};

/// A question for the address of `who.test`, as RFC 1035 has it, after the two bytes of its number: one question, class IN.
const QUESTION: &[u8] = b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03who\x04test\x00\x00\x01\x00\x01";
/// How often it is asked again where there is silence.
const TRIES: usize = 60;

/// A name server that says 192.0.2.`number` to it.
fn name_server(number: usize, ns: &Ns) -> Program {
    let record = format!("--host-record=who.test,192.0.2.{number}");
    let how = "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file";
    let args: Vec<&str> = how.split(' ').chain([&record as &str]).collect();
    Program::start(ns, "dnsmasq", &args).listening(ns, 53)
}

/// Asks, and says who answered. Only the VIP can: the socket is connected to it.
fn ask(socket: &UdpSocket) -> Result<usize, ErrorKind> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let ask_once = || -> std::io::Result<usize> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        socket.send(&[&number, QUESTION].concat())?;
        let mut answer = [0; 512];
        loop {
            let len = socket.recv(&mut answer)?;
            // Others are to earlier questions, which were asked again. The record's data comes last.
            if answer[..2] == number {
                return Ok(answer[len - 1].into());
            }
        }
    };
    let mut tries = (0..TRIES).map(|_| ask_once().map_err(|e| e.kind()));
    tries.find(|answer| *answer != Err(ErrorKind::WouldBlock)).unwrap_or(Err(ErrorKind::WouldBlock))
}

/// Clients with sockets of their own, which have asked once; how many were answered by each server.
fn clients(net: &Net, count: usize) -> (Vec<UdpSocket>, [usize; 2]) {
    let sockets: Vec<UdpSocket> = net.client.run(|| (0..count).map(|_| udp::connect(vip(53))).collect());
    let answers: Vec<usize> = sockets.iter().map(|socket| ask(socket).expect("an answer")).collect();
    let by = |number| answers.iter().filter(|answer| **answer == number).count();
    (sockets, [by(0), by(1)])
}

#[test]
fn a_dead_servers_share_of_datagrams_goes_to_the_other() {
    let net = Net::new(2);
    let mut servers: Vec<Program> =
        net.backends.iter().enumerate().map(|(number, ns)| name_server(number, ns)).collect();
    // The kernel says so little a second of closed ports that not all clients would hear of it at once.
    net.backends.iter().for_each(|ns| drop(ns.must("sysctl -qw net.ipv4.icmp_ratelimit=0")));
    // First with checks that don't come in time to see anything.
    let named = [("dns2.example.net:53", &V4.target(1, 53) as &str)];
    let late = text("nginx", &[&named[..], &[("interval = \"5s\"", "interval = \"1h\"")]].concat());
    let soon = text("nginx", &[&named[..], &[("interval = \"5s\"", "interval = \"300ms\"")]].concat());
    let agent = start(&net, &late);
    let (sockets, shares) = clients(&net, 30);
    assert_eq!(shares, [20, 10]);

    // A port that nobody listens at is refused by ICMP, which speaks of the VIP: the client's socket believes it.
    servers.pop().expect("the second").kill();
    let again: Vec<_> = sockets.iter().map(ask).collect();
    let refused = again.iter().filter(|answer| **answer == Err(ErrorKind::ConnectionRefused)).count();
    let answered = again.iter().filter(|answer| **answer == Ok(0)).count();
    assert_eq!((answered, refused), (20, 10), "{again:?}");

    // Checks see it, too, and then its clients are the other's, with the sockets that they have.
    agent.write_config(&(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &soon));
    agent.signal(Signal::SIGHUP);
    let [first, second] = [0, 1].map(|i| V4.target(i, 53));
    await_healthy(&agent, "dns", &[&first]);
    for socket in &sockets {
        eventually("its share goes to the other", LIMIT, || match ask(socket) {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    assert_eq!(clients(&net, 30).1, [30, 0]);

    servers.push(name_server(1, &net.backends[1]));
    await_healthy(&agent, "dns", &[&first, &second]);
    assert_eq!(clients(&net, 30).1, [20, 10]);
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}
