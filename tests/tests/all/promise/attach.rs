//! Promise: the datapath is where the configuration says, as interfaces come and go, and nobody else's program is harmed.

use std::time::Duration;

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use nix::sys::signal::Signal;

fn mode(agent: &Agent, name: &str) -> String {
    let status = agent.json(&["status"]);
    let interface = status["interfaces"].as_array().unwrap().iter().find(|i| i["name"] == name).cloned();
    interface.map_or("none".into(), |i| i["mode"].as_str().unwrap_or("none").to_string())
}

#[test]
fn a_glob_follows_interfaces_as_they_come_and_go() {
    let net = Net::new(1);
    let agent = Agent::start(&net.node, &interfaces(&[("c0", "tc"), ("pod*", "tc")]));
    assert_eq!(mode(&agent, "c0"), "tcx");
    let soon = |name: &str, wanted: &str| {
        eventually(name, Duration::from_secs(60), || {
            let found = mode(&agent, name);
            if found == wanted { Ok(()) } else { Err(found) }
        });
    };
    net.node.ip("link add pod1 type veth peer name pod1p");
    soon("pod1", "tcx");
    soon("pod1p", "tcx");
    net.node.ip("link set pod1p name other");
    soon("other", "none");
    net.node.ip("link del pod1");
    soon("pod1", "none");
}

/// Pods end: an interface that is gone before it is attached to is nothing to be told of.
#[test]
fn interfaces_that_go_at_once_are_no_news() {
    let net = Net::new(1);
    // With source NAT each is given `accept_local`, too.
    let app = service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "forward = \"snat\"");
    let rules = interfaces(&[("c0", "tc"), ("b0", "tc"), ("pod*", "tc")]);
    let agent = Agent::start(&net.node, &(rules + &app));
    let script = "link add pod0 type veth peer name p0\nlink set pod0 up\nlink del pod0\n";
    let dir = tempfile::tempdir().unwrap();
    let batch = dir.path().join("batch");
    std::fs::write(&batch, script).unwrap();
    for _ in 0..200 {
        net.node.ip(&format!("-batch {}", batch.display()));
    }
    net.node.ip("link add podlast type veth peer name plast");
    eventually("the one that stays", Duration::from_secs(60), || match mode(&agent, "podlast").as_str() {
        "tcx" => Ok(()),
        other => Err(other.into()),
    });
    let log = agent.log();
    let news: Vec<&str> =
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(news.is_empty(), "{news:?}");
}

#[test]
fn generic_xdp_where_the_driver_has_none() {
    let net = Net::new(1);
    net.node.ip("link add br0 type bridge");
    let agent = Agent::start(&net.node, &interfaces(&[("br0", "xdp"), ("c0", "xdp")]));
    assert_eq!(mode(&agent, "br0"), "xdp-generic");
    assert_eq!(mode(&agent, "c0"), "xdp-native");
}

#[test]
fn leaving_and_detaching() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let config = interfaces(&[("c0", "tc"), ("b*", "xdp")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    let mut agent = Agent::start(&net.node, &config);
    assert!(agent.end(Signal::SIGTERM).success());
    net.client.run(|| Conn::open(at(&V4.vip(0), 80)).expect("new connections are balanced without an agent"));
    agent.spawn(&["--detach-on-exit"]);
    eventually("the agent answers", Duration::from_secs(120), || {
        if agent.cli(&["status"]).status.success() { Ok(()) } else { Err(agent.log()) }
    });
    assert!(agent.end(Signal::SIGTERM).success());
    assert!(!agent.pins().exists(), "nothing is left pinned");
    let link = net.node.ip("link show b0");
    assert!(!link.contains("xdp"), "{link}");
}

#[test]
fn a_second_agent_is_refused() {
    let net = Net::new(1);
    let first = Agent::start(&net.node, &interfaces(&[("c0", "tc")]));
    let mut second = Agent::prepare(&net.node, "");
    // Files of its own, the first one's pins.
    let text = std::fs::read_to_string(second.config()).unwrap().replace("9479", "9480");
    std::fs::write(second.config(), text).unwrap();
    second.spawn(&[]);
    let (code, log) = second.fails();
    assert_eq!(code, Some(1));
    assert!(log.contains("another agent is using pin_dir"), "{log}");
    assert!(first.cli(&["status"]).status.success(), "the first one goes on");
}

#[test]
fn a_layout_that_nothing_is_known_of_is_refused_with_both_values() {
    let net = Net::new(1);
    let mut agent = Agent::start(&net.node, &interfaces(&[("c0", "tc")]));
    agent.end(Signal::SIGTERM);
    // What a build with other structures would have written.
    let pin = agent.pins().join("maps/SETTINGS");
    let map = aya::maps::MapData::from_pin(pin).unwrap();
    let mut map: aya::maps::Array<_, lb_common::abi::Settings> =
        aya::maps::Map::Array(map).try_into().unwrap();
    map.set(0, lb_common::abi::Settings { layout: 0x1234, max_flows: 1024, ..Default::default() }, 0)
        .unwrap();
    agent.spawn(&[]);
    let (code, log) = agent.fails();
    assert_eq!(code, Some(1));
    let wanted = format!("{:#018x}", lb_common::abi::MARK);
    assert!(log.contains("0x0000000000001234") && log.contains(&wanted), "{log}");
}
