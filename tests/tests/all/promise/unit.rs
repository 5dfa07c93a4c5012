//! Promise: the delivered unit file is sound, lets the agent do no more than it must, and lets it do all that.

use std::{
    fs::{copy, read_to_string},
    process::Command,
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Systemd,
    agent::{binary, interfaces, service},
    client::{Conn, at},
    eventually, program,
    server::Server,
    systemd::UNIT,
    topology::Family::V4,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// Tenths of the exposure, of at most 100, that `systemd-analyze security` may find. What is left: the agent is root in
/// the host's network, loads BPF programs, sends frames to backends to check them, and looks at processes and sysctls.
const EXPOSURE: u32 = 27;

#[test]
fn systemd_finds_nothing_wrong_with_it() {
    let dir = TempDir::new().unwrap();
    let unit = dir.path().join("flowpin.service");
    copy(UNIT, &unit).unwrap();
    let analyze = |args: &[&str]| {
        let out = Command::new("systemd-analyze").args(args).arg(&unit).output();
        let out = out.expect("systemd-analyze; scripts/setup installs it");
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let threshold = format!("--threshold={EXPOSURE}");
    let (fits, said) = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(fits, "{said}");
    // It wants the programs to be there.
    let text = read_to_string(&unit).unwrap().replace("/usr/local/bin/flowpin", binary().to_str().unwrap());
    std::fs::write(&unit, text).unwrap();
    let (fits, said) = analyze(&["verify", "--man=no"]);
    assert!(fits && said.is_empty(), "{said}");
}

fn config(agent: &Agent, more: &str) -> String {
    let targets: Vec<String> = (0..2).map(|i| V4.backend(i)).collect();
    let checked = "forward = \"snat\"\nhealth = { type = \"tcp\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 2 }";
    let pins = agent.pins().display();
    let ways = interfaces(&[("c0", "xdp"), ("b0", "tc"), ("b1", "tc")]);
    let service = service("app", &V4.vip(0), "\"80/tcp\"", &targets, checked);
    format!(
        "[agent]\npin_dir = \"{pins}\"\n[conntrack]\nmax_flows = 16384\n[sockets]\nscope = \"host\"\n\
         [snat]\naddresses = [\"10.2.0.1\", \"10.2.1.1\"]\n{ways}{service}{more}"
    )
}

fn healthy(systemd: &Systemd, number: usize, wanted: bool) {
    eventually("the checks' conclusion", LIMIT, || {
        let list = systemd.cli(&["backend", "list", "app"]);
        let one = list.as_array().expect("a list").iter().find(|b| b["address"] == V4.backend(number));
        if one.expect("the backend")["healthy"] == wanted { Ok(()) } else { Err(list.to_string()) }
    });
}

/// A call that the filter doesn't let through ends the agent here, so that none fails unseen.
#[test]
fn the_agent_lives_in_its_sandbox() {
    let net = Net::new(2);
    let _servers: Vec<Server> =
        net.backends.iter().enumerate().map(|(i, ns)| Server::start(ns, &format!("b{i}"), [80])).collect();
    // For its pins, which go with it; it isn't started.
    let pins = Agent::prepare(&net.node, "");
    let systemd = Systemd::boot(&net.node, &config(&pins, ""), "SystemCallErrorNumber=\n");
    systemd.ready();
    let status = systemd.cli(&["status"]);
    assert_eq!(status["state"], "ok", "{status}");
    let agent = systemd.agent();
    let process = read_to_string(format!("/proc/{agent}/status")).unwrap();
    let line =
        |name: &str| process.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("?").trim().to_string();
    assert_eq!((line("Seccomp:"), line("NoNewPrivs:")), ("2".into(), "1".into()), "{process}");
    // CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW.
    assert_eq!(line("CapEff:"), "000000c000003000");
    let accept = net.node.must("sysctl -n net.ipv4.conf.b0.accept_local");
    assert_eq!(accept.trim(), "1", "the sysctl that source NAT needs");

    let mut conns: Vec<Conn> = net
        .client
        .run(|| (0..8).map(|_| Conn::open(at(&V4.vip(0), 80)).expect("a backend answers")).collect());
    assert!(systemd.said().contains("the node's own processes are balanced"), "{}", systemd.said());
    healthy(&systemd, 0, true);
    program::run(&net.backends[1], "iptables", &["-A", "INPUT", "-j", "DROP"]);
    healthy(&systemd, 1, false);
    systemd.cli(&[
        "service",
        "add",
        "more",
        "--vip",
        &V4.vip(1),
        "--port",
        "81/tcp",
        "--algorithm",
        "consistent-hash",
    ]);
    systemd.cli(&["backend", "add", "more", &format!("{}:80", V4.backend(0))]);
    systemd.cli(&["backend", "drain", "app", &V4.backend(1), "--deadline", "1s"]);
    let more = service("late", &V4.vip(2), "\"82/tcp\"", &[format!("{}:80", V4.backend(0))], "");
    systemd.write_config(&config(&pins, &more));
    assert!(systemd.ctl(&["reload", "flowpin.service"]).status.success(), "{}", systemd.said());
    for (vip, port) in [(1, 81), (2, 82)] {
        net.client.run(|| Conn::open(at(&V4.vip(vip), port)).expect("new services are served"));
    }
    for verb in [&["stats"][..], &["connection", "list"], &["connection", "close", "--service", "more"]] {
        systemd.cli(verb);
    }

    // It is killed again and again, and started each time.
    for _ in 0..6 {
        let before = systemd.agent();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(before.cast_signed()), nix::sys::signal::SIGKILL)
            .unwrap();
        eventually("another agent is ready", LIMIT, || {
            let now = systemd.property("MainPID");
            let active = systemd.property("ActiveState") == "active" && now != "0";
            let agent = active.then(|| systemd.agent()).filter(|agent| *agent != before);
            agent.ok_or_else(|| systemd.said())
        });
    }
    let on_first = |conn: &&mut Conn| conn.backend == "b0";
    conns.iter_mut().filter(on_first).for_each(|conn| conn.exchange(1_000).expect("open all along"));
    assert!(systemd.ctl(&["stop", "flowpin.service"]).status.success(), "{}", systemd.said());
    assert_eq!(systemd.property("Result"), "success", "{}", systemd.said());
    conns.iter_mut().filter(on_first).for_each(|conn| conn.exchange(1_000).expect("without an agent, too"));
    let listed = systemd.property("ExecMainStatus");
    assert_eq!(listed, "0", "{}", systemd.said());
}
