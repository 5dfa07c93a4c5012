//! Promise: who can't be served is told so at once, by every hook, in both families; and generic XDP serves as native does.

use std::{
    io::ErrorKind,
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::Family::{V4, V6},
};
use nix::sys::signal::Signal;

#[test]
fn a_service_without_backends_refuses_at_once() {
    for hook in ["tc", "xdp"] {
        let net = Net::new(1);
        let config = interfaces(&[("c0", hook), ("b*", hook)])
            + &service("four", &V4.vip(0), "\"80/tcp\", \"53/udp\"", &[], "")
            + &service("six", &V6.vip(0), "\"80/tcp\", \"53/udp\"", &[], "");
        let agent = Agent::start(&net.node, &config);
        for family in [V4, V6] {
            net.client.run(|| {
                let began = Instant::now();
                let tcp = TcpStream::connect_timeout(&at(&family.vip(0), 80), Duration::from_secs(5));
                let error = tcp.expect_err("there is nobody");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{hook}, {family:?}, TCP: {error}");
                let any = if family == V4 { "0.0.0.0:0" } else { "[::]:0" };
                let udp = UdpSocket::bind(any).expect("a socket");
                udp.connect(at(&family.vip(0), 53)).expect("an address");
                udp.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
                for len in [0, 1, 100, 1400] {
                    udp.send(&vec![7; len]).expect("it is sent");
                    let error = udp.recv(&mut [0; 10]).expect_err("there is nobody");
                    assert_eq!(
                        error.kind(),
                        ErrorKind::ConnectionRefused,
                        "{hook}, {family:?}, UDP: {error}"
                    );
                }
                assert!(
                    began.elapsed() < Duration::from_secs(4),
                    "{hook}, {family:?}: it took {:?}",
                    began.elapsed()
                );
            });
        }
        let drops = &agent.json(&["stats"])["drops"];
        assert_eq!((&drops["no_backend"], &drops["unanswered"]), (&10.into(), &0.into()), "{hook}: {drops}");
    }
}

#[test]
fn a_connection_that_the_node_has_forgotten_is_reset_at_once() {
    for hook in ["tc", "xdp"] {
        let net = Net::new(1);
        let _server = Server::start(&net.backends[0], "b0", [80]);
        let config = interfaces(&[("c0", hook), ("b*", hook)])
            + &service("four", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
        let mut agent = Agent::start(&net.node, &config);
        net.client.run(|| {
            let mut conn = Conn::open(at(&V4.vip(0), 80)).expect("it opens");
            conn.exchange(100).expect("it works");
            // Taken down with all its maps, and made anew.
            agent.end(Signal::SIGTERM);
            std::fs::remove_dir_all(agent.pins()).expect("pins are removed");
            agent.up();
            let error = conn.exchange(100).expect_err("nobody knows it any more");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{hook}: {error}");
            Conn::open(at(&V4.vip(0), 80)).expect("a new one opens").exchange(100).expect("and works");
        });
    }
}

#[test]
fn generic_xdp_on_a_bridge_serves_as_native_does() {
    let net = Net::new(2);
    // The client's side of the node becomes a port of a bridge, which has no XDP of its own.
    let node = &net.node;
    node.ip("link add br0 type bridge");
    node.ip("addr flush dev c0");
    node.ip("link set c0 master br0");
    node.ip("link set br0 up");
    node.ip("addr add 10.1.0.1/24 dev br0");
    node.ip("addr add fd01::1/64 dev br0 nodad");
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    let config = interfaces(&[("br0", "xdp"), ("b0", "xdp"), ("b1", "tc")])
        + &service("four", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0), V4.backend(1)], "")
        + &service("six", &V6.vip(0), "\"80/tcp\"", &[V6.backend(0), V6.backend(1)], "")
        + &service("none", &V4.vip(1), "\"80/tcp\"", &[], "");
    let agent = Agent::start(node, &config);
    net.client.run(|| {
        for family in [V4, V6] {
            let mut conns: Vec<Conn> = (0..20)
                .map(|i| Conn::open(at(&family.vip(0), 80)).unwrap_or_else(|e| panic!("{i}: {e}")))
                .collect();
            for (i, conn) in conns.iter_mut().enumerate() {
                conn.exchange(1 + i * 5000).unwrap_or_else(|e| panic!("{family:?}, {i}: {e}"));
            }
            let name = if family == V4 { "four" } else { "six" };
            assert_eq!(agent.active(name), [10, 10]);
        }
        let error =
            TcpStream::connect_timeout(&at(&V4.vip(1), 80), Duration::from_secs(5)).expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    });
}
