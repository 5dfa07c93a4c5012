//! Promise: sockets of the node's processes, connected by UDP, leave an endpoint that no longer serves while another does;
//! without another they stay.

use std::{io::ErrorKind, net::UdpSocket, time::Duration};

use flowpin_tests::harness::{Agent, Net, client::at, eventually, topology::Family::V4, udp};

use super::{LIMIT, World};

/// A Service by UDP, with endpoints and their conditions.
fn dns(endpoints: &[(usize, &str)]) -> String {
    let list: Vec<String> = endpoints
        .iter()
        .map(|(i, conditions)| format!("{{addresses: [{}], conditions: {{{conditions}}}}}", V4.backend(*i)))
        .collect();
    format!(
        "- kind: Service
  metadata: {{namespace: d, name: dns, uid: dns-1}}
  spec: {{clusterIP: {}, ports: [{{port: 53, protocol: UDP}}]}}
- kind: EndpointSlice
  metadata: {{namespace: d, name: dns-1, labels: {{kubernetes.io/service-name: dns}}}}
  addressType: IPv4
  ports: [{{name: '', port: 53, protocol: UDP}}]
  endpoints: [{}]
",
        V4.vip(4),
        list.join(", ")
    )
}

/// Where the only socket is.
fn backend(agent: &Agent) -> Option<String> {
    let list = agent.json(&["connection", "list", "--service", "d/dns"]);
    list[0]["backend"].as_str().map(Into::into)
}

const ENDS: &str = "ready: false, serving: true, terminating: true";
const ENDED: &str = "ready: false, serving: false, terminating: true";

#[test]
fn u1_u4_connected_sockets_leave_what_no_longer_serves() {
    let net = Net::new(2);
    net.backends.iter().for_each(|ns| udp::echo(ns, 53));
    let world = World::with(net, "[sockets]\nscope = \"host\"\n", "");
    let (api, agent) = (&world.api, &world.agent);
    api.apply(&dns(&[(0, "ready: true")]));
    world.has_backends("d/dns");
    let target = |i: usize| V4.target(i, 53);
    let heard = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.recv(&mut [0; 10]).map_err(|e| e.kind())
    };
    world.net.node.run(|| {
        let vip = at(&V4.vip(4), 53);
        let socket = udp::connect(vip);
        udp::exchange(&socket, 1, 500);
        assert_eq!(backend(agent), Some(target(0)));
        // It ends, and still serves; another one serves, too: a socket may stay.
        api.apply(&dns(&[(0, ENDS), (1, "ready: true")]));
        eventually("the other is known", LIMIT, || match agent.active("d/dns")[..] {
            [1, 0] => Ok(()),
            ref counts => Err(format!("{counts:?}")),
        });
        agent.sweeps(4);
        udp::exchange(&socket, 2, 500);
        // It has ended.
        api.apply(&dns(&[(0, ENDED), (1, "ready: true")]));
        assert_eq!(heard(&socket), Err(ErrorKind::ConnectionAborted));
        socket.connect(vip).expect("a route");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
        udp::exchange(&socket, 3, 500);
        assert_eq!(backend(agent), Some(target(1)));
        // None serves: nobody gains by being told.
        api.apply(&dns(&[(1, ENDED)]));
        eventually("nobody gets a new one", LIMIT, || {
            let new = UdpSocket::bind("0.0.0.0:0").expect("a port");
            match new.connect(vip) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        agent.sweeps(4);
        udp::exchange(&socket, 4, 500);
        // The same endpoint no longer in any list, and another that serves.
        api.apply(&dns(&[(0, "ready: true")]));
        assert_eq!(heard(&socket), Err(ErrorKind::ConnectionAborted));
        socket.connect(vip).expect("a route");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
        udp::exchange(&socket, 5, 500);
        assert_eq!(backend(agent), Some(target(0)));
    });
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}
