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

fn socket(ns: &Ns, family: Family, port: u16) -> UdpSocket {
    let any = if matches!(family, Family::V4) { at("0.0.0.0", port) } else { at("::", port) };
    let socket = ns.run(|| UdpSocket::bind(any).expect("a port"));
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
        let (server, transfer) =
            (socket(&net.backends[0], family, 69), socket(&net.backends[0], family, 3069));
        let client = socket(&net.client, family, 0);
        say(&client, "read", vip(69));
        let asks = take(&server, "read");
        say(&transfer, "data", asks);
        assert_eq!(take(&client, "data"), vip(3069), "{rules}");
        say(&client, "acknowledged", vip(3069));
        assert_eq!(take(&transfer, "acknowledged"), asks);

        let (server, client) = (socket(&net.backends[0], family, 51820), socket(&net.client, family, 51820));
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
        let stranger = socket(&net.client, family, 0);
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
