//! Promise: whoever the client and wherever the backend, each way of forwarding carries their data, or the configuration is refused.
//!
//! ```text
//! outside 10.1.0.2 ─ o0 ┐          ┌ h0 ─ 10.2.0.2 here
//!                       ├── node ──┼ r0 ─ router ─ 10.5.0.2 routed away
//! pod     10.3.0.2 ─ p0 ┘          └ s0 ─ switch ─ 10.6.0.2 on the segment
//! ```

use std::{collections::BTreeMap, time::Duration};

use flowpin_tests::harness::{
    Agent, Cgroup, Ns,
    agent::{interfaces, service},
    client::{Conn, at},
    decap, eventually,
    paths::workspace,
    server::Server,
    topology::{
        Family::{self, V4, V6},
        can_solicit,
    },
    udp,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: [&str; 4] = ["outside", "pod here", "host process", "backend itself"];
const PLACES: [&str; 3] = ["here", "routed away", "on the segment"];
const FORWARDS: [&str; 4] = ["nat", "snat", "dsr-l2", "dsr-ipip"];
const SNAT: &str = "[snat]\naddresses = [\"10.2.0.1\", \"fd02::1\"]\n";

struct World {
    outside: Ns,
    pod: Ns,
    node: Ns,
    backends: [Ns; 3],
    _between: [Ns; 2],
    _servers: Vec<Server>,
}

/// A veth pair between two namespaces, with an address of network `number` at each end.
fn link(near: (&Ns, &str), far: (&Ns, &str), number: u8) {
    near.0.ip(&format!("link add {} type veth peer name {} netns {}", near.1, far.1, far.0.name));
    for ((ns, name), host) in [(near, 1), (far, 2)] {
        ns.ip(&format!("addr add 10.{number}.0.{host}/24 dev {name}"));
        ns.ip(&format!("addr add fd0{number}::{host}/64 dev {name} nodad"));
        ns.ip(&format!("link set {name} up"));
    }
}

fn default_way(ns: &Ns, number: u8) {
    ns.ip(&format!("route add default via 10.{number}.0.1"));
    ns.ip(&format!("route add default via fd0{number}::1"));
}

fn vip(forward: usize, place: usize, family: Family) -> String {
    match family {
        V4 => format!("10.96.{forward}.{}", 10 + place),
        V6 => format!("fd96:{forward:x}::{:x}", 16 + place),
    }
}

fn backend(place: usize, family: Family) -> String {
    let number = [2, 5, 6][place];
    match family {
        V4 => format!("10.{number}.0.2"),
        V6 => format!("fd0{number}::2"),
    }
}

fn name(forward: usize, place: usize, family: Family) -> String {
    let family = if family == V4 { "v4" } else { "v6" };
    format!("{}-{}-{family}", FORWARDS[forward], PLACES[place].replace(' ', "-"))
}

/// Can it be declared? By layer 2 nobody is reached who is behind a router.
fn possible(forward: usize, place: usize) -> bool {
    (FORWARDS[forward], PLACES[place]) != ("dsr-l2", "routed away")
}

fn declared(forward: usize, place: usize, family: Family) -> String {
    let more = format!("forward = \"{}\"\ntimeouts = {{ udp = \"1s\" }}", FORWARDS[forward]);
    let (vip, backend) = (vip(forward, place, family), backend(place, family));
    service(&name(forward, place, family), &vip, "\"80/tcp\", \"53/udp\"", &[backend], &more)
}

fn cells() -> impl Iterator<Item = (usize, usize, Family)> {
    let places = (0..FORWARDS.len()).flat_map(|forward| (0..PLACES.len()).map(move |place| (forward, place)));
    places.flat_map(|(forward, place)| [V4, V6].map(|family| (forward, place, family)))
}

/// `sockets`: what `[sockets]` says.
fn config(sockets: &str, attach: &str) -> String {
    let services = cells().filter(|(forward, place, _)| possible(*forward, *place));
    let services: String = services.map(|(f, p, family)| declared(f, p, family)).collect();
    let all = [("o0", attach), ("p0", attach), ("h0", "tc"), ("r0", "tc"), ("s0", "tc")];
    format!("[sockets]\n{sockets}\n{SNAT}{}{services}", interfaces(&all))
}

impl World {
    fn new() -> Self {
        let (outside, pod, node) = (Ns::lenient("o"), Ns::lenient("p"), Ns::lenient("n"));
        let (router, switch) = (Ns::lenient("r"), Ns::lenient("s"));
        let backends = ["h", "a", "g"].map(Ns::lenient);
        for ns in [&node, &router] {
            ns.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        }
        link((&node, "o0"), (&outside, "eth0"), 1);
        link((&node, "h0"), (&backends[0], "eth0"), 2);
        link((&node, "p0"), (&pod, "eth0"), 3);
        link((&node, "r0"), (&router, "eth0"), 4);
        link((&router, "eth1"), (&backends[1], "eth0"), 5);
        default_way(&outside, 1);
        default_way(&backends[0], 2);
        default_way(&pod, 3);
        default_way(&router, 4);
        default_way(&backends[1], 5);
        node.ip("route add 10.5.0.0/24 via 10.4.0.2");
        node.ip("route add fd05::/64 via fd04::2");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        for (host, ns, name, port) in [(1, &node, "s0", "port1"), (2, &backends[2], "eth0", "port2")] {
            switch.ip(&format!("link add {port} type veth peer name {name} netns {}", ns.name));
            switch.ip(&format!("link set {port} master br0 up"));
            ns.ip(&format!("addr add 10.6.0.{host}/24 dev {name}"));
            ns.ip(&format!("addr add fd06::{host}/64 dev {name} nodad"));
            ns.ip(&format!("link set {name} up"));
        }
        default_way(&backends[2], 6);
        for ns in backends.iter().chain([&outside, &pod]) {
            can_solicit(ns);
            ns.must("ethtool -K eth0 gro on");
        }
        for ns in [&outside, &pod] {
            // The test's own end of the tunnel copies packets by way of raw sockets, where nobody finishes a checksum.
            ns.must("ethtool -K eth0 tx off");
        }
        can_solicit(&node);
        can_solicit(&router);
        let servers = backends.iter().zip(0..).map(|(ns, place)| serve(ns, place)).collect();
        Self { outside, pod, node, backends, _between: [router, switch], _servers: servers }
    }

    fn client(&self, client: usize, place: usize) -> &Ns {
        match client {
            0 => &self.outside,
            1 => &self.pod,
            2 => &self.node,
            _ => &self.backends[place],
        }
    }
}

/// A backend has the VIPs itself whose clients it answers directly.
fn serve(ns: &Ns, place: usize) -> Server {
    udp::echo(ns, 53);
    decap::start(ns);
    for (forward, _, family) in cells().filter(|(f, p, _)| *p == place && FORWARDS[*f].starts_with("dsr")) {
        let vip = vip(forward, place, family);
        let (prefix, more) = if family == V4 { (32, "") } else { (128, " nodad") };
        ns.ip(&format!("addr add {vip}/{prefix} dev lo{more}"));
        udp::echo_at(ns, at(&vip, 53));
    }
    Server::start(ns, PLACES[place], [80])
}

/// A mebibyte each way by TCP, and one by UDP; counted meanwhile, unless the client has the VIP itself.
fn carry(ns: &Ns, agent: &Agent, (forward, place, family): (usize, usize, Family), counted: u64) {
    let (vip, name) = (vip(forward, place, family), name(forward, place, family));
    // The datagrams of the client before count until they are forgotten.
    eventually(&format!("{name}: unused"), LIMIT, || match agent.active(&name) {
        counts if counts.iter().sum::<u64>() == 0 => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
    ns.run(|| {
        let mut conn = Conn::open(at(&vip, 80)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(conn.backend, PLACES[place]);
        for _ in 0..16 {
            conn.exchange(65_536).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let socket = udp::connect(at(&vip, 53));
        for number in 0..1024 {
            udp::exchange(&socket, number, 1024);
        }
        // In fragments.
        for number in 0..4 {
            udp::exchange(&socket, number, 8_000);
        }
        assert_eq!(
            agent.active(&name).iter().sum::<u64>(),
            2 * counted,
            "{name}: {}",
            agent.json(&["connection", "list", "--service", &name])
        );
    });
    eventually(&format!("{name}: closed"), LIMIT, || match agent.active(&name) {
        counts if counts.iter().sum::<u64>() <= counted => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
}

fn all_zero(agent: &Agent) {
    eventually("nothing counts", LIMIT, || {
        let services = agent.json(&["service", "list"]);
        let left: Vec<String> = services
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["backends"][0]["active_connections"] != 0)
            .map(|s| s["name"].to_string())
            .collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
    assert_eq!(agent.sweeps(3)["accounting_drift"], 0);
}

/// Fills the matrix: by client and place, what each way of forwarding came to.
fn fill(attach: &str) -> BTreeMap<(usize, usize), [&'static str; 5]> {
    let cgroup = Cgroup::enter();
    let world = World::new();
    let host = "scope = \"host\"";
    let mut agent = Agent::start(&world.node, &config(host, attach));
    let mut matrix: BTreeMap<(usize, usize), [&str; 5]> = BTreeMap::new();
    for (client, whose) in CLIENTS.into_iter().enumerate() {
        for (forward, place, family) in cells() {
            let cell = &mut matrix.entry((client, place)).or_default()[forward];
            if !possible(forward, place) {
                *cell = "refused";
                continue;
            }
            let itself = whose == "backend itself" && FORWARDS[forward].starts_with("dsr");
            let counted = u64::from(!itself);
            carry(world.client(client, place), &agent, (forward, place, family), counted);
            *cell = match (whose, itself) {
                ("host process", _) => "yes, socket",
                (_, true) => "yes, by itself",
                _ => "yes",
            };
        }
    }
    all_zero(&agent);
    let before = agent.json(&["service", "list"]);
    let refused: Vec<String> =
        cells().filter(|(f, p, _)| !possible(*f, *p)).map(|(f, p, family)| declared(f, p, family)).collect();
    for more in refused {
        agent.write_config(&(config(host, attach) + &more));
        agent.signal(Signal::SIGHUP);
        eventually("the file is refused", LIMIT, || {
            let problems = agent.json(&["status"])["problems"].to_string();
            let why = "not on a segment of this node; dsr-l2 can't get there";
            if problems.contains(why) { Ok(()) } else { Err(problems) }
        });
        assert_eq!(
            agent.json(&["service", "list"]).as_array().unwrap().len(),
            before.as_array().unwrap().len()
        );
    }
    agent.end(Signal::SIGTERM);
    let all = format!("scope = \"all\"\ncgroup = \"{}\"", cgroup.path().display());
    agent.write_config(&config(&all, attach));
    agent.up();
    for (client, whose) in CLIENTS.into_iter().enumerate() {
        for place in 0..PLACES.len() {
            let cell = &mut matrix.entry((client, place)).or_default()[4];
            if whose == "outside" {
                // No process of this node's: its packets go the service's way.
                *cell = "as nat";
                continue;
            }
            for family in [V4, V6] {
                carry(world.client(client, place), &agent, (0, place, family), 1);
            }
            *cell = "yes";
        }
    }
    all_zero(&agent);
    matrix
}

fn shown(matrix: &BTreeMap<(usize, usize), [&str; 5]>) -> String {
    let head =
        "| client | backend | nat | snat | dsr-l2 | dsr-ipip | socket |\n|---|---|---|---|---|---|---|\n";
    let row = |((client, place), cells): (&(usize, usize), &[&str; 5])| {
        format!("| {} | {} | {} |\n", CLIENTS[*client], PLACES[*place], cells.join(" | "))
    };
    head.to_string() + &matrix.iter().map(row).collect::<String>()
}

#[test]
fn by_tc() {
    let table = shown(&fill("tc"));
    println!("{table}");
    let file = "docs/forwarding.md";
    let text = std::fs::read_to_string(workspace().join(file)).expect(file);
    assert!(text.contains(&table), "{file} doesn't have this table:\n{table}");
}

#[test]
fn by_tc_past_the_stack() {
    let table = shown(&fill("peer"));
    assert_eq!(table, shown(&fill("xdp")), "by XDP, which leaves what goes past the node to TC");
}
