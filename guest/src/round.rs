//! A functional round with the real agent over veth and namespaces: what a kernel is asked to do, one column of the matrix after the
//! other. A world is an agent with a configuration; its steps are promised by name, so that one that breaks says which.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use flowpin_tests::harness::{
    Agent, Cgroup, Net, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    decap,
    devices::{self, Outcome, carries_or_says},
    eventually,
    server::Server,
    topology::Family::{self, V4, V6},
    udp,
};
use serde::Serialize;

use crate::churn::said;

/// Backends of each service.
const BACKENDS: usize = 3;
/// Connections of a client through one VIP.
const CONNECTIONS: usize = 30;
/// Bytes each way on every connection.
const BYTES: usize = 20_000;
/// How long what must happen soon may take: emulation is slow.
const LIMIT: Duration = Duration::from_secs(120);

/// What a step came to.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its column in the matrix.
    pub step: &'static str,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What went wrong; `None`: nothing.
    pub failed: Option<String>,
}

/// What a service does besides least-connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Least,
    Hash,
    Snat,
    Dsr,
    Tunnel,
}

impl Kind {
    fn more(self) -> String {
        let more = match self {
            Self::Least => "",
            Self::Hash => "algorithm = \"consistent-hash\"",
            Self::Snat => "forward = \"snat\"",
            Self::Dsr => "forward = \"dsr-l2\"",
            Self::Tunnel => "forward = \"dsr-ipip\"",
        };
        // Long enough for a slow machine to look at the count, short enough to wait for.
        format!("{more}\ntimeouts = {{ udp = \"5s\" }}")
    }

    fn direct(self) -> bool {
        matches!(self, Self::Dsr | Self::Tunnel)
    }

    fn name(self, family: Family) -> String {
        format!("{}-{family:?}", ["least", "hash", "snat", "dsr", "tunnel"][self as usize]).to_lowercase()
    }

    fn vip(self, family: Family) -> String {
        family.vip(self as usize)
    }
}

/// An agent with a configuration, and what is tried with it.
struct World {
    /// How interfaces are attached to, as [`interfaces`] names it.
    attach: &'static str,
    /// Columns of the matrix, and the services that each of them tries.
    steps: &'static [(&'static str, &'static [Kind])],
}

const WORLDS: [World; 5] = [
    World {
        attach: "tc",
        steps: &[
            ("TC", &[Kind::Least]),
            ("consistent hash", &[Kind::Hash]),
            ("snat", &[Kind::Snat]),
            ("dsr", &[Kind::Dsr]),
        ],
    },
    World { attach: "tc", steps: &[("dsr-ipip", &[Kind::Tunnel])] },
    World { attach: "xdp", steps: &[("XDP", &[Kind::Least, Kind::Hash, Kind::Snat])] },
    World { attach: "fast", steps: &[("fast", &[Kind::Least])] },
    World { attach: "peer", steps: &[("peer", &[Kind::Least])] },
];

/// These steps, or every one if there is none. Calls `tell` as each of them ends.
pub fn run(wanted: &[String], mut tell: impl FnMut(Step)) {
    let is_wanted = |step: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == step);
    let net = Net::new(BACKENDS);
    let _servers: Vec<Server> = net.backends.iter().enumerate().map(|(i, ns)| serve(ns, i)).collect();
    for World { attach, steps } in &WORLDS {
        let steps: Vec<_> = steps.iter().filter(|(step, _)| is_wanted(step)).collect();
        let kinds: Vec<Kind> = steps.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
        let mut agent = None;
        for (number, (step, own)) in steps.iter().enumerate() {
            tell(attempt(step, || {
                if number == 0 {
                    agent = Some(Agent::start(&net.node, &config(attach, &kinds)));
                }
                let agent = agent.as_ref().expect("an agent; see the step before");
                own.iter().for_each(|kind| carry(&net.client, agent, *kind));
                // Closed flows stay a while, those of direct server return for two minutes: looked at once a world.
                let next = steps.get(number + 1);
                if own.iter().any(|kind| kind.direct()) {
                    nothing_counted(agent);
                } else if next.is_none_or(|(_, next)| next.iter().any(|kind| kind.direct())) {
                    nothing_left(agent);
                }
            }));
        }
    }
    if is_wanted("devices") {
        tell(attempt("devices", by_other_devices));
    }
    if !is_wanted("sockets") {
        return;
    }
    tell(attempt("sockets", || {
        let _cgroup = Cgroup::enter();
        let config = format!("[sockets]\nscope = \"host\"\n{}", config("tc", &[Kind::Least, Kind::Hash]));
        let agent = Agent::start(&net.node, &config);
        [Kind::Least, Kind::Hash].into_iter().for_each(|kind| carry(&net.node, &agent, kind));
        nothing_left(&agent);
    }));
}

/// Kinds of devices that not every kernel of those who develop has: data is carried, or it is said why not.
fn by_other_devices() {
    use devices::Kind::{Bond, Ipvlan, Veth, Vlan, Wireguard};
    for kind in [Vlan, Bond, Ipvlan, Wireguard] {
        for (backends, attach) in [(kind, "tc"), (Veth, "xdp")] {
            match carries_or_says(kind, backends, attach) {
                Outcome::Carried => {}
                // Shown, so that it can be read what was refused.
                Outcome::Refused(why) => println!("refused: {why}"),
                Outcome::Lacking(what) => panic!("{what}"),
            }
        }
    }
}

/// Runs a step; a panic is its failure.
pub fn attempt(step: &'static str, f: impl FnOnce()) -> Step {
    let start = Instant::now();
    let failed = catch_unwind(AssertUnwindSafe(f)).err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    });
    Step { step, millis: start.elapsed().as_millis().try_into().unwrap_or(u64::MAX), failed }
}

fn serve(ns: &Ns, i: usize) -> Server {
    udp::echo(ns, 53);
    decap::start(ns);
    for (kind, family) in [Kind::Dsr, Kind::Tunnel].into_iter().flat_map(|k| [(k, V4), (k, V6)]) {
        let vip = kind.vip(family);
        let (prefix, more) = if family == V4 { (32, "") } else { (128, " nodad") };
        ns.ip(&format!("addr add {vip}/{prefix} dev lo{more}"));
        udp::echo_at(ns, at(&vip, 53));
    }
    Server::start(ns, &format!("b{i}"), [80])
}

fn config(attach: &str, kinds: &[Kind]) -> String {
    let declared = |(kind, family): (&Kind, Family)| {
        let backends: Vec<String> = (0..BACKENDS).map(|i| family.backend(i)).collect();
        service(&kind.name(family), &kind.vip(family), "\"80/tcp\", \"53/udp\"", &backends, &kind.more())
    };
    let services: String = kinds.iter().flat_map(|kind| [(kind, V4), (kind, V6)]).map(declared).collect();
    let snat = "[snat]\naddresses = [\"10.1.0.1\", \"fd01::1\"]\n";
    format!("{snat}{}{services}", interfaces(&[("c0", attach), ("b*", attach)]))
}

/// Both families, whatever kind of service.
fn carry(client: &Ns, agent: &Agent, kind: Kind) {
    // The far end of a tunnel copies packets by way of raw sockets, where nobody finishes a checksum.
    let checksums = |how| {
        if kind == Kind::Tunnel {
            client.must(&format!("ethtool -K eth0 tx {how}"));
        }
    };
    checksums("off");
    carry_one(client, agent, kind, V4);
    carry_one(client, agent, kind, V6);
    checksums("on");
}

/// Connections that are open at once, each with data that is checked, and datagrams; spread as the algorithm promises, and counted.
fn carry_one(client: &Ns, agent: &Agent, kind: Kind, family: Family) {
    let (vip, name) = (kind.vip(family), kind.name(family));
    let counted = |expected: u64| {
        eventually(&format!("{name}: {expected} are counted"), LIMIT, || match agent.active(&name) {
            counts if counts.iter().sum::<u64>() == expected => Ok(counts),
            counts => Err(format!("{counts:?}")),
        })
    };
    client.run(|| {
        let mut conns: Vec<Conn> = (0..CONNECTIONS)
            .map(|i| Conn::open(at(&vip, 80)).unwrap_or_else(|e| panic!("{name}, {i}: {e}; {}", said(agent))))
            .collect();
        for conn in &mut conns {
            conn.exchange(BYTES).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let counts = counted(CONNECTIONS as u64);
        let mut heard: BTreeMap<&str, u64> = BTreeMap::new();
        conns.iter().for_each(|conn| *heard.entry(&conn.backend).or_default() += 1);
        let mut told: Vec<u64> = heard.into_values().collect();
        let mut seen: Vec<u64> = counts.iter().copied().filter(|count| *count > 0).collect();
        told.sort_unstable();
        seen.sort_unstable();
        assert_eq!(told, seen, "{name}: what the servers saw, and what is counted");
        if kind != Kind::Hash {
            assert_eq!(counts, [(CONNECTIONS / BACKENDS) as u64; BACKENDS], "{name}");
        }
        drop(conns);
        counted(0);
        let socket = udp::connect(at(&vip, 53));
        for number in 0..16 {
            udp::exchange(&socket, number, 1_000);
        }
        counted(1);
    });
}

/// No flow, no count, no drift, and the agent is content.
pub fn nothing_left(agent: &Agent) {
    eventually("no flow is left", LIMIT, || match &agent.json(&["status"])["conntrack_entries"] {
        entries if *entries == 0 => Ok(()),
        entries => Err(format!("{entries} flows")),
    });
    nothing_counted(agent);
}

fn nothing_counted(agent: &Agent) {
    eventually("nothing is counted", LIMIT, || {
        let services = agent.json(&["service", "list"]);
        let backends = services.as_array().into_iter().flatten().filter_map(|s| s["backends"].as_array());
        match backends.flatten().filter_map(|b| b["active_connections"].as_u64()).sum() {
            0_u64 => Ok(()),
            active => Err(format!("{active} connections")),
        }
    });
    let status = agent.sweeps(2);
    assert_eq!(status["accounting_drift"], 0);
    assert_eq!(status["state"], "ok", "{}", status["problems"]);
}
