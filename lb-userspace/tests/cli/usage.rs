//! Flags, help, completions and exit codes.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use crate::{
    fake::{Agent, backend, service},
    ran::{Ran, flowpin, has},
};

#[test]
fn global_flags_go_before_and_after_the_subcommand() {
    let agent = Agent::new();
    let socket = agent.socket();
    let socket = socket.to_str().expect("text");
    let elsewhere = "/nonexistent/api.sock";
    let after = ["service", "list", "-o", "json", "--api-socket", socket];
    let before = ["--api-socket", socket, "-o", "json", "service", "list"];
    let between = ["service", "--output=json", "list", "--api-socket", socket];
    for args in [&after[..], &before, &between] {
        // The flag wins over the environment.
        let list = Ran::of(flowpin(args).env("FLOWPIN_API_SOCKET", elsewhere)).json();
        assert_eq!(list[0]["name"], "app", "{args:?}");
    }
}

#[test]
fn an_agent_that_is_not_there_is_exit_code_3() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("api.sock");
    let run = || Ran::of(flowpin(&["status"]).env("FLOWPIN_API_SOCKET", &socket));
    has(&run().failed(3), &["api.sock", "no such socket", "flowpin agent", "--api-socket"]);
    // A socket left behind by an agent that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    has(&run().failed(3), &["api.sock", "nobody listens", "flowpin agent"]);
    // The default is named too.
    let line = Ran::of(&mut flowpin(&["--api-socket", "/nonexistent/x.sock", "service", "list"])).failed(3);
    has(&line, &["/nonexistent/x.sock"]);
}

#[test]
fn a_socket_that_may_not_be_opened_is_exit_code_3() {
    if !nix::unistd::geteuid().is_root() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("api.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).expect("mode");
        let line = Ran::of(flowpin(&["status"]).env("FLOWPIN_API_SOCKET", &socket)).failed(3);
        return has(&line, &["permission denied", "root"]);
    }
    // Root may open anything: have the binary run by somebody who may not, from where everybody may read it.
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let (socket, binary) = (dir.path().join("api.sock"), dir.path().join("flowpin"));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).expect("mode");
    // Copied by another process: a file that this one had open for writing may still be so in a child that another test is just
    // starting, and such a file can't be run.
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_flowpin")).arg(&binary).status();
    assert!(copied.expect("cp").success());
    let mut command = std::process::Command::new(&binary);
    std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    std::os::unix::process::CommandExt::gid(&mut command, 65_534);
    let line = Ran::of(command.arg("status").env("FLOWPIN_API_SOCKET", &socket)).failed(3);
    has(&line, &["permission denied", "root"]);
}

#[test]
fn wrong_usage_is_exit_code_2_and_one_line() {
    for (args, parts) in [
        (&["service", "add", "x"][..], &["--vip", "--port", "usage: flowpin service add", "--help"][..]),
        (
            &["service", "add", "x", "--vip", "10.0.0.1", "--port", "1/tcp", "--algorithm", "best"],
            &["best", "consistent-hash"],
        ),
        (
            &["service", "add", "x", "--vip", "10.0.0.1", "--port", "1/tcp", "--affinity-group", "g"],
            &["--affinity <BY>"],
        ),
        (
            &["service", "add", "x", "--vip", "10.0.0.1", "--port", "1/tcp", "--health-rise", "3"],
            &["--health <TYPE>"],
        ),
        (&["service", "set", "x", "--default", "colour"], &["colour"]),
        (&["service", "set", "x", "--slow-start", "1s", "--default", "slow-start"], &["leave one out"]),
        (&["service", "show", ""], &["<NAME>"]),
        (&["backend", "add", "x", "10.0.0.1", "--weight", "heavy"], &["heavy", "--weight"]),
        (&["backend", "drain", "x", "10.0.0.1", "--deadline", "soon"], &["soon", "15m"]),
        (&["backend", "drain", "x", "10.0.0.1", "--deadline", "0s"], &["0s", "from 1s"]),
        (&["status", "--frobnicate"], &["--frobnicate"]),
        (&["status", "-o", "yaml"], &["yaml", "table, json"]),
        (&["frobnicate"], &["frobnicate"]),
    ] {
        has(&Ran::of(&mut flowpin(args)).failed(2), parts);
    }
    // Nothing at all, or half a command: help, but it was not usage.
    for args in [&[][..], &["service"]] {
        let ran = Ran::of(&mut flowpin(args));
        assert_eq!(ran.code, 2);
        has(&ran.err, &["Usage: flowpin"]);
    }
}

#[test]
fn help_has_examples_for_every_command() {
    for command in [
        "",
        "agent",
        "service add",
        "service set",
        "service list",
        "service show",
        "service remove",
        "backend add",
        "backend set",
        "backend list",
        "backend drain",
        "backend undrain",
        "backend remove",
        "connection list",
        "status",
        "stats",
        "check",
        "import",
        "ipvsadm",
        "doctor",
        "demo",
        "detach",
        "attach",
        "cleanup kube-proxy",
        "completions",
    ] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let text = Ran::of(&mut flowpin(&args)).ok();
        has(&text, &["Example", &format!("flowpin {command}")]);
        assert!(text.contains("--api-socket") && text.contains("--output"), "{command}");
    }
    has(&Ran::of(&mut flowpin(&["--version"])).ok(), &["flowpin 0.1"]);
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Ran::of(&mut flowpin(&["completions", shell])).ok();
        has(&script, &["undrain", "connection", "affinity-timeout", "health-interval", "doctor"]);
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().expect("a directory");
    Ran::of(&mut flowpin(&["man", dir.path().join("man1").to_str().expect("text")])).ok();
    let page = |name: &str| std::fs::read_to_string(dir.path().join("man1").join(name)).expect(name);
    has(
        &page("flowpin.1"),
        &["flowpin\\-backend(1)", ".SH EXAMPLES", ".SH FILES", "/etc/flowpin/flowpin.toml"],
    );
    has(&page("flowpin-backend.1"), &["flowpin\\-backend\\-drain(1)", ".SH \"SEE ALSO\"\nflowpin(1), "]);
    has(&page("flowpin-backend-drain.1"), &["flowpin backend drain db 10.0.1.11:5432", "\\-\\-deadline"]);
    // Only those that the help names.
    let names = std::fs::read_dir(dir.path().join("man1")).expect("pages").flatten().map(|e| e.file_name());
    assert!(names.map(|name| name.into_string().expect("text")).all(|name| name != "flowpin-man.1"));
    has(&Ran::of(&mut flowpin(&["man", "/proc/nowhere"])).failed(1), &["/proc/nowhere: "]);
}

#[test]
fn a_reader_who_stops_reading_is_no_failure() {
    let agent = Agent::empty();
    agent.world(|w| {
        for i in 0..5000 {
            w.services.push(service(&format!("service-{i}"), "10.96.0.10", vec![backend("10.0.1.11", 1)]));
        }
    });
    let mut child = flowpin(&["service", "list"])
        .env("FLOWPIN_API_SOCKET", agent.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    has(&line, &["NAME"]);
}
