//! Promise: programs that know nothing of Flowpin work through a VIP, over IPv4 and IPv6, with all offloads on.

use std::time::Duration;

use flowpin_tests::harness::{
    Agent, Net, Ns,
    agent::{interfaces, service},
    eventually,
    program::{Program, find, finish, postgres, run},
    topology::Family::{self, V4, V6},
};
use tempfile::TempDir;

/// How packets come in: from clients, from backends.
const MIX: [(&str, &str); 7] = [
    ("tc", "tc"),
    ("xdp", "xdp"),
    ("xdp", "tc"),
    ("tc", "xdp"),
    ("fast", "fast"),
    ("fast", "peer"),
    ("xdp-fast", "xdp-fast"),
];

/// A node with one service in each family, and what it must have seen when all is done.
struct Scene {
    net: Net,
    agent: Agent,
}

impl Scene {
    fn new(backends: usize, ports: &str, (client, backend): (&str, &str)) -> Self {
        let net = Net::new(backends);
        let targets = |f: Family| (0..backends).map(|i| f.backend(i)).collect::<Vec<_>>();
        let config = interfaces(&[("c0", client), ("b*", backend)])
            + &service("four", &V4.vip(0), ports, &targets(V4), "")
            + &service("six", &V6.vip(0), ports, &targets(V6), "");
        let agent = Agent::start(&net.node, &config);
        Self { net, agent }
    }

    fn client(&self) -> &Ns {
        &self.net.client
    }

    /// Every backend had its share, nothing was refused, and what was closed no longer counts.
    fn settle(&self, tcp: bool) {
        for name in ["four", "six"] {
            let view = self.agent.json(&["service", "show", name]);
            for backend in view["backends"].as_array().expect("backends") {
                for count in ["total_connections", "packets_in", "bytes_in", "packets_out", "bytes_out"] {
                    assert!(backend[count].as_u64() > Some(0), "{name}: {count} of {backend}");
                }
            }
        }
        let drops = &self.agent.json(&["stats"])["drops"];
        for (reason, count) in drops.as_object().expect("reasons") {
            // A RST that crosses the last FIN may find its connection gone.
            if reason != "stray_reset" {
                assert_eq!(count, 0, "{reason}: {drops}");
            }
        }
        for ns in self.net.backends.iter().chain([&self.net.client]) {
            assert_eq!(wrong_checksums(ns), 0, "packets with a wrong checksum came to {}", ns.name);
        }
        if tcp {
            eventually("all closed", Duration::from_secs(10), || {
                let open: u64 = ["four", "six"].iter().flat_map(|s| self.agent.active(s)).sum();
                if open == 0 { Ok(()) } else { Err(format!("{open} open")) }
            });
        }
        assert_eq!(self.agent.sweeps(2)["accounting_drift"], 0);
    }
}

/// Packets that the stack of a namespace refused for their checksum: TCP and UDP, both families.
fn wrong_checksums(ns: &Ns) -> u64 {
    let read = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        ns.run(|| std::fs::read_to_string(&path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    // IPv4 and all of TCP: a line of names, then a line of values, each behind the protocol's name.
    let (four, six) = (read("snmp"), read("snmp6"));
    let lines: Vec<Vec<&str>> = four.lines().map(|l| l.split_whitespace().collect()).collect();
    let of = |[names, values]: &[Vec<&str>; 2]| -> u64 {
        let both = names.iter().zip(values).filter(|(name, _)| **name == "InCsumErrors");
        both.map(|(_, value)| value.parse::<u64>().expect("a count")).sum()
    };
    let four: u64 = lines.as_chunks().0.iter().map(of).sum();
    let six = six.lines().filter(|l| l.contains("InCsumErrors"));
    four + six
        .filter_map(|l| l.split_whitespace().nth(1))
        .map(|n| n.parse::<u64>().expect("a count"))
        .sum::<u64>()
}

/// A VIP as URLs have it.
fn host(family: Family) -> String {
    if family == V4 { V4.vip(0) } else { format!("[{}]", V6.vip(0)) }
}

const NGINX: &str = "
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server { listen 80; listen [::]:80; root {dir}/www; }
}";

/// 4 MiB that no sequence of zeros or repeats would match.
fn noise() -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    (0..4 << 20)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

fn nginx(ns: &Ns, noise: &[u8]) -> Program {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    // Its workers run as another user.
    finish(std::process::Command::new("chmod").args(["755", path]));
    std::fs::create_dir(dir.path().join("www")).unwrap();
    std::fs::write(dir.path().join("www/index.html"), "hello\n").unwrap();
    std::fs::write(dir.path().join("www/noise"), noise).unwrap();
    std::fs::write(dir.path().join("conf"), NGINX.replace("{dir}", path)).unwrap();
    Program::start_in(dir, ns, "nginx", &["-p", "{dir}", "-c", "{dir}/conf", "-e", "{dir}/error.log"])
        .listening(ns, 80)
}

#[test]
fn nginx_under_wrk() {
    let noise = noise();
    for mix in MIX {
        let s = Scene::new(2, "\"80/tcp\"", mix);
        let _servers: Vec<_> = s.net.backends.iter().map(|ns| nginx(ns, &noise)).collect();
        for family in [V4, V6] {
            let url = format!("http://{}/", host(family));
            let out = run(s.client(), "wrk", &["-t2", "-c64", "-d1s", &url]);
            assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{mix:?}, {family:?}: {out}");
            let requests =
                out.split_whitespace().zip(out.split_whitespace().skip(1)).find(|(_, b)| *b == "requests");
            let requests: u64 = requests.and_then(|(n, _)| n.parse().ok()).unwrap_or_else(|| panic!("{out}"));
            assert!(requests > 0, "{mix:?}, {family:?}: {out}");
            let file = TempDir::new().unwrap();
            for i in 0..4 {
                let path = file.path().join(i.to_string());
                let url = format!("{url}noise");
                run(s.client(), "curl", &["-sfg", "-o", path.to_str().unwrap(), &url]);
                assert!(
                    std::fs::read(&path).unwrap() == noise,
                    "{mix:?}, {family:?}: a file came out otherwise"
                );
            }
        }
        s.settle(true);
    }
}

/// PostgreSQL with the tables of pgbench.
fn bank(ns: &Ns) -> Program {
    let program = postgres(ns);
    let bench = find("pgbench");
    run(ns, bench.to_str().unwrap(), &["-i", "-q", "-h", "127.0.0.1", "-U", "postgres", "postgres"]);
    program
}

#[test]
fn postgresql_under_pgbench() {
    // initdb takes its time: two mixes that between them have every hook on either side.
    for mix in [MIX[2], MIX[3]] {
        let s = Scene::new(2, "\"5432/tcp\"", mix);
        let _servers: Vec<_> = s.net.backends.iter().map(bank).collect();
        let bench = find("pgbench");
        for family in [V4, V6] {
            let vip = family.vip(0);
            let args = ["-n", "-c", "16", "-j", "2", "-t", "50", "-h", &vip, "-U", "postgres", "postgres"];
            let out = run(s.client(), bench.to_str().unwrap(), &args);
            assert!(out.contains("actually processed: 800/800"), "{mix:?}, {family:?}: {out}");
            assert!(out.contains("failed transactions: 0 "), "{mix:?}, {family:?}: {out}");
            // A connection for each transaction.
            let args = [
                "-n", "-C", "-S", "-c", "8", "-j", "2", "-t", "25", "-h", &vip, "-U", "postgres", "postgres",
            ];
            let out = run(s.client(), bench.to_str().unwrap(), &args);
            assert!(out.contains("actually processed: 200/200"), "{mix:?}, {family:?}: {out}");
        }
        s.settle(true);
    }
}

#[test]
fn redis() {
    for mix in [MIX[0], MIX[1]] {
        let s = Scene::new(2, "\"6379/tcp\"", mix);
        let args = ["--bind", "*", "-::*", "--protected-mode", "no", "--save", "", "--dir", "{dir}"];
        let start = |ns: &Ns| Program::start(ns, "redis-server", &args).listening(ns, 6379);
        let _servers: Vec<_> = s.net.backends.iter().map(start).collect();
        for family in [V4, V6] {
            let vip = family.vip(0);
            let bench = ["-h", &vip, "-n", "5000", "-c", "50", "-d", "3000", "-t", "set,get", "--csv"];
            for pipeline in [&[][..], &["-P", "16"]] {
                let out = run(s.client(), "redis-benchmark", &[&bench[..], pipeline].concat());
                assert!(out.contains("\"SET\"") && out.contains("\"GET\""), "{mix:?}, {family:?}: {out}");
            }
            // One connection, so one server: what it was told it says again.
            let value = "0123456789abcdef".repeat(4000);
            let script =
                format!("local v = '{value}'; redis.call('SET', 'k', v); return redis.call('GET', 'k')");
            let out = run(s.client(), "redis-cli", &["-h", &vip, "EVAL", &script, "0"]);
            assert_eq!(out.trim(), value, "{mix:?}, {family:?}");
        }
        s.settle(true);
    }
}

#[test]
fn dns_by_dig() {
    let text = "t".repeat(200);
    for mix in MIX {
        let s = Scene::new(2, "\"53/udp\", \"53/tcp\"", mix);
        let start = |ns: &Ns| {
            let txt = format!("--txt-record=long.flowpin.test,{}", [text.as_str(); 5].join(","));
            let args = [
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--pid-file",
                "--host-record=www.flowpin.test,192.0.2.80,2001:db8::80",
                "--edns-packet-max=4096",
                &txt,
            ];
            Program::start(ns, "dnsmasq", &args).listening(ns, 53)
        };
        let _servers: Vec<_> = s.net.backends.iter().map(start).collect();
        for family in [V4, V6] {
            let server = format!("@{}", family.vip(0));
            let ask = |more: &[&str]| {
                let args = [&[server.as_str(), "+tries=1", "+time=3", "+short"], more].concat();
                run(s.client(), "dig", &args)
            };
            for _ in 0..2 {
                assert_eq!(ask(&["www.flowpin.test", "A"]).trim(), "192.0.2.80", "{mix:?}, {family:?}");
                assert_eq!(ask(&["www.flowpin.test", "AAAA"]).trim(), "2001:db8::80", "{mix:?}, {family:?}");
            }
            // Over 1,000 bytes, in one datagram; and by TCP.
            let long = [&format!("\"{text}\"") as &str; 5].join(" ");
            assert_eq!(
                ask(&["long.flowpin.test", "TXT", "+bufsize=1400", "+ignore"]).trim(),
                long,
                "{mix:?}, {family:?}"
            );
            assert_eq!(ask(&["long.flowpin.test", "TXT", "+tcp"]).trim(), long, "{mix:?}, {family:?}");
        }
        s.settle(false);
    }
}

fn iperf(s: &Scene, family: Family, more: &[&str]) -> serde_json::Value {
    let vip = family.vip(0);
    let args = [&["-c", &vip, "-J", "--connect-timeout", "5000"], more].concat();
    let out = run(s.client(), "iperf3", &args);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[test]
fn iperf3_with_offloads() {
    for (mix, mtu) in MIX.into_iter().map(|m| (m, 1500)).chain([(MIX[0], 9000), (MIX[1], 3000)]) {
        // Its control and data connections belong together: one backend.
        let s = Scene::new(1, "\"5201/tcp\", \"5201/udp\"", mix);
        for (ns, name) in
            [(&s.net.node, "c0"), (&s.net.node, "b0"), (&s.net.client, "eth0"), (&s.net.backends[0], "eth0")]
        {
            ns.ip(&format!("link set {name} mtu {mtu}"));
        }
        let offloads = s.client().must("ethtool -k eth0");
        assert!(offloads.contains("tx-checksumming: on"), "{offloads}");
        let server = &s.net.backends[0];
        let _server = Program::start(server, "iperf3", &["-s"]).listening(server, 5201);
        for family in [V4, V6] {
            for more in [&["-n", "64M", "-P", "4"][..], &["-n", "64M", "-P", "4", "-R"]] {
                let report = iperf(&s, family, more);
                let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
                assert!(received > 0, "{mix:?}, {family:?}, {more:?}: {report}");
            }
            // How much of it arrives is a matter of who has the CPU; whether it arrives is ours.
            let report = iperf(&s, family, &["-u", "-b", "10M", "-n", "400K"]);
            let lost = report["end"]["sum"]["lost_percent"].as_f64().unwrap_or(100.0);
            let packets = report["end"]["sum"]["packets"].as_u64().unwrap_or(0);
            assert!(lost < 100.0 && packets > 0, "{mix:?}, {family:?}, UDP: {lost} % of {packets} lost");
        }
        s.settle(false);
    }
}
