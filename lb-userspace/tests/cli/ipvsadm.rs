//! `flowpin ipvsadm`: what it asks of the agent, what it prints, and its exit codes. What is understood and how it is
//! laid out is tested in `lb-ipvsadm`.

use std::{io::Write, process::Stdio};

use flowpin::api::types::{ForwardDecl, Time};
use serde_json::json;

use crate::{
    fake::{Agent, backend, frontend, service},
    ran::{Ran, flowpin, has},
};

fn run(agent: &Agent, line: &str) -> Ran {
    agent.run(&["ipvsadm"].into_iter().chain(line.split_whitespace()).collect::<Vec<_>>())
}

fn restore(agent: &Agent, table: &str) -> Ran {
    let mut child = flowpin(&["ipvsadm", "-R"])
        .env("FLOWPIN_API_SOCKET", agent.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(table.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// `web` at two addresses, one of them with every port; the file's is `far`.
fn agent() -> Agent {
    let agent = Agent::empty();
    let mut web = service("web", "10.96.0.10", vec![backend("10.0.1.12:5432", 1), backend("10.0.1.11", 2)]);
    web.frontends = vec![frontend(&["10.96.0.10"], &["80/tcp"])];
    web.backends[0].state = "draining".into();
    let mut far = service("far", "10.96.0.11", vec![backend("10.0.1.11", 0)]);
    far.frontends = vec![frontend(&["10.96.0.11", "fd00::10"], &["53:5353/udp", "1-65535/tcp"])];
    (far.origin, far.backends[0].origin) = ("file".into(), "file".into());
    agent.world(|w| w.services = vec![far, web]);
    agent
}

#[test]
fn tables() {
    let agent = agent();
    let list = run(&agent, "-L -n").ok();
    let lines: Vec<&str> = list.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("Flowpin version ") && lines[0].contains(" (size="), "{list}");
    assert_eq!(
        lines[1..],
        [
            "Prot LocalAddress:Port Scheduler Flags",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
            "TCP  10.96.0.10:80 wlc",
            "  -> 10.0.1.11:80                 Masq    1      2          0",
            "  -> 10.0.1.12:5432               Masq    0      1          0",
            "TCP  10.96.0.11:0 wlc",
            "  -> 10.0.1.11:0                  Masq    1      0          0",
            "TCP  [fd00::10]:0 wlc",
            "UDP  10.96.0.11:53 wlc",
            "  -> 10.0.1.11:5353               Masq    1      0          0",
            "UDP  [fd00::10]:53 wlc",
        ]
    );
    assert_eq!(run(&agent, "").ok(), list);
    has(
        &run(&agent, "-Ln --stats -t 10.96.0.10:80").ok(),
        &["10.96.0.10:80                 2469134       20       40     3072  6291456\n"],
    );
    has(&run(&agent, "-L --rate").ok(), &["10.96.0.10:80                       0        0"]);
    has(&run(&agent, "-L --timeout").ok(), &["Timeout (tcp tcpfin udp): 86400 3600 60\n"]);
    has(
        &run(&agent, "-Lc").ok(),
        &["TCP 1439:59 ESTABLISHED [2001:db8::7]:40000 [fd00::10]:8001    [fd00::11]:8001\n"],
    );
    has(&run(&agent, "-L -t 10.96.0.99:80").failed(1), &["No such service", "10.96.0.99:80"]);
    let saved = run(&agent, "-S");
    assert_eq!(saved.code, 1, "every port goes with -p only");
    has(&saved.out, &["-a -t 10.96.0.10:80 -r 10.0.1.12:5432 -m -w 0\n", "-A -u [fd00::10]:53 -s wlc\n"]);
    has(&saved.err, &["\"far\" at tcp 10.96.0.11:0", "2 of the frontends are not in what was saved"]);
}

#[test]
fn changes_are_asked_of_the_agent() {
    let agent = agent();
    let ran = run(&agent, "-A -t 10.96.0.20:80 -s rr -p 360");
    has(&ran.err, &["flowpin: -s rr: Weights count here."]);
    assert_eq!((ran.ok().as_str(), agent.world(|w| w.services.len())), ("", 3));
    let added = agent.world(|w| w.added.take()).expect("a service");
    assert_eq!((added.name.as_str(), &added.ports), ("tcp/10.96.0.20:80", &vec!["80/tcp".to_string()]));
    assert_eq!(added.algorithm.as_deref(), Some("round-robin"));
    assert_eq!(added.affinity.and_then(|affinity| affinity.timeout), Some(Time::Seconds(360.0)));
    let change = || agent.world(|w| w.change.take()).map(serde_json::Value::from);
    run(&agent, "-a -t 10.96.0.20:80 -r 10.0.1.11 -g -w 3 -x 9").ok();
    assert_eq!(change(), Some(json!({"forward": "dsr-l2"})));
    let server = agent.world(|w| w.services[2].backends[0].clone());
    assert_eq!(
        (server.address.as_str(), server.weight, server.max_connections),
        ("10.0.1.11:80", 3, Some(9))
    );
    run(&agent, "-e -t 10.96.0.10:80 -r 10.0.1.11 -w 0").ok();
    assert_eq!(change(), Some(json!({"weight": 0, "max_connections": null})));
    run(&agent, "-E -t 10.96.0.10:80 -s mh").ok();
    let affinity = json!({"client_ip": true, "timeout": 10_800, "ipv6_prefix": 128});
    assert_eq!(change(), Some(json!({"algorithm": "consistent-hash", "affinity": affinity})));
    run(&agent, "-E -t 10.96.0.10:80").ok();
    assert_eq!(change(), Some(json!({"algorithm": "least-connections", "affinity": null})));
    run(&agent, "-d -t 10.96.0.10:80 -r 10.0.1.12:5432").ok();
    assert_eq!(agent.world(|w| w.services[1].backends.len()), 1);
    // The file's service stays, with a line that says so.
    has(&run(&agent, "--set 900 120 300").err, &["\"far\" keeps its timeouts", "added later"]);
    assert_eq!(change(), Some(json!({"timeouts": {"idle": 900, "half_closed": 120}})));
    has(&run(&agent, "-C").failed(1), &["service \"far\" stays", "SIGHUP"]);
    assert_eq!(agent.world(|w| w.services.iter().map(|s| s.name.clone()).collect::<Vec<_>>()), ["far"]);
}

#[test]
fn a_table_is_restored_whole_or_not_at_all() {
    let agent = agent();
    let good = "-A -t 10.96.0.20:80 -s wlc\n-a -t 10.96.0.20:80 -r 10.0.1.11:80 -g -w 1\n";
    for (bad, says) in [
        ("-A -f 1\n", "line 3: option -f"),
        ("-a -t 10.96.0.21:80 -r 10.0.1.11\n", "line 3: No such service"),
        ("-D -t 10.96.0.11:0\n", "line 3: service \"far\" isn't the command line's"),
    ] {
        has(&restore(&agent, &format!("{good}{bad}")).failed(1), &[says]);
        assert_eq!(agent.world(|w| (w.services.len(), w.added.is_some())), (2, false), "{bad}");
    }
    has(&restore(&agent, &format!("{good}foo\n")).failed(2), &["line 3: \"foo\""]);
    assert_eq!(restore(&agent, good).ok(), "");
    let added = agent.world(|w| w.added.take()).expect("a service");
    assert_eq!((added.forward, added.backends.len()), (Some(ForwardDecl::Word("dsr-l2".into())), 1));
}

#[test]
fn exit_codes_are_flowpins() {
    let mut agent = agent();
    for (line, code, says) in [
        ("-A -t 10.96.0.10:80", 1, "Service already exists"),
        ("-a -t 10.96.0.10:80 -r 10.0.1.11 -m", 1, "Destination already exists"),
        ("-d -t 10.96.0.10:80 -r 10.0.1.99", 1, "No such destination"),
        ("-E -t 10.96.0.99:80", 1, "No such service"),
        ("-Z", 1, "--rate"),
        ("-A", 2, "-A needs -t"),
        ("-L --frobnicate", 2, "--frobnicate"),
    ] {
        has(&run(&agent, line).failed(code), &[says]);
    }
    has(&agent.run(&["-o", "json", "ipvsadm", "-L"]).failed(2), &["service list"]);
    agent.stop();
    has(&run(&agent, "-L").failed(3), &["api.sock"]);
}
