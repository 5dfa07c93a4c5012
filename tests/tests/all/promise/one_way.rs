//! Promise: a backend whose check is good and from which nothing comes back to clients is seen and said.

use std::{net::TcpStream, time::Duration};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually, program,
    server::Server,
    topology::Family,
};
use serde_json::Value;

/// A client's attempt: long enough for a SYN to be repeated.
const ATTEMPT: Duration = Duration::from_millis(1_500);
const LIMIT: Duration = Duration::from_secs(40);

/// A backend of a service, and what stops its answers and lets them through again.
struct Case {
    family: Family,
    service: &'static str,
    stop: &'static [&'static str],
    mend: &'static [&'static str],
}

/// It leads answers elsewhere; its firewall lets the node in, and no clients.
const CASES: [Case; 2] = [
    Case {
        family: Family::V4,
        service: "route",
        stop: &["ip", "route", "add", "blackhole", "10.1.0.2"],
        mend: &["ip", "route", "del", "blackhole", "10.1.0.2"],
    },
    Case {
        family: Family::V6,
        service: "firewall",
        stop: &["ip6tables", "-A", "INPUT", "-s", "fd01::2", "-j", "DROP"],
        mend: &["ip6tables", "-D", "INPUT", "-s", "fd01::2", "-j", "DROP"],
    },
];

fn backend(agent: &Agent, service: &str) -> Value {
    agent.json(&["backend", "list", service])[0].clone()
}

fn await_one_way(agent: &Agent, service: &str, wanted: bool) {
    eventually("the answers' watch", LIMIT, || {
        let now = backend(agent, service);
        let is = now["one_way"] == true;
        if is == wanted { Ok(()) } else { Err(now.to_string()) }
    });
}

#[test]
fn whoever_does_not_answer_by_the_node_is_named() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let checked = "health = { type = \"tcp\", interval = \"500ms\" }";
    let services: String = CASES
        .iter()
        .map(|case| {
            service(case.service, &case.family.vip(0), "\"80/tcp\"", &[case.family.backend(0)], checked)
        })
        .collect();
    let silent = service("silent", &Family::V4.vip(1), "\"514/udp\"", &[Family::V4.backend(0)], "");
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &services + &silent));
    for case in &CASES {
        program::run(&net.backends[0], case.stop[0], &case.stop[1..]);
        net.client.run(|| {
            let to = at(&case.family.vip(0), 80);
            for _ in 0..4 {
                TcpStream::connect_timeout(&to, ATTEMPT).expect_err("nothing comes back");
            }
        });
        await_one_way(&agent, case.service, true);
        assert_eq!(backend(&agent, case.service)["healthy"], true, "its check is good");
    }
    // What nobody answers by UDP says nothing.
    net.client.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
        for _ in 0..20 {
            socket.send_to(b"a line", at(&Family::V4.vip(1), 514)).expect("it is sent");
        }
    });
    let status = agent.done(&["status"]);
    assert!(status.contains("one-way: clients ask") && status.contains("and so with 1 more"), "{status}");
    let shown = agent.done(&["service", "show", "route"]);
    assert!(shown.contains("One-way:") && shown.contains("active (one-way)"), "{shown}");
    let page = agent_page(&net);
    for case in &CASES {
        let backend = at(&case.family.backend(0), 80).ip();
        let labels = format!("{{service=\"{}\",backend=\"{backend}\"}}", case.service);
        assert!(page.contains(&format!("flowpin_backend_one_way{labels} 1")), "{page}");
    }
    for case in &CASES {
        program::run(&net.backends[0], case.mend[0], &case.mend[1..]);
        net.client.run(|| drop(Conn::open(at(&case.family.vip(0), 80)).expect("it answers again")));
        await_one_way(&agent, case.service, false);
    }
    assert_eq!(backend(&agent, "silent")["one_way"], Value::Null);
    assert!(!agent.done(&["status"]).contains("one-way"));
}

fn agent_page(net: &Net) -> String {
    net.node.must("curl -sf http://127.0.0.1:9479/metrics")
}
