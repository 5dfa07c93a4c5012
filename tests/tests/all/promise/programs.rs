//! Promise: real programs work through a VIP, over IPv4 and IPv6, with offloads on.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    client::at,
    eventually,
    topology::Family::{self, V4, V6},
};
use tempfile::TempDir;

/// Two backends that run the same server, and a VIP of each family in front of them.
struct Scene {
    net: Net,
    agent: Agent,
    servers: Vec<Child>,
    _files: Vec<TempDir>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Scene {
    /// `start` gives the server's command line for a namespace, and may use the directory.
    fn new(port: u16, proto: &str, algorithm: &str, start: impl Fn(&Ns, &TempDir) -> Command) -> Self {
        let net = Net::new(2);
        let files: Vec<TempDir> = (0..2).map(|_| TempDir::new().unwrap()).collect();
        let servers = net
            .backends
            .iter()
            .zip(&files)
            .map(|(ns, dir)| {
                start(ns, dir)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let targets = |f: Family| vec![f.backend(0), f.backend(1)];
        let ports = format!("\"{port}/{proto}\"");
        let more = format!("algorithm = \"{algorithm}\"");
        let config = interfaces(&[("c0", "tc"), ("b*", "tc")])
            + &service("four", &V4.vip(0), &ports, &targets(V4), &more)
            + &service("six", &V6.vip(0), &ports, &targets(V6), &more);
        let agent = Agent::start(&net.node, &config);
        let scene = Self { net, agent, servers, _files: files };
        for (i, ns) in scene.net.backends.iter().enumerate() {
            for family in [V4, V6].iter().filter(|_| proto == "tcp") {
                eventually("the server listens", Duration::from_secs(20), || {
                    ns.run(|| std::net::TcpStream::connect(at(&family.backend(i), port)))
                        .map_err(|e| e.to_string())
                });
            }
        }
        scene
    }

    /// Runs a client; its output if it succeeds.
    fn client(&self, line: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            self.net.client.command(line[0]).args(&line[1..]).stdin(Stdio::null()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{line:?}: {stdout}{stderr}");
        stdout.into_owned()
    }

    /// Both backends have had connections of both families, none was refused and nothing is amiss.
    fn all_is_well(&self) {
        for service in ["four", "six"] {
            let view = self.agent.json(&["service", "show", service]);
            for backend in view["backends"].as_array().unwrap() {
                assert!(backend["total_connections"].as_u64().unwrap() > 0, "{service}: {backend}");
            }
        }
        let drops = self.agent.json(&["stats"])["drops"].clone();
        for reason in ["internal", "malformed", "no_backend", "table_full", "fragment", "flow_busy"] {
            assert_eq!(drops[reason], 0, "{reason}");
        }
        assert_eq!(self.agent.sweeps(2)["accounting_drift"], 0);
    }
}

fn url(vip: &str) -> String {
    if vip.contains(':') { format!("http://[{vip}]:80/") } else { format!("http://{vip}:80/") }
}

#[test]
fn nginx_under_wrk() {
    let scene = Scene::new(80, "tcp", "least-connections", |ns, dir| {
        let path = dir.path().display();
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log; events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;\n\
             uwsgi_temp_path {path}/d; scgi_temp_path {path}/e; keepalive_requests 1000000;\n\
             server {{ listen 80; listen [::]:80; location / {{ return 200 \"hello\\n\"; }} }} }}\n"
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = ns.command("nginx");
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        command
    });
    for family in [V4, V6] {
        let out = scene.client(&[
            "wrk",
            "-t2",
            "-c100",
            "-d3s",
            "-H",
            "Connection: keep-alive",
            &url(&family.vip(0)),
        ]);
        assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{out}");
        let requests: u64 = out
            .lines()
            .find(|l| l.contains("requests in"))
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(requests > 1_000, "{out}");
        assert_eq!(scene.client(&["curl", "-sg", "-m", "5", &url(&family.vip(0))]), "hello\n");
    }
    scene.all_is_well();
}

fn postgres(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: scripts/setup");
    let found = versions.flatten().map(|v| v.path().join("bin").join(program)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("{program} is not there: scripts/setup"))
}

#[test]
fn postgresql_under_pgbench() {
    let scene = Scene::new(5432, "tcp", "least-connections", |ns, dir| {
        let data = dir.path().join("data");
        std::os::unix::fs::chown(
            dir.path(),
            Some(nix::unistd::User::from_name("postgres").unwrap().unwrap().uid.as_raw()),
            None,
        )
        .unwrap();
        let as_postgres = |mut command: Command, program: &str| {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(postgres(program));
            command.current_dir("/");
            command
        };
        let mut init = as_postgres(Command::new("setpriv"), "initdb");
        let made = init.arg("-D").arg(&data).args(["-A", "trust", "-N"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let open = "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
        fs::write(data.join("pg_hba.conf"), open).unwrap();
        let mut serve = as_postgres(ns.command("setpriv"), "postgres");
        serve.arg("-D").arg(&data).arg("-k").arg(dir.path()).args([
            "-c",
            "listen_addresses=*",
            "-c",
            "fsync=off",
        ]);
        serve
    });
    let pgbench = postgres("pgbench");
    let pgbench = pgbench.to_str().unwrap();
    for i in 0..2 {
        // Each server has tables of its own: made directly, queried through the VIP.
        scene.client(&[pgbench, "-i", "-q", "-h", &V4.backend(i), "-U", "postgres", "postgres"]);
    }
    for family in [V4, V6] {
        let out = scene.client(&[
            pgbench,
            "-S",
            "-n",
            "-c",
            "10",
            "-j",
            "2",
            "-T",
            "3",
            "-h",
            &family.vip(0),
            "-U",
            "postgres",
            "postgres",
        ]);
        assert!(out.contains("number of failed transactions: 0"), "{out}");
    }
    scene.all_is_well();
}

#[test]
fn redis() {
    let scene = Scene::new(6379, "tcp", "least-connections", |ns, dir| {
        let mut command = ns.command("redis-server");
        command
            .args([
                "--port",
                "6379",
                "--bind",
                "0.0.0.0",
                "::",
                "--protected-mode",
                "no",
                "--save",
                "",
                "--dir",
            ])
            .arg(dir.path());
        command
    });
    for family in [V4, V6] {
        let out = scene.client(&[
            "redis-benchmark",
            "-h",
            &family.vip(0),
            "-c",
            "50",
            "-n",
            "20000",
            "-t",
            "set,get",
            "-q",
        ]);
        assert!(out.contains("requests per second") && !out.contains("Error"), "{out}");
        assert_eq!(scene.client(&["redis-cli", "-h", &family.vip(0), "ping"]), "PONG\n");
    }
    scene.all_is_well();
}

#[test]
fn dns_over_udp() {
    let scene = Scene::new(53, "udp", "consistent-hash", |ns, dir| {
        let mut command = ns.command("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--address=/flowpin.test/192.0.2.53",
            ])
            .arg(format!("--pid-file={}", dir.path().join("pid").display()));
        command
    });
    let ask = |family: Family| {
        let server = format!("@{}", family.vip(0));
        scene.client(&["dig", "+short", "+tries=1", "+timeout=2", &server, "flowpin.test"])
    };
    for family in [V4, V6] {
        eventually("the server answers", Duration::from_secs(10), || {
            let server = format!("@{}", family.vip(0));
            let out = scene
                .net
                .client
                .command("dig")
                .args(["+short", "+tries=1", "+timeout=1", &server, "flowpin.test"])
                .output();
            if out.unwrap().status.success() { Ok(()) } else { Err("no answer".into()) }
        });
        for _ in 0..50 {
            assert_eq!(ask(family), "192.0.2.53\n");
        }
    }
    scene.all_is_well();
}

#[test]
fn iperf3_with_offloads_on() {
    let scene = Scene::new(5201, "tcp", "consistent-hash", |ns, _| {
        let mut command = ns.command("iperf3");
        command.arg("--server");
        command
    });
    let offloads = scene.net.client.must("ethtool -k eth0");
    for feature in ["tcp-segmentation-offload: on", "tx-checksumming: on", "generic-receive-offload: on"] {
        assert!(offloads.contains(feature), "{feature}\n{offloads}");
    }
    for family in [V4, V6] {
        // iperf3 opens a control and a data connection that must reach one server: drain the other.
        for service in ["four", "six"] {
            let other = if service == "four" { V4.backend(1) } else { V6.backend(1) };
            scene.agent.cli(&["backend", "drain", service, &other]);
        }
        for direction in ["--bidir", "--reverse"] {
            let out =
                scene.client(&["iperf3", "--client", &family.vip(0), "--time", "2", direction, "--json"]);
            let result: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert!(result["error"].is_null(), "{out}");
            let rate = result["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
            assert!(rate > 0.0, "nothing arrived: {out}");
        }
    }
    assert_eq!(scene.agent.json(&["stats"])["drops"]["malformed"], 0);
}
