//! Promise: `flowpin ipvsadm` makes, shows, saves and restores what clients are served by, and no connection breaks.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    eventually,
    server::Server,
    topology::Family::V4,
};

fn words(line: &str) -> Vec<&str> {
    ["ipvsadm"].into_iter().chain(line.split_whitespace()).collect()
}

/// With something to read.
fn restore(agent: &Agent, table: &str) -> Output {
    let mut child = Command::new(&agent.binary)
        .arg("--api-socket")
        .arg(agent.config().with_file_name("api.sock"))
        .args(["ipvsadm", "-R"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command line runs");
    child.stdin.take().expect("piped").write_all(table.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The line of a table that has this in it, its columns.
fn columns(table: &str, part: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.contains(part));
    let line = line.unwrap_or_else(|| panic!("{part} is not in {table}"));
    line.split_whitespace().map(String::from).collect()
}

#[test]
fn a_service_from_the_first_word_to_the_last() {
    let net = Net::new(2);
    let names = ["b0", "b1"];
    let _servers: Vec<_> =
        net.backends.iter().zip(names).map(|(ns, name)| Server::start(ns, name, [8080])).collect();
    let filed = service("filed", &V4.vip(1), "\"80/tcp\"", &[V4.backend(0)], "");
    let agent = Agent::start(&net.node, &(interfaces(&[("c0", "tc"), ("b*", "tc")]) + &filed));
    let run = |line: &str| agent.done(&words(line));
    let vip = V4.vip(0);
    let backends = [0, 1].map(|i| V4.target(i, 8080));
    run(&format!("-A -t {vip}:80 -s wlc"));
    for backend in &backends {
        run(&format!("-a -t {vip}:80 -r {backend} -m"));
    }
    let mut conns: Vec<Conn> =
        (0..6).map(|_| net.client.run(|| Conn::open(at(&vip, 80))).expect("served")).collect();
    let mut endured = |what: &str| {
        for conn in &mut conns {
            conn.exchange(100).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    };
    endured("as made");

    let list = run("-L -n");
    for backend in &backends {
        assert_eq!(columns(&list, backend), ["->", backend.as_str(), "Masq", "1", "3", "0"], "{list}");
    }
    assert_eq!(columns(&run(&format!("-L --stats -t {vip}:80")), "TCP")[2], "6");
    let connections = run("-L -n -c");
    let open = connections.lines().filter(|line| line.contains(" ESTABLISHED ")).count();
    assert_eq!(open, 6, "{connections}");
    let expire = &columns(&connections, "ESTABLISHED")[1];
    assert!(expire.starts_with("1439:") || expire == "1440:00", "{expire} of a day");

    // What is wrong changes nothing.
    let before = agent.json(&["service", "list"]);
    for (line, says) in [
        (format!("-A -t {vip}:80"), "Service already exists"),
        (format!("-a -t {vip}:80 -r {} -m", backends[0]), "Destination already exists"),
        (format!("-a -t {vip}:80 -r {}", V4.target(0, 80)), "give -m"),
        (format!("-d -t {vip}:80 -r {}", V4.target(0, 9)), "No such destination"),
        (format!("-E -t {vip}:81"), "No such service"),
        (format!("-D -t {}:80", V4.vip(1)), "isn't the command line's"),
        ("-A -t 224.0.0.1:80".into(), "can't be a VIP"),
        ("-A -f 1".into(), "firewall mark"),
    ] {
        let out = agent.cli(&words(&line));
        assert!(out.status.code() == Some(1) && said(&out).contains(says), "{line}: {}", said(&out));
        assert!(said(&out).lines().count() == 1, "{line}: {}", said(&out));
    }
    let added = "-A -t 10.96.0.99:80\n";
    let refused = format!("{added}-a -t {vip}:80 -r {} -m\n-A -t 224.0.0.1:80\n", V4.target(0, 81));
    let out = restore(&agent, &refused);
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("line 3: ") && said(&out).contains("nothing is changed"), "{}", said(&out));
    let out = restore(&agent, &format!("{added}-A -t {vip}:80\n"));
    assert!(said(&out).contains("line 2: Service already exists"), "{}", said(&out));
    let after = agent.json(&["service", "list"]);
    let shape = |list: &serde_json::Value| {
        let services = list.as_array().expect("services").clone();
        let of = |s: &serde_json::Value| s["backends"].as_array().map(Vec::len);
        services.iter().map(|s| (s["name"].clone(), s["declared"].clone(), of(s))).collect::<Vec<_>>()
    };
    assert_eq!(shape(&after), shape(&before));
    endured("what was refused");

    // One gets nothing new, and then is gone; what is open goes on.
    run(&format!("-e -t {vip}:80 -r {} -m -w 0 -x 50", backends[0]));
    for _ in 0..4 {
        net.client.run(|| Conn::open(at(&vip, 80))).expect("served").exchange(100).expect("answered");
    }
    assert_eq!(columns(&run("-L --stats"), &backends[0])[2], "3", "weight 0 gets nothing new");
    let saved = run("-S -n");
    assert!(saved.contains(&format!("-a -t {vip}:80 -r {} -m -w 0 -x 50\n", backends[0])), "{saved}");
    run(&format!("-d -t {vip}:80 -r {}", backends[0]));
    assert!(!run("-L").contains(&backends[0]));
    endured("a server that was removed");

    // The table is emptied and restored from what was saved.
    let out = agent.cli(&words("-C"));
    assert!(out.status.code() == Some(1) && said(&out).contains("\"filed\" stays"), "{}", said(&out));
    assert!(!run("-L").contains(&vip), "{}", run("-L"));
    endured("a service that was removed");
    let own: String =
        saved.lines().filter(|line| line.contains(&vip)).map(|line| format!("{line}\n")).collect();
    let out = restore(&agent, &own);
    assert!(out.status.success(), "{own}{}", said(&out));
    assert_eq!(columns(&run("-L"), &backends[0])[3], "0");
    endured("a table that was restored");
    let new = net.client.run(|| Conn::open(at(&vip, 80))).and_then(|mut conn| conn.exchange(100));
    new.expect("the other server serves");
    run(&format!("-D -t {vip}:80"));
    endured("the end");
    drop(conns);
    eventually("nothing is left open", Duration::from_secs(30), || {
        let open = run("-Lc").matches(" ESTABLISHED ").count();
        if open == 0 { Ok(()) } else { Err(format!("{open} are")) }
    });
}
