//! client – node – backends, routed, both families at once.
//!
//! ```text
//! client eth0 10.1.0.2 fd01::2 ─ c0 [node] b0 ─ eth0 10.2.0.2 fd02::2      backend 0
//!                                          b1 ─ eth0 10.2.1.2 fd02:1::2    backend 1 ...
//! ```

use std::sync::atomic::{AtomicU16, Ordering};

use super::Ns;

/// The namespaces.
#[derive(Debug)]
pub struct Net {
    /// Where clients are.
    pub client: Ns,
    /// Where the agent runs.
    pub node: Ns,
    /// Where servers are.
    pub backends: Vec<Ns>,
}

/// Addresses by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Address of the client.
    pub fn client(self) -> String {
        match self {
            Self::V4 => "10.1.0.2".into(),
            Self::V6 => "fd01::2".into(),
        }
    }
    /// Address of backend `i`.
    pub fn backend(self, i: usize) -> String {
        match self {
            Self::V4 => format!("10.2.{i}.2"),
            Self::V6 => format!("fd02:{i:x}::2"),
        }
    }
    /// Backend `i` with a port.
    pub fn target(self, i: usize, port: u16) -> String {
        match self {
            Self::V4 => format!("{}:{port}", self.backend(i)),
            Self::V6 => format!("[{}]:{port}", self.backend(i)),
        }
    }
    /// VIP `i`.
    pub fn vip(self, i: usize) -> String {
        match self {
            Self::V4 => format!("10.96.0.{}", i + 10),
            Self::V6 => format!("fd96::{:x}", i + 16),
        }
    }
}

impl Net {
    /// With so many backends.
    pub fn new(backends: usize) -> Self {
        let net = Self {
            client: Ns::new("c"),
            node: Ns::new("n"),
            backends: (0..backends).map(|i| Ns::new(&format!("b{i}"))).collect(),
        };
        net.node.must(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0",
        );
        net.link(&net.client, "c0", "10.1.0", "fd01:");
        for (i, backend) in net.backends.iter().enumerate() {
            net.link(backend, &format!("b{i}"), &format!("10.2.{i}"), &format!("fd02:{i:x}:"));
        }
        for ns in net.backends.iter().chain([&net.client, &net.node]) {
            can_solicit(ns);
        }
        // So that the veth takes what XDP_TX sends: veth does without XDP of its own only with GRO on.
        net.client.must("ethtool -K eth0 gro on");
        net
    }

    fn link(&self, ns: &Ns, name: &str, v4: &str, v6: &str) {
        for ns in [ns, &self.node] {
            ns.must("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        }
        self.node.ip(&format!("link add {name} type veth peer name eth0 netns {}", ns.name));
        self.node.ip(&format!("addr add {v4}.1/24 dev {name}"));
        self.node.ip(&format!("addr add {v6}:1/64 dev {name} nodad"));
        ns.ip(&format!("addr add {v4}.2/24 dev eth0"));
        ns.ip(&format!("addr add {v6}:2/64 dev eth0 nodad"));
        self.node.ip(&format!("link set {name} up"));
        ns.ip("link set eth0 up");
        ns.ip(&format!("route add default via {v4}.1"));
        ns.ip(&format!("route add default via {v6}:1"));
    }
}

static NEXT: AtomicU16 = AtomicU16::new(0x1000);

/// Gives every Ethernet interface that is up a link-local address. Without one a router solicits no neighbour for
/// what it forwards (`ndisc_send_ns`), and the kernel makes one only when it has noticed the carrier, which it
/// looks for once a second.
pub fn can_solicit(ns: &Ns) {
    for line in ns.ip("-o link show up").lines().filter(|l| l.contains("link/ether")) {
        let name = line.split([':', '@']).nth(1).expect("number: name").trim();
        let host = NEXT.fetch_add(1, Ordering::Relaxed);
        ns.ip(&format!("addr add fe80::{host:x}/64 dev {name} nodad"));
    }
}
