//! What each command asks of the agent, and prints: tables for people, the contract's JSON for scripts.

use serde_json::{Value, json};

use flowpin::api::types::{ForwardBySource, ForwardDecl};

use crate::{
    fake::{Agent, frontend},
    ran::{has, keys},
};

#[test]
fn service_list_json_has_the_contracts_fields() {
    let list = Agent::new().run(&["service", "list", "-o", "json"]).json();
    let first = &list[0];
    for key in ["name", "vip", "ports", "algorithm", "backends"] {
        assert!(keys(first).contains(&key), "{key}");
    }
    assert_eq!(first["vip"], "10.96.0.10");
    assert_eq!(first["ports"], json!(["8001-8003/tcp"]));
    let b = &first["backends"][0];
    for (key, value) in [
        ("address", json!("10.0.1.11")),
        ("weight", json!(1)),
        ("state", json!("active")),
        ("healthy", json!(true)),
        ("active_connections", json!(2)),
        ("total_connections", json!(1_234_567)),
        ("packets_in", json!(10)),
        ("bytes_in", json!(1536)),
        ("packets_out", json!(20)),
        ("bytes_out", json!(3_145_728)),
    ] {
        assert_eq!(b[key], value, "{key}");
    }
}

#[test]
fn service_list_table_is_for_people() {
    let agent = Agent::new();
    let text = agent.run(&["service", "list"]).ok();
    has(&text, &["NAME", "app", "10.96.0.10", "ns/six", "fd00::10", "2,469,134"]);
    assert_eq!(text, agent.run(&["svc", "ls"]).ok(), "aliases");
    has(&Agent::empty().run(&["service", "list"]).ok(), &["flowpin service add"]);
    assert_eq!(Agent::empty().run(&["service", "list", "-o", "json"]).ok(), "[]\n");
}

#[test]
fn service_list_by_namespace() {
    let agent = Agent::new();
    let names = |args: &[&str]| -> Vec<String> {
        let list = agent.run(&[&["service", "list", "-o", "json"], args].concat()).json();
        list.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(&[]), ["app", "ns/six"]);
    for all in ["-A", "--all-namespaces"] {
        assert_eq!(names(&[all]), ["app", "ns/six"]);
    }
    for one in [&["-n", "ns"][..], &["--namespace", "ns"], &["--namespace=ns"], &["-nns"]] {
        assert_eq!(names(one), ["ns/six"]);
    }
    // Neither by a part of a namespace's name, nor by a service's.
    for none in ["n", "app", "six"] {
        assert_eq!(names(&["-n", none]), Vec::<String>::new());
        has(
            &agent.run(&["service", "list", "-n", none]).ok(),
            &[&format!("no services in namespace \"{none}\"")],
        );
    }
    let table = agent.run(&["service", "list", "-n", "ns"]).ok();
    has(&table, &["NAME", "ns/six", "fd00::10"]);
    assert!(!table.contains("10.96.0.10"), "{table}");
    has(&agent.run(&["service", "list", "-n", "ns/six"]).failed(2), &["'ns/six'", "write ns;"]);
    has(&agent.run(&["service", "list", "-n", ""]).failed(2), &["a namespace has a name"]);
    has(&agent.run(&["service", "list", "-A", "-n", "ns"]).failed(2), &["--namespace"]);
}

#[test]
fn service_add_show_remove() {
    let agent = Agent::empty();
    let add = [
        "service",
        "add",
        "ns/web",
        "--vip",
        "fd00::80",
        "--port",
        "80/tcp",
        "--port",
        "443/udp",
        "--algorithm",
        "consistent-hash",
        "--affinity",
        "client-ip",
        "--affinity-timeout",
        "3h",
        "--affinity-group",
        "g",
    ];
    let ran = agent.run(&add);
    assert_eq!(ran.err, "");
    has(&ran.ok(), &["ns/web", "fd00::80", "80/tcp, 443/udp"]);
    let sent = agent.world(|w| w.added.clone()).expect("it arrived");
    assert_eq!(
        serde_json::to_value(sent).expect("JSON"),
        json!({
            "name": "ns/web", "vip": "fd00::80", "ports": ["80/tcp", "443/udp"], "algorithm": "consistent-hash",
            "affinity": {"client_ip": true, "timeout": "3h", "group": "g"}
        })
    );
    has(&agent.run(&["service", "show", "ns/web"]).ok(), &["consistent-hash", "no backends"]);
    assert_eq!(agent.run(&["service", "show", "ns/web", "-o", "json"]).json()["name"], "ns/web");
    assert_eq!(
        agent.run(&["svc", "remove", "ns/web", "-o", "json"]).json(),
        json!({"name": "ns/web", "removed": true})
    );
    has(&agent.run(&["service", "show", "ns/web"]).failed(1), &["no service \"ns/web\""]);
    has(&agent.run(&["service", "remove", "ns/web"]).failed(1), &["no service \"ns/web\""]);
}

#[test]
fn service_add_defaults_to_least_connections() {
    let agent = Agent::empty();
    let added =
        agent.run(&["service", "add", "a", "--vip", "10.0.0.9", "--port", "1/tcp", "-o", "json"]).json();
    assert_eq!(added["algorithm"], "least-connections");
    has(
        &agent.run(&["service", "add", "a", "--vip", "10.0.0.9", "--port", "1/tcp"]).failed(1),
        &["\"a\" exists"],
    );
    has(
        &agent.run(&["service", "add", "b", "--vip", "10.0.0.256", "--port", "1/tcp"]).failed(1),
        &["10.0.0.256"],
    );
}

#[test]
fn service_add_knows_frontends() {
    let agent = Agent::empty();
    let line = "service add shop/web:http --vip 10.96.0.10 --vip fd96::10 --port 80:8080/tcp --scope local \
                --forward pod=nat,elsewhere=snat --stray pass --affinity client-ip --affinity-by port \
                --frontend address=0.0.0.0,address=::,port=30080:8080/tcp,forward=snat \
                --frontend address=192.0.2.10,scope=local,source-range=198.51.100.0/24";
    let ran = agent.run(&line.split_whitespace().collect::<Vec<_>>());
    has(&ran.ok(), &["\"shop/web:http\" added at 10.96.0.10 port 80:8080/tcp"]);
    let sent = agent.world(|w| w.added.clone()).expect("it arrived");
    assert_eq!(
        serde_json::to_value(sent).expect("JSON"),
        json!({
            "name": "shop/web:http", "vip": "10.96.0.10", "vips": ["fd96::10"], "ports": ["80:8080/tcp"],
            "scope": "local", "forward": {"pod": "nat", "elsewhere": "snat"}, "stray": "pass",
            "algorithm": "least-connections", "affinity": {"client_ip": true, "by": "port"},
            "frontends": [
                {"addresses": ["0.0.0.0", "::"], "ports": ["30080:8080/tcp"], "forward": "snat"},
                {"addresses": ["192.0.2.10"], "scope": "local", "source_ranges": ["198.51.100.0/24"]},
            ]
        })
    );
    for (args, says) in [
        ("--frontend port=80/tcp", "no address"),
        ("--frontend address=::,colour=red", "colour"),
        ("--scope near", "local"),
        ("--affinity client-ip --affinity-by port --affinity-group g", "--affinity-group"),
    ] {
        let line = format!("service add x --vip 10.0.0.1 --port 1/tcp {args}");
        has(&agent.run(&line.split_whitespace().collect::<Vec<_>>()).failed(2), &[says]);
    }
}

#[test]
fn service_show_prints_every_frontend() {
    let agent = Agent::new();
    agent.world(|w| {
        let mut second = frontend(&["0.0.0.0", "::"], &["30080:80/tcp"]);
        second.scope = "local".into();
        second.source_ranges = vec!["198.51.100.0/24".into()];
        second.deny_ranges = vec!["198.51.100.9/32".into()];
        let by = ForwardBySource { pod: None, elsewhere: Some("snat".into()) };
        second.forward = ForwardDecl::BySource(by);
        w.services[0].frontends.push(second);
        w.services[0].backends[0].local = true;
    });
    let text = agent.run(&["service", "show", "app"]).ok();
    has(
        &text,
        &["Frontend:   10.96.0.10\n", "8001-8003/tcp\n", "Frontend:   0.0.0.0, ::\n", "30080:80/tcp\n"],
    );
    has(&text, &["Scope:    local", "Sources:  198.51.100.0/24", "Denied:   198.51.100.9/32"]);
    has(&text, &["nat from pods, snat from elsewhere", "LOCAL"]);
    has(&agent.run(&["service", "list"]).ok(), &["10.96.0.10 +2"]);
    let list = agent.run(&["service", "list", "-o", "json"]).json();
    assert_eq!(list[0]["vip"], "10.96.0.10");
    assert_eq!(
        list[0]["frontends"][1],
        json!({"addresses": ["0.0.0.0", "::"], "ports": ["30080:80/tcp"], "scope": "local",
               "source_ranges": ["198.51.100.0/24"], "deny_ranges": ["198.51.100.9/32"],
               "forward": {"elsewhere": "snat"}})
    );
}

#[test]
fn the_longest_name_with_any_separators_gets_through() {
    let agent = Agent::empty();
    let name = format!("a:b/c:d/{}", "x".repeat(245));
    agent.run(&["service", "add", &name, "--vip", "10.0.0.9", "--port", "1/tcp"]).ok();
    assert_eq!(agent.run(&["service", "show", &name, "-o", "json"]).json()["name"], name.as_str());
    let local = agent.run(&["backend", "add", &name, "10.0.0.1", "--local", "-o", "json"]).json();
    assert_eq!((&local["service"], &local["local"]), (&json!(name), &json!(true)));
    has(&agent.run(&["backend", "drain", &name, "10.0.0.1"]).ok(), &["drained"]);
    agent.run(&["backend", "remove", &name, "10.0.0.1"]).ok();
    agent.run(&["service", "remove", &name]).ok();
}

#[test]
fn backend_commands_reach_ipv6_and_slashed_names() {
    let agent = Agent::new();
    let added = agent.run(&[
        "backend",
        "add",
        "ns/six",
        "[fd00::12]:5432",
        "--weight",
        "3",
        "--max-connections",
        "300",
    ]);
    has(&added.ok(), &["[fd00::12]:5432", "ns/six", "weight 3"]);
    let list = agent.run(&["backend", "list", "ns/six", "-o", "json"]).json();
    assert_eq!(list[1]["address"], "[fd00::12]:5432");
    assert_eq!(list[1]["max_connections"], 300);
    assert_eq!(list[1]["service"], "ns/six");
    has(&agent.run(&["be", "drain", "ns/six", "[fd00::12]:5432"]).ok(), &["drained: 0 connections left"]);
    has(&agent.run(&["be", "undrain", "ns/six", "[fd00::12]:5432"]).ok(), &["new connections again"]);
    has(&agent.run(&["be", "remove", "ns/six", "[fd00::12]:5432"]).ok(), &["removed"]);
    has(&agent.run(&["be", "remove", "ns/six", "[fd00::12]:5432"]).failed(1), &["[fd00::12]:5432"]);
}

#[test]
fn backend_list_shows_all_or_one_service() {
    let agent = Agent::new();
    has(
        &agent.run(&["backend", "list"]).ok(),
        &["SERVICE", "app", "10.0.1.12:5432", "ns/six", "[fd00::11]:5432"],
    );
    assert!(!agent.run(&["backend", "list", "app"]).ok().contains("fd00"));
    assert_eq!(agent.run(&["backend", "list", "-o", "json"]).json().as_array().map(Vec::len), Some(3));
    has(&agent.run(&["backend", "list", "nope"]).failed(1), &["nope"]);
}

#[test]
fn bad_numbers_are_named_by_the_agent() {
    let agent = Agent::new();
    for weight in ["65536", "-1"] {
        let line = agent.run(&["backend", "add", "app", "10.0.1.13", "--weight", weight]).failed(1);
        has(&line, &[&format!("weight {weight}"), "1 to 65535"]);
    }
}

#[test]
fn connection_list_has_the_contracts_fields_and_passes_filters_on() {
    let agent = Agent::new();
    let filters = [
        "--service",
        "ns/six",
        "--backend",
        "[fd00::11]:8001",
        "--client",
        "2001:db8::7",
        "--state",
        "established",
    ];
    let list = agent.run(&[&["connection", "list", "-o", "json"], &filters[..]].concat()).json();
    let mut names = keys(&list[0]);
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "age_seconds",
            "backend",
            "bytes_in",
            "bytes_out",
            "client",
            "idle_seconds",
            "packets_in",
            "packets_out",
            "protocol",
            "service",
            "state",
            "vip"
        ]
    );
    assert_eq!(list[0]["age_seconds"], 11_520.5);
    let filter = agent.world(|w| w.query.clone()).expect("it arrived");
    assert_eq!(filter.service.as_deref(), Some("ns/six"));
    assert_eq!(filter.backend.as_deref(), Some("[fd00::11]:8001"));
    assert_eq!(filter.client.as_deref(), Some("2001:db8::7"));
    assert_eq!(filter.state.as_deref(), Some("established"));
    agent.run(&["conn", "list", "--sort", "idle", "--limit", "20"]).ok();
    let query = agent.world(|w| w.query.clone()).expect("it arrived");
    assert_eq!((query.sort.as_deref(), query.limit), (Some("idle"), Some(20)));
    has(&agent.run(&["conn", "list", "--sort", "name"]).failed(2), &["name", "age", "bytes"]);
    has(&agent.run(&["conn", "list"]).ok(), &["CLIENT", "[2001:db8::7]:40000", "3h12m", "1.50 KiB"]);
    assert_eq!(agent.run(&["conn", "list", "--client", "192.0.2.99"]).ok(), "no connections\n");
    has(&agent.run(&["conn", "list", "--state", "open"]).failed(2), &["open", "syn-sent"]);
}

#[test]
fn status_tells_good_from_bad() {
    let agent = Agent::new();
    has(&agent.run(&["status"]).ok(), &["ok", "xdp-native", "3h12m", "512 of 1,024 flows (50.0 %)"]);
    assert_eq!(agent.run(&["status", "-o", "json"]).json()["uptime_seconds"], 11_520.0);
    agent.world(|w| w.problems = vec!["eth0: no such device".into(), "another".into()]);
    let ran = agent.run(&["status"]);
    has(&ran.out, &["degraded", "Problem:     eth0: no such device", "Problem:     another"]);
    has(&ran.failed(1), &["degraded: eth0: no such device", "1 more"]);
    let ran = agent.run(&["status", "-o", "json"]);
    let view: Value = serde_json::from_str(&ran.out).expect("JSON in spite of it");
    assert_eq!((ran.code, &view["problems"][1]), (1, &json!("another")));
}

#[test]
fn stats_show_counters_and_drops() {
    let agent = Agent::new();
    let text = agent.run(&["stats"]).ok();
    has(&text, &["10.0.1.11", "3.00 MiB", "(all)", "no_backend", "add a backend"]);
    assert!(!text.contains("stray"), "zeros are left out");
    let view = agent.run(&["stats", "-o", "json"]).json();
    assert_eq!(view["drops"], json!({"no_backend": 3, "stray": 0}));
    assert_eq!(view["services"][0]["backends"][0]["bytes_in"], 1536);
}

#[test]
fn connection_close_passes_on_what_is_to_be_closed() {
    let agent = Agent::new();
    let args = ["connection", "close", "--service", "ns/six", "--idle-for", "6h", "--rate", "50"];
    let ran = agent.run(&args);
    has(&ran.ok(), &["1,234 connections closed"]);
    let close = agent.world(|w| w.close.clone()).expect("it arrived");
    assert_eq!(close.filter.service.as_deref(), Some("ns/six"));
    assert_eq!((close.idle_seconds, close.rate), (Some(21_600), Some(50)));
    assert_eq!(agent.run(&["conn", "close", "--client", "192.0.2.7", "-o", "json"]).json()["closed"], 1_234);
    has(&agent.run(&["conn", "close"]).failed(1), &["name something"]);
    has(&agent.run(&["conn", "close", "--client", "192.0.2.7", "--rate", "0"]).failed(2), &["--rate"]);
}

#[test]
fn events_are_a_line_each() {
    let agent = Agent::empty();
    let late = agent.run(&["events"]).ok();
    assert!(late.lines().count() == 1 && late.contains("drain") && late.contains("app  10.0.0.1"), "{late}");
    let all = agent.run(&["events", "-f"]).ok();
    has(
        &all,
        &["tcp 192.0.2.7:40000 -> 10.96.0.10:80 -> 10.0.0.1  finished after 1m1s, 1.50 KiB in, 0 B out"],
    );
    let json = agent.run(&["events", "--follow", "-o", "json"]).ok();
    let kinds: Vec<String> = json
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("a line of JSON")["kind"].to_string())
        .collect();
    assert_eq!(kinds, ["\"drain\"", "\"close\""]);
}

#[test]
fn explanations_name_the_backend_and_the_reason() {
    let agent = Agent::empty();
    let text = agent.run(&["explain", "192.0.2.7", "10.96.0.10:80"]).ok();
    has(
        &text,
        &[
            "192.0.2.7 -> 10.96.0.10:80 (service \"app\"): 10.0.0.1\nit has the fewest connections",
            "TAKES NEW   ACTIVE   OTHERS",
            "yes              3        4",
        ],
    );
    let json = agent.run(&["explain", "[fd00::7]:40000", "[fd00::10]:80", "-o", "json"]).json();
    assert_eq!(json["client"], "[fd00::7]:40000");
    assert!(!text.contains("Kubernetes") && json.get("kubernetes").is_none(), "it is no cluster's");
    let cluster = ["explain", "192.0.2.7", "10.96.0.20:80"];
    has(
        &agent.run(&cluster).ok(),
        &[
            "Kubernetes:  Service shop/app, port \"http\", by its cluster IP\n",
            "Policy:      internalTrafficPolicy is Cluster: endpoints of all nodes\n",
            "Hints:       followed: endpoints that are for zone \"a\"\n\nENDPOINT",
            "zone a, zone b, other nodes",
            "ready, for this zone",
        ],
    );
    let json = agent.run(&[&cluster[..], &["-o", "json"]].concat()).json();
    let endpoint = &json["kubernetes"]["endpoints"][0];
    assert_eq!((&endpoint["ready"], &endpoint["for_this_node"]), (&true.into(), &false.into()), "{json}");
    has(&agent.run(&["explain", "192.0.2.7"]).failed(2), &["VIP:PORT"]);
}

#[test]
fn top_wants_a_terminal() {
    has(&Agent::empty().run(&["top"]).failed(1), &["top needs a terminal", "flowpin stats -o json"]);
}
