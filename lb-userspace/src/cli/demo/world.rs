//! Namespaces of a demo, and how all that one has made is removed.
//!
//! ```text
//!          ┌── kube (iptables, as kube-proxy writes them) ──┐
//! client ──┤                                                ├── b1 b2 b3 b4 b5
//!          └── node (Flowpin) ──────────────────────────────┘
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::anyhow;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::netns::{NAMESPACES, ip, within};

/// Begins the name of everything that a demo makes; its process id follows.
const PREFIX: &str = "flowpin-demo-";
/// Where BPF's file system is.
pub const BPF: &str = "/sys/fs/bpf";
/// Backends, the one of the scale-out among them.
pub const BACKENDS: [&str; 5] = ["b1", "b2", "b3", "b4", "b5"];
/// The address that Flowpin serves.
pub const VIP: &str = "10.96.0.10";
/// The address that kube-proxy's rules serve.
pub const KUBE_VIP: &str = "10.96.0.20";
/// Of the service, and of its backends.
pub const PORT: u16 = 80;
/// Nodes, the network below which each has one for the client and for each backend, and how the others name the
/// interface towards it.
const NODES: [(&str, u8, &str, &str); 2] = [("node", 2, "eth0", VIP), ("kube", 3, "eth1", KUBE_VIP)];
/// The client's network below a node's.
const CLIENT: usize = 9;

/// Address of a backend, by its place in [`BACKENDS`], as the node with Flowpin sees it.
pub fn address(backend: usize) -> String {
    format!("10.2.{}.2", backend + 1)
}

/// The same for the other node.
pub fn kube_address(backend: usize) -> String {
    format!("10.3.{}.2", backend + 1)
}

/// What the names of everything that a demo makes begin with.
pub fn tag(pid: u32) -> String {
    format!("{PREFIX}{pid}")
}

/// Where the agent's maps are.
pub fn pins(tag: &str) -> PathBuf {
    Path::new(BPF).join(tag)
}

/// Where the agent's files and sockets are.
pub fn directory(tag: &str) -> PathBuf {
    std::env::temp_dir().join(tag)
}

/// Makes all namespaces and what connects them.
///
/// # Errors
/// What `ip` said.
pub fn build(tag: &str) -> anyhow::Result<()> {
    for name in ["client", "node", "kube"].iter().chain(&BACKENDS) {
        ip(&format!("netns add {tag}-{name}"))
            .map_err(|e| anyhow!("{e:#}; in a container root may not do that: run the demo on the host"))?;
        ip(&format!("-n {tag}-{name} link set lo up"))?;
    }
    for (node, net, side, vip) in NODES {
        link(tag, node, "client", side, &format!("10.{net}.{CLIENT}"))?;
        ip(&format!("-n {tag}-client route add {vip} via 10.{net}.{CLIENT}.1"))?;
        for (i, backend) in BACKENDS.iter().enumerate() {
            let network = format!("10.{net}.{}", i + 1);
            link(tag, node, backend, side, &network)?;
            ip(&format!("-n {tag}-{backend} route add 10.{net}.{CLIENT}.0/24 via {network}.1"))?;
        }
        within(tag, node, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
    }
    Ok(())
}

/// Connects a node with another namespace: .1 is the node, .2 the other.
fn link(tag: &str, node: &str, name: &str, side: &str, network: &str) -> anyhow::Result<()> {
    ip(&format!("-n {tag}-{node} link add {name} type veth peer name {side} netns {tag}-{name}"))?;
    ip(&format!("-n {tag}-{node} addr add {network}.1/24 dev {name}"))?;
    ip(&format!("-n {tag}-{node} link set {name} up"))?;
    ip(&format!("-n {tag}-{name} addr add {network}.2/24 dev {side}"))?;
    ip(&format!("-n {tag}-{name} link set {side} up"))
}

/// Tags of demos of which something is left and whose process isn't there any more.
pub fn abandoned() -> BTreeSet<String> {
    let places = [PathBuf::from(NAMESPACES), PathBuf::from(BPF), std::env::temp_dir()];
    let pid = |name: String| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok();
    places.iter().flat_map(|place| names(place)).filter_map(pid).filter(|pid| !runs(*pid)).map(tag).collect()
}

/// Is it a demo's process? The number may be another's by now.
fn runs(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pid != std::process::id() && line.split(|byte| *byte == 0).any(|word| word == b"demo")
}

/// Names in a directory; none if there is no such directory.
fn names(place: &Path) -> Vec<String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes all that a demo with this tag may have made, and ends what still runs in its namespaces. What isn't there is
/// as good as removed.
pub fn clean_up(tag: &str) {
    for name in names(Path::new(NAMESPACES)).iter().filter(|name| name.starts_with(&format!("{tag}-"))) {
        let inside = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
        let inside = inside.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        for pid in inside.lines().filter_map(|pid| pid.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    }
    let _ = fs::remove_dir_all(pins(tag));
    let _ = fs::remove_dir_all(directory(tag));
}
