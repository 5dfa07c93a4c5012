//! Promise: what a backend says by UDP to who has asked it by a VIP comes from the VIP, also from another port (TFTP), and
//! after so long that the flow was forgotten (VPNs, SIP).

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::at,
    eventually,
    topology::Family,
};

const LIMIT: Duration = Duration::from_secs(20);

/// At an address and not at all of them: who has `[::]` wants the port of IPv4 too, and a socket that was closed
/// lives on in whatever program another test starts at that moment.
fn socket(ns: &Ns, address: &str, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(at(address, port)).expect("a port"));
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    socket
}

fn take(socket: &UdpSocket, text: &str) -> SocketAddr {
    let mut buffer = [0; 64];
    let (len, from) = socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(text));
    from
}

fn say(socket: &UdpSocket, text: &str, to: SocketAddr) {
    socket.send_to(text.as_bytes(), to).expect("it is sent");
}

/// Interfaces to clients and to backends, as the file has them.
fn everywhere(rules: &str) {
    let net = Net::new(1);
    let mut config = rules.to_string();
    for (i, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let backend = [family.backend(0)];
        config += &service(&format!("tftp-{i}"), &family.vip(0), "\"69/udp\"", &backend, "");
        config += &service(
            &format!("vpn-{i}"),
            &family.vip(0),
            "\"51820/udp\"",
            &backend,
            "timeouts = { udp = \"1s\" }",
        );
    }
    let agent = Agent::start(&net.node, &config);
    for (i, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let vip = |port| at(&family.vip(0), port);
        let of_backend = |port| socket(&net.backends[0], &family.backend(0), port);
        let of_client = |port| socket(&net.client, &family.client(), port);
        let (server, transfer, client) = (of_backend(69), of_backend(3069), of_client(0));
        say(&client, "read", vip(69));
        let asks = take(&server, "read");
        say(&transfer, "data", asks);
        assert_eq!(take(&client, "data"), vip(3069), "{rules}");
        say(&client, "acknowledged", vip(3069));
        assert_eq!(take(&transfer, "acknowledged"), asks);

        let (server, client) = (of_backend(51820), of_client(51820));
        say(&client, "hello", vip(51820));
        let asks = take(&server, "hello");
        say(&server, "welcome", asks);
        assert_eq!(take(&client, "welcome"), vip(51820));
        let vpn = format!("vpn-{i}");
        eventually("the flow is forgotten", LIMIT, || match agent.active(&vpn)[..] {
            [0] => Ok(()),
            ref counts => Err(format!("{counts:?}")),
        });
        say(&server, "rekey", asks);
        assert_eq!(take(&client, "rekey"), vip(51820), "{rules}");
        say(&client, "rekeyed", vip(51820));
        assert_eq!(take(&server, "rekeyed"), asks);
        // To somebody who has never asked it speaks for itself.
        let stranger = of_client(0);
        let to = SocketAddr::new(asks.ip(), stranger.local_addr().expect("it has one").port());
        say(&server, "hello", to);
        assert_eq!(take(&stranger, "hello"), at(&family.backend(0), 51820));
    }
    assert_eq!(agent.sweeps(2)["accounting_drift"], 0);
}

#[test]
fn where_answers_leave() {
    everywhere(&interfaces(&[("c0", "tc"), ("b*", "tc")]));
}

#[test]
fn behind_xdp() {
    everywhere(&interfaces(&[("c0", "xdp"), ("b*", "xdp")]));
}

#[test]
fn where_answers_arrive() {
    let interface =
        |name: &str, more: &str| format!("[[interface]]\nmatch = \"{name}\"\nattach = \"tc\"\n{more}\n");
    everywhere(&(interface("c0", "reply = \"ingress\"") + &interface("b*", "reply = \"ingress\"")));
    everywhere(&(interface("c0", "fast = true") + &interface("b*", "fast = true")));
}
