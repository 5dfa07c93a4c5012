//! Namespaces of the demo.
//!
//! ```text
//!          ┌── k (iptables, as kube-proxy writes them) ──┐
//! client ──┤                                             ├── b0 b1 b2 b3
//!          └── n (Flowpin) ──────────────────────────────┘
//! ```

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Begins the name of everything that a demo makes; its process id follows.
const PREFIX: &str = "fpd";
/// Backends.
pub const BACKENDS: usize = 4;
/// The VIP that kube-proxy's rules serve.
pub const KUBE_VIP: &str = "10.96.0.20";
/// VIPs that Flowpin serves, by algorithm, and the backends' port behind each.
pub const VIPS: [(&str, &str, u16); 2] =
    [("least-connections", "10.96.0.10", PORTS[0]), ("consistent-hash", "10.96.0.11", PORTS[1])];
/// Ports that backends listen on. One for each VIP: a client may use the same source port towards both, and by destination NAT
/// alone two connections from one port to one backend and port can't be told apart.
pub const PORTS: [u16; 2] = [80, 81];

/// Runs a line and insists that it succeeds.
pub fn must(line: &str) -> anyhow::Result<()> {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().unwrap_or_default())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| line.to_string())?;
    if !out.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// A command in a namespace. `ip netns exec` would hide the BPF file system.
pub fn inside(tag: &str, name: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{tag}-{name}")).arg(program);
    command
}

/// Where the agent's maps are.
pub fn pins(tag: &str) -> String {
    format!("/sys/fs/bpf/{tag}")
}

/// Makes all of it.
pub fn build(tag: &str) -> anyhow::Result<()> {
    for name in ["c", "n", "k"].map(String::from).into_iter().chain((0..BACKENDS).map(|i| format!("b{i}"))) {
        must(&format!("ip netns add {tag}-{name}"))?;
        must(&format!("ip -n {tag}-{name} link set lo up"))?;
    }
    for (node, net, side, vips) in
        [("n", 2, "eth0", vec![VIPS[0].1, VIPS[1].1]), ("k", 3, "eth1", vec![KUBE_VIP])]
    {
        link(tag, node, "c0", "c", side, &format!("10.{net}.9"))?;
        for vip in vips {
            must(&format!("ip -n {tag}-c route add {vip} via 10.{net}.9.1"))?;
        }
        for i in 0..BACKENDS {
            link(tag, node, &format!("b{i}"), &format!("b{i}"), side, &format!("10.{net}.{i}"))?;
            must(&format!("ip -n {tag}-b{i} route add 10.{net}.9.0/24 via 10.{net}.{i}.1"))?;
        }
        let forward = inside(tag, node, "sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).status()?;
        if !forward.success() {
            bail!("sysctl net.ipv4.ip_forward=1 failed in {node}");
        }
    }
    kube_proxy(tag)
}

fn link(tag: &str, node: &str, name: &str, peer: &str, side: &str, net: &str) -> anyhow::Result<()> {
    must(&format!("ip -n {tag}-{node} link add {name} type veth peer name {side} netns {tag}-{peer}"))?;
    must(&format!("ip -n {tag}-{node} addr add {net}.1/24 dev {name}"))?;
    must(&format!("ip -n {tag}-{node} link set {name} up"))?;
    must(&format!("ip -n {tag}-{peer} addr add {net}.2/24 dev {side}"))?;
    must(&format!("ip -n {tag}-{peer} link set {side} up"))
}

/// The chains that kube-proxy writes for a service with four endpoints: probabilities 1/4, 1/3, 1/2, 1.
fn kube_proxy(tag: &str) -> anyhow::Result<()> {
    let rule = |args: &str| {
        let out =
            inside(tag, "k", "iptables").args(["-w", "-t", "nat"]).args(args.split_whitespace()).output()?;
        if !out.status.success() {
            bail!("iptables -t nat {args}: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    };
    rule("-N KUBE-SVC-DEMO")?;
    rule(&format!("-A PREROUTING -d {KUBE_VIP} -p tcp --dport 80 -j KUBE-SVC-DEMO"))?;
    for i in 0..BACKENDS {
        rule(&format!("-N KUBE-SEP-{i}"))?;
        rule(&format!("-A KUBE-SEP-{i} -p tcp -j DNAT --to-destination 10.3.{i}.2:80"))?;
        let left = BACKENDS - i;
        let chance = if left == 1 {
            String::new()
        } else {
            format!("-m statistic --mode random --probability {:.11}", 1.0 / left as f64)
        };
        rule(&format!("-A KUBE-SVC-DEMO {chance} -j KUBE-SEP-{i}"))?;
    }
    Ok(())
}

/// What the names of everything that a demo makes begin with.
pub fn tag(pid: u32) -> String {
    format!("{PREFIX}{pid}")
}

/// Tags of demos whose process is gone and whose namespaces are not.
pub fn abandoned() -> BTreeSet<String> {
    namespaces()
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok())
        .filter(|pid: &u32| !Path::new(&format!("/proc/{pid}")).exists())
        .map(tag)
        .collect()
}

fn namespaces() -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "list"]).output().map(|o| o.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    listed.lines().filter_map(|l| l.split_whitespace().next()).map(String::from).collect()
}

/// Removes all that a demo with this tag may have made, and ends what still runs in its namespaces.
pub fn clean_up(tag: &str) {
    for name in namespaces() {
        if name.starts_with(&format!("{tag}-")) {
            let pids = Command::new("ip")
                .args(["netns", "pids", &name])
                .output()
                .map(|o| o.stdout)
                .unwrap_or_default();
            for pid in String::from_utf8_lossy(&pids).lines().filter_map(|p| p.parse().ok()) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
    // Nothing there is as good as removed.
    let _ = std::fs::remove_dir_all(pins(tag));
    let _ = std::fs::remove_dir_all(std::env::temp_dir().join(tag));
}
