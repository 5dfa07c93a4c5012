//! Promise: whoever connects to the agent and asks nothing keeps nobody from an answer, and what the node lacks says nothing of
//! a backend.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::Stdio,
    sync::mpsc,
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    eventually,
    program::finish,
    server::Server,
    topology::Family::V4,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LIMIT: Duration = Duration::from_secs(60);
/// Connections that ask nothing, of each kind.
const CROWD: usize = 1_200;
/// Those of a listener that the agent keeps.
const KEPT: usize = 256;

fn prepare(net: &Net) -> Agent {
    let checks = "health = { type = \"tcp\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 4 }";
    let config = interfaces(&[("c0", "tc"), ("b0", "tc")])
        + &service("app", &V4.vip(0), "\"80/tcp\"", &[V4.backend(0)], checks);
    Agent::prepare(&net.node, &config)
}

/// Have so many been closed by the agent?
fn closed<S: Read>(crowd: &mut [S]) -> usize {
    let ended = |stream: &mut S| match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
        Ok(_) => false,
    };
    crowd.iter_mut().map(ended).filter(|ended| *ended).count()
}

#[test]
fn idle_connections_keep_nobody_from_an_answer() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let mut agent = prepare(&net);
    agent.up();
    let mut follower = agent.spawn_cli(&["events", "-f", "-o", "json"], Stdio::piped());
    let lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .filter(|line| line.contains("\"drain\""))
            .all(|line| tell.send(line).is_ok())
    });
    // Drains the backend until that is told, and takes it back.
    let hears = |what: &str| {
        eventually(what, LIMIT, || {
            agent.done(&["backend", "drain", "app", &V4.backend(0)]);
            agent.done(&["backend", "undrain", "app", &V4.backend(0)]);
            told.recv_timeout(Duration::from_millis(500)).map(drop).map_err(|e| e.to_string())
        });
        while told.try_recv().is_ok() {}
    };
    hears("it follows before the others come");
    let api = agent.config().with_file_name("api.sock");
    let metrics = SocketAddr::from(([127, 0, 0, 1], 9479));
    let mut unix: Vec<UnixStream> = (0..CROWD)
        .map(|_| {
            let stream = UnixStream::connect(&api).expect("the agent listens");
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let mut tcp: Vec<TcpStream> = net.node.run(|| {
        (0..CROWD)
            .map(|_| {
                let stream = TcpStream::connect(metrics).expect("the agent listens");
                stream.set_nonblocking(true).unwrap();
                stream
            })
            .collect()
    });
    // Those that were first have gone, and whoever asks is answered.
    eventually("those that are too many are closed", LIMIT, || match (closed(&mut unix), closed(&mut tcp)) {
        (a, b) if a >= CROWD - KEPT && b >= CROWD - KEPT => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
    assert_eq!(agent.json(&["status"])["state"], "ok");
    let page = net.node.must("curl -sf http://127.0.0.1:9479/metrics");
    assert!(page.contains("flowpin_backend_healthy{service=\"app\",backend=\"10.2.0.2\"} 1"), "{page}");
    // Who is being answered was not among them.
    hears("the events go on");
    // Checks are made.
    net.backends[0].ip("link set eth0 down");
    eventually("the server is missed", LIMIT, || {
        match agent.json(&["service", "show", "app"])["backends"][0]["healthy"] == false {
            true => Ok(()),
            false => Err("healthy".into()),
        }
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn what_the_node_lacks_says_nothing_of_a_backend() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let mut agent = prepare(&net);
    // It takes as many as it may have.
    agent.under = ["prlimit", "--nofile=64:4096"].map(Into::into).into();
    agent.up();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(files.split_whitespace().nth(3), Some("4096"), "{files}");
    let pid = nix::unistd::Pid::from_raw(agent.pid().cast_signed());
    let limit = |files: u32| net.node.must(&format!("prlimit --pid {pid} --nofile={files}:4096"));
    // Below the number that the next file would get. Some are open for a moment only, so that it may be lower the next time.
    let is_open = |number: &u32| std::fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    let mut lowest = u32::MAX;
    eventually("it is said", LIMIT, || {
        let next = (0..).find(|number| !is_open(number)).expect("a number");
        if next < lowest {
            lowest = next;
            limit(next);
        }
        match agent.log() {
            log if log.contains("health checks can't be made") => Ok(()),
            log => Err(log),
        }
    });
    assert!(!agent.log().contains("unhealthy"), "{}", agent.log());
    limit(4096);
    eventually("checks are made again", LIMIT, || match agent.json(&["status"])["problems"].to_string() {
        problems if problems.contains("health checks") => Err(problems),
        _ => Ok(()),
    });
    assert_eq!(agent.json(&["service", "show", "app"])["backends"][0]["healthy"], true);
}

#[test]
fn local_ports_that_are_gone_say_nothing_of_a_backend() {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    let mut agent = prepare(&net);
    agent.up();
    let ports = |range: &str| {
        let set = format!("net.ipv4.ip_local_port_range={range}");
        finish(net.node.command("sysctl").args(["-qw", &set]));
    };
    ports("60000 60003");
    // Somebody else has all of them, towards the backend.
    let mut taken = Vec::new();
    eventually("no port is left", LIMIT, || {
        let to = SocketAddr::from((V4.backend(0).parse::<std::net::IpAddr>().unwrap(), 80));
        match net.node.run(|| TcpStream::connect(to)) {
            Ok(stream) => taken.push(stream),
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => return Ok(()),
            Err(e) => panic!("{e}"),
        }
        Err(format!("{} are taken", taken.len()))
    });
    let problems = || agent.json(&["status"])["problems"].to_string();
    eventually("it is said", LIMIT, || match problems() {
        text if text.contains("health checks can't be made") && text.contains("ip_local_port_range") => {
            Ok(())
        }
        text => Err(text),
    });
    // For longer than four bad checks take.
    let before = agent.json(&["status"])["uptime_seconds"].as_f64().unwrap();
    eventually("time goes by", LIMIT, || {
        let now = agent.json(&["status"])["uptime_seconds"].as_f64().unwrap();
        if now > before + 6.0 { Ok(()) } else { Err(format!("{now}")) }
    });
    assert!(!agent.log().contains("unhealthy"), "{}", agent.log());
    let backend = agent.json(&["service", "show", "app"])["backends"][0].clone();
    assert_eq!(
        (&backend["healthy"], &backend["health_check_failures"]),
        (&true.into(), &0.into()),
        "{backend}"
    );
    drop(taken);
    ports("32768 60999");
    eventually("checks are made again", LIMIT, || match problems() {
        text if text.contains("health checks") => Err(text),
        _ => Ok(()),
    });
}
