//! What a host's firewall does to packets: rules of iptables and ip6tables, and what nf_conntrack knows.

use std::{io::Write, net::IpAddr, process::Stdio};

use super::{Ns, program::run, topology::Family};

/// Chains that the kernel has, by table.
const TABLES: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

fn tool(family: Family) -> &'static str {
    if family == Family::V4 { "iptables" } else { "ip6tables" }
}

/// Loads rules in the form of `iptables-save`. Chains that they don't name stay as they are.
///
/// # Panics
/// iptables isn't installed or refuses them.
pub fn load(ns: &Ns, family: Family, rules: &str) {
    let program = format!("{}-restore", tool(family));
    let mut child = ns
        .command(&program)
        .arg("--noflush")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}; scripts/setup installs it"));
    child.stdin.take().expect("stdin").write_all(rules.as_bytes()).expect("rules");
    assert!(child.wait().expect("wait").success(), "{program} refuses:\n{rules}");
}

/// Removes all rules of both families and forgets all tracked connections.
pub fn unload(ns: &Ns) {
    for family in [Family::V4, Family::V6] {
        for (table, chains) in TABLES {
            let chains: String = chains.iter().map(|chain| format!(":{chain} ACCEPT\n")).collect();
            load(ns, family, &format!("*{table}\n{chains}COMMIT\n"));
            run(ns, tool(family), &["-t", table, "-F"]);
            run(ns, tool(family), &["-t", table, "-X"]);
        }
    }
    run(ns, "conntrack", &["-F"]);
}

/// A connection as nf_conntrack has it.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// TCP's state, empty for UDP.
    pub state: String,
    /// Source and destination of the first packet.
    pub original: [(IpAddr, u16); 2],
    /// Source and destination of answers.
    pub reply: [(IpAddr, u16); 2],
    /// Packets went both ways.
    pub answered: bool,
    /// It is kept when the table is full.
    pub assured: bool,
}

impl Tracked {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let protocol = words.next().filter(|p| ["tcp", "udp"].contains(p))?.to_string();
        // Number of the protocol, seconds left.
        let state = words.nth(2)?;
        let values = |key: &str| -> Vec<&str> {
            line.split_whitespace().filter_map(|w| w.strip_prefix(key)?.strip_prefix('=')).collect()
        };
        let (sources, destinations) = (values("src"), values("dst"));
        let (source_ports, destination_ports) = (values("sport"), values("dport"));
        let end = |addresses: &[&str], ports: &[&str], i: usize| {
            Some((addresses.get(i)?.parse().ok()?, ports.get(i)?.parse().ok()?))
        };
        let ends = |i| Some([end(&sources, &source_ports, i)?, end(&destinations, &destination_ports, i)?]);
        Some(Self {
            protocol,
            state: if state.contains('=') { String::new() } else { state.into() },
            original: ends(0)?,
            reply: ends(1)?,
            answered: !line.contains("[UNREPLIED]"),
            assured: line.contains("[ASSURED]"),
        })
    }

    /// Is this address an end of it, in either direction?
    pub fn names(&self, address: IpAddr) -> bool {
        self.original.iter().chain(&self.reply).any(|(a, _)| *a == address)
    }
}

/// TCP and UDP connections that nf_conntrack knows in a namespace.
///
/// # Panics
/// conntrack isn't installed.
pub fn tracked(ns: &Ns, family: Family) -> Vec<Tracked> {
    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
    run(ns, "conntrack", &["-L", "-f", family]).lines().filter_map(Tracked::parse).collect()
}
