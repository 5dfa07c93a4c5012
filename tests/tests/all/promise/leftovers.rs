//! Promise: what kube-proxy left on a node is listed, and removed when asked for: all of that and nothing else. What is
//! open through its rules stays open.

use std::{io::Write, net::TcpListener, process::Output, process::Stdio};

use flowpin_tests::harness::{
    Net, Ns,
    agent::binary,
    client::{Conn, at},
    netfilter::load,
    server::Server,
    topology::Family::{self, V4, V6},
};
use serde_json::Value;

/// What the kubelet, a network plugin and an operator have.
fn others(family: Family) -> String {
    let pods = if family == V4 { "10.2.0.0/16" } else { "fd02::/16" };
    format!(
        "*mangle
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:CNI-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment \"CNI firewall plugin rules\" -j CNI-FORWARD
-A CNI-FORWARD -d {pods} -j ACCEPT
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:MINE - [0:0]
-A PREROUTING -p tcp -m tcp --dport 8443 -j MINE
-A POSTROUTING -s {pods} -o wan0 -j MASQUERADE
COMMIT
"
    )
}

/// What kube-proxy has in iptables mode, for a service of backend 0.
fn kube_proxy(family: Family) -> String {
    let (vip, target) = (V4.vip(0), V4.target(0, 80));
    let (vip, target) = if family == V4 { (vip, target) } else { (family.vip(0), family.target(0, 80)) };
    format!(
        "*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-ERIFXISQEP7F7OF4 - [0:0]
:KUBE-SEP-7PGBDXTK2JA5QG4L - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SERVICES -d {vip} -p tcp -m comment --comment \"d/a cluster IP\" -m tcp --dport 80 -j KUBE-SVC-ERIFXISQEP7F7OF4
-A KUBE-SVC-ERIFXISQEP7F7OF4 -m comment --comment \"d/a -> it\" -j KUBE-SEP-7PGBDXTK2JA5QG4L
-A KUBE-SEP-7PGBDXTK2JA5QG4L -p tcp -m tcp -j DNAT --to-destination {target}
COMMIT
"
    )
}

/// The same in nftables mode.
fn kube_proxy_nft() -> String {
    let table = |family: Family, word: &str| {
        format!(
            "table {word} kube-proxy {{
  comment \"rules for kube-proxy\"
  chain service-a {{ meta l4proto tcp dnat to {2}; }}
  map service-ips {{ type ipv{0}_addr . inet_proto . inet_service : verdict; \
             elements = {{ {1} . tcp . 80 : goto service-a }}; }}
  chain services {{ {word} daddr . meta l4proto . th dport vmap @service-ips; }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain filter-forward {{ type filter hook forward priority -110; policy accept; ct state invalid drop; }}
}}
",
            if family == V4 { 4 } else { 6 },
            family.vip(0),
            family.target(0, 80),
        )
    };
    table(V4, "ip") + &table(V6, "ip6")
}

fn nft(ns: &Ns, rules: &str) {
    let mut child = ns.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
    child.stdin.take().expect("stdin").write_all(rules.as_bytes()).expect("rules");
    assert!(child.wait().expect("wait").success(), "nft refuses:\n{rules}");
}

/// All rules, without counters.
fn ruleset(ns: &Ns) -> String {
    let lines = |tool: &str| -> String {
        let text = ns.must(tool);
        let words = |line: &str| line.split(" [").next().unwrap_or_default().to_string();
        text.lines().filter(|l| !l.starts_with('#')).map(|l| words(l) + "\n").collect()
    };
    let tables = ns.must("nft list tables");
    let mut tables: Vec<&str> = tables.lines().collect();
    tables.sort_unstable();
    lines("iptables-save") + &lines("ip6tables-save") + &tables.join("\n")
}

fn cleanup(ns: &Ns, args: &[&str]) -> Output {
    let out = ns.command(binary().to_str().unwrap()).args(["cleanup", "kube-proxy"]).args(args).output();
    out.expect("it runs")
}

fn json(out: &Output) -> Value {
    let said = String::from_utf8_lossy(&out.stderr);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

fn succeeds(out: &Output) {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn all_of_it_goes_and_nothing_else() {
    let [with, without] = ["w", "o"].map(Ns::new);
    for family in [V4, V6] {
        load(&without, family, &others(family));
        load(&with, family, &others(family));
        load(&with, family, &kube_proxy(family));
    }
    nft(&with, &kube_proxy_nft());
    for ns in [&with, &without] {
        nft(ns, "table inet mine {\n chain kube-proxy {\n ct state invalid counter\n }\n}\n");
        nft(
            ns,
            "table inet cni {\n chain post { type nat hook postrouting priority 100; ip saddr 10.2.0.0/16 oifname wan0 masquerade; }\n}\n",
        );
    }
    let before = ruleset(&with);
    let out = cleanup(&with, &["-o", "json"]);
    succeeds(&out);
    assert_eq!(ruleset(&with), before, "listed only");
    let view = json(&out);
    assert_eq!(view["removed"], false);
    let found = view["leftovers"].as_array().expect("a list");
    let of = |tool: &str| found.iter().filter(|l| l["tool"] == tool).count();
    assert_eq!([of("iptables-nft"), of("ip6tables-nft"), of("nft")], [19, 19, 2], "{view:#}");
    assert!(found.iter().all(|l| l["kept"].is_null()), "{view:#}");
    let text = cleanup(&with, &[]);
    assert!(String::from_utf8_lossy(&text.stderr).contains("--yes"), "it says what removes");

    succeeds(&cleanup(&with, &["--yes"]));
    assert_eq!(ruleset(&with), ruleset(&without));
    let again = json(&cleanup(&with, &["--yes", "-o", "json"]));
    assert_eq!(again["leftovers"], Value::Array(Vec::new()));
}

#[test]
fn rules_of_others_stay_also_where_they_jump_to_its_chains() {
    let ns = Ns::new("n");
    load(&ns, V4, &others(V4));
    load(&ns, V4, &kube_proxy(V4));
    load(
        &ns,
        V4,
        "*nat\n:CNI-HOSTPORT-SETMARK - [0:0]\n-A MINE -j KUBE-SERVICES\n-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ\nCOMMIT\n",
    );
    let out = cleanup(&ns, &["--yes", "-o", "json"]);
    succeeds(&out);
    let left = ns.must("iptables-save -t nat");
    for stays in [
        "-A MINE -j KUBE-SERVICES",
        "-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ",
        "-A KUBE-MARK-MASQ -j MARK",
        "-j KUBE-POSTROUTING",
        "-A KUBE-POSTROUTING -j MASQUERADE",
    ] {
        assert!(left.contains(stays), "{stays}:\n{left}");
    }
    for goes in ["-A KUBE-SERVICES", "-A PREROUTING -m comment", "KUBE-SVC-", "KUBE-SEP-", "KUBE-NODEPORTS"] {
        assert!(!left.contains(goes), "{goes}:\n{left}");
    }
    let view = json(&out);
    let kept = view["leftovers"].as_array().unwrap().iter().filter(|l| !l["kept"].is_null());
    let names: Vec<&str> = kept.map(|l| l["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["KUBE-MARK-MASQ", "KUBE-POSTROUTING", "KUBE-SERVICES"]);
}

#[test]
fn not_while_it_runs_unless_forced() {
    let ns = Ns::new("n");
    load(&ns, V4, &kube_proxy(V4));
    let before = ruleset(&ns);
    let health = ns.run(|| TcpListener::bind("0.0.0.0:10256")).expect("a free port");
    let out = cleanup(&ns, &["--yes"]);
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("kube-proxy runs (port 10256") && said.contains("--force"), "{said}");
    assert_eq!(ruleset(&ns), before);
    assert!(json(&cleanup(&ns, &["-o", "json"]))["running"].as_str().is_some(), "a list is had all the same");
    succeeds(&cleanup(&ns, &["--yes", "--force"]));
    assert!(!ns.must("iptables-save").contains("KUBE-"));
    drop(health);
}

/// Clients whose connections go by its rules; then the rules go.
fn open_connections_stay(rules: impl Fn(&Ns)) {
    let net = Net::new(1);
    let _server = Server::start(&net.backends[0], "b0", [80]);
    rules(&net.node);
    let open = |family: Family| net.client.run(|| Conn::open(at(&family.vip(0), 80)));
    let mut conns: Vec<Conn> = [V4, V6].map(|family| open(family).expect("its rules are there")).into();
    succeeds(&cleanup(&net.node, &["--yes"]));
    for family in [V4, V6] {
        assert!(open(family).is_err(), "nobody serves {family:?} any more");
    }
    for conn in &mut conns {
        conn.exchange(1000).expect("it is open");
    }
}

#[test]
fn connections_by_rules_of_iptables_stay_open() {
    open_connections_stay(|node| {
        for family in [V4, V6] {
            load(node, family, &kube_proxy(family));
        }
    });
}

#[test]
fn connections_by_rules_of_nftables_stay_open() {
    open_connections_stay(|node| nft(node, &kube_proxy_nft()));
}
