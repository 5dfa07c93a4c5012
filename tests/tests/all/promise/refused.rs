//! Promise: what a kernel refuses is said once, with its reason, and the agent serves what works.

use std::{os::fd::AsRawFd, path::Path, process::Command, time::Duration};

use aya::maps::MapData;
use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service, tc_program},
    broken,
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};
use lb_common::abi::{maps, programs};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

fn interface(agent: &Agent, name: &str) -> Value {
    let status = agent.json(&["status"]);
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    interfaces.iter().find(|i| i["name"] == name).cloned().unwrap_or_default()
}

/// How often the log says that a program was refused.
fn said(agent: &Agent, program: &str) -> usize {
    let log = agent.log();
    log.lines().filter(|l| l.contains("refused by this kernel") && l.contains(program)).count()
}

#[test]
fn an_interface_whose_program_is_refused_is_left_alone_and_says_so() {
    let (net, dir) = (Net::new(1), TempDir::new().unwrap());
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let config = interfaces(&[("c0", "xdp"), ("b*", "xdp"), ("late", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "");
    let mut agent = Agent::prepare(&net.node, &config);
    let good = agent.binary.clone();
    agent.binary = broken::binary(&good, dir.path(), &[tc_program()]);
    agent.spawn(&[]);
    agent.answers();
    let error = interface(&agent, "late")["error"].to_string();
    assert!(error.contains("there is no such interface"), "{error}");
    assert_eq!(said(&agent, tc_program()), 0, "nobody wanted it yet");
    net.node.ip("link add late type veth peer name latep");
    eventually("the interface is seen", Duration::from_secs(10), || match interface(&agent, "late")["error"]
        .as_str()
    {
        Some(e) if e.contains("there is no such interface") => Err(e.to_string()),
        Some(e) if e.contains(tc_program()) && e.contains(broken::REASON) => Ok(()),
        Some(e) => panic!("{e}"),
        None => Err("no error".into()),
    });
    assert_eq!(interface(&agent, "late")["mode"], Value::Null);
    let status = agent.cli(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains(tc_program()) && text.contains(broken::REASON), "{text}");
    net.client.run(|| Conn::open(at(&V4.vip(0), 80)).unwrap().exchange(1000)).expect("XDP serves");
    // Each change of interfaces is a look at all of them.
    for i in 0..3 {
        net.node.ip(&format!("link add late{i} type veth peer name late{i}p"));
        agent.sweeps(2);
    }
    assert_eq!(said(&agent, tc_program()), 1, "{}", agent.log());
    agent.signal(Signal::SIGHUP);
    eventually("it is tried once more", Duration::from_secs(10), || match said(&agent, tc_program()) {
        2 => Ok(()),
        n => Err(format!("said {n} times")),
    });
    agent.end(Signal::SIGTERM);
    agent.binary = good;
    agent.spawn(&[]);
    agent.answers();
    eventually("another build attaches", Duration::from_secs(30), || match interface(&agent, "late")["mode"]
        .as_str()
    {
        Some("tcx") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn without_a_sweep_program_the_agent_serves() {
    let (net, dir) = (Net::new(1), TempDir::new().unwrap());
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "timeouts = { half_open = \"1s\" }");
    let mut agent = Agent::prepare(&net.node, &config);
    agent.binary = broken::binary(&agent.binary, dir.path(), &[programs::SWEEP4, programs::FORGET]);
    agent.spawn(&[]);
    agent.answers();
    let problems = |agent: &Agent| agent.json(&["status"])["problems"].clone();
    let all = problems(&agent);
    for program in [programs::SWEEP4, programs::FORGET] {
        let of = all.as_array().unwrap().iter().filter_map(Value::as_str).find(|p| p.contains(program));
        assert!(of.is_some_and(|p| p.contains(broken::REASON)), "{program}: {all}");
        assert_eq!(said(&agent, program), 1);
    }
    net.client.run(|| Conn::open(at(&V4.vip(0), 80)).unwrap().exchange(1000)).expect("TC serves");
    let before = agent.log();
    // The closed flow is due to go after ten seconds; an attempt that fails would end up in the log.
    eventually("the flow is over", Duration::from_secs(20), || {
        let status = agent.sweeps(2);
        let idle = status["conntrack_entries"] == 1 && agent.active("app") == [0];
        if idle && status["sweeps"].as_u64() > Some(24) { Ok(()) } else { Err(status.to_string()) }
    });
    let after = agent.log();
    assert!(!after[before.len()..].contains("ERROR"), "{after}");
    let closed = agent.cli(&["connection", "close", "--service", "app"]);
    assert!(closed.status.success(), "nothing is open: {}", String::from_utf8_lossy(&closed.stderr));
}

#[test]
fn doctor_names_what_is_refused() {
    let dir = TempDir::new().unwrap();
    let all = [programs::TC, programs::SOCKET_RELEASE, programs::SWEEP6];
    let binary = broken::binary(&flowpin_tests::harness::agent::binary(), dir.path(), &all);
    let out = Command::new(binary).args(["doctor", "-o", "json"]).output().expect("doctor runs");
    assert_eq!(out.status.code(), Some(1));
    let features: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let of = |name: &str| features.as_array().unwrap().iter().find(|f| f["name"] == name).cloned().unwrap();
    for (feature, program) in [("TC", all[0]), ("sockets", all[1]), ("sweeper", all[2])] {
        let (status, detail) = (&of(feature)["status"], of(feature)["detail"].to_string());
        assert!(
            status == "missing" && detail.contains(program) && detail.contains(broken::REASON),
            "{detail}"
        );
    }
    for feature in ["TC fast", "XDP", "XDP on virtual devices", "egress", "consistent hashing"] {
        assert_eq!(of(feature)["status"], "available", "{feature}");
    }
}

/// Lets nobody write to a map by system calls any more (`BPF_MAP_FREEZE`).
fn freeze(pin: &Path) {
    let map = MapData::from_pin(pin).expect("the pin");
    let mut attr = [0u64; 2];
    attr[0] = u64::try_from(std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd()).expect("a descriptor");
    // SAFETY: the attribute is one descriptor in its first word, and the buffer is longer.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 22, attr.as_ptr(), size_of_val(&attr)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_table_that_is_refused_concerns_its_service_alone() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let base = interfaces(&[("c0", "tc"), ("b*", "tc")]);
    let mut agent = Agent::start(&net.node, &base);
    freeze(&agent.pins().join("maps").join(maps::TABLES));
    let added = agent.cli(&[
        "service",
        "add",
        "cli",
        "--vip",
        &V4.vip(2),
        "--port",
        "80/tcp",
        "--algorithm",
        "consistent-hash",
    ]);
    assert!(added.status.success(), "a service without backends has no table");
    let added = agent.cli(&["backend", "add", "cli", &V4.backend(0)]);
    let error = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(!added.status.success() && error.contains("\"cli\"") && error.contains("TABLES"), "{error}");
    let hashed =
        service("hashed", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], "algorithm = \"consistent-hash\"");
    let other = service("other", &V4.vip(1), "\"80/tcp\"", &[V4.backend(0)], "");
    agent.write_config(&format!("{base}{hashed}{other}"));
    agent.signal(Signal::SIGHUP);
    let check = |agent: &Agent| {
        eventually("the refusal is seen", Duration::from_secs(20), || {
            let problems = agent.json(&["status"])["problems"].clone();
            let all = problems.as_array().expect("a list");
            match all.as_slice() {
                [one] if one.as_str().is_some_and(|p| p.contains("\"hashed\"") && p.contains("TABLES")) => {
                    Ok(())
                }
                _ => Err(problems.to_string()),
            }
        });
        net.client.run(|| Conn::open(at(&V4.vip(1), 80)).unwrap().exchange(1000)).expect("the other serves");
        assert!(
            net.client.run(|| Conn::open(at(&V4.vip(0), 80)).is_err()),
            "nobody is given a wrong backend"
        );
    };
    check(&agent);
    agent.end(Signal::SIGTERM);
    agent.spawn(&[]);
    agent.answers();
    check(&agent);
}
