//! Promise: rules of the host that keep answers from arriving are seen and said, with what would help.

use std::time::Duration;

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    eventually,
    topology::Family::V4,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Reloads, and waits until there is just such a list of warnings, by what they are about and contain.
fn warned(agent: &Agent, wanted: &[(&str, &str)]) {
    agent.signal(Signal::SIGHUP);
    eventually("the warnings", Duration::from_secs(20), || {
        let status = agent.json(&["status"]);
        let found = status["warnings"].as_array().expect("a list").clone();
        let fits = |(warning, (about, part)): (&Value, &(&str, &str))| {
            warning["about"] == **about && warning["text"].as_str().is_some_and(|t| t.contains(part))
        };
        let all = found.len() == wanted.len() && found.iter().zip(wanted).all(fits);
        if all { Ok(()) } else { Err(status["warnings"].to_string()) }
    });
    let status = agent.cli(&["status"]);
    assert!(status.status.success(), "a warning is no problem");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(text.matches("Warning:").count(), wanted.len(), "{text}");
}

#[test]
fn what_keeps_answers_from_arriving_is_said() {
    let net = Net::new(1);
    let with = |fast: &str| {
        interfaces(&[("c0", "tc"), ("b0", fast)])
            + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "")
    };
    let agent = Agent::start(&net.node, &with("fast"));
    warned(&agent, &[]);
    net.node.must("sysctl -qw net.ipv4.conf.b0.rp_filter=1 net.ipv4.conf.c0.rp_filter=1");
    warned(&agent, &[("rp_filter", "on b0")]);
    net.node.must("iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP");
    net.node.must("iptables -t nat -A POSTROUTING -s 10.96.0.0/16 -o c0 -j MASQUERADE");
    net.node.must("iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE");
    let netfilter = [
        ("rp_filter", "on b0"),
        ("netfilter", "-m conntrack --ctstate INVALID -j DROP"),
        ("netfilter", "-s 10.96.0.0/16"),
    ];
    warned(&agent, &netfilter);
    net.node.ip("link add up0 type veth peer name up1");
    net.node.ip("link set up0 up");
    net.node.ip("route add default dev up0");
    warned(&agent, &[&netfilter[..], &[("route", "leaves by up0")]].concat());
    agent.write_config(&with("tc"));
    if std::env::var_os("FLOWPIN_TEST_FAST").is_none() {
        // Translated where they leave: none of that matters but the way past us.
        warned(&agent, &[("route", "leaves by up0")]);
    }
    net.node.ip("route del default");
    net.node.must("iptables -F FORWARD");
    net.node.must("iptables -t nat -F POSTROUTING");
    net.node.must("sysctl -qw net.ipv4.conf.b0.rp_filter=2 net.ipv4.conf.c0.rp_filter=0");
    agent.write_config(&with("fast"));
    warned(&agent, &[]);
}
