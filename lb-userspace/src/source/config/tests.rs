use super::{read::cpus, *};
use std::{path::Path, time::Duration};

use lb_common::flow_table::default_flows;

use crate::{
    model::{ForwardKind, Forwarding, HealthSpec, Probe, TimeoutSpec},
    source::merge::alone,
};

const CONTRACT: &str = r#"
[agent]
api_socket = "/run/flowpin/api.sock"
metrics_listen = "127.0.0.1:9479"
pin_dir = "/sys/fs/bpf/flowpin"
state_file = "/var/lib/flowpin/state.json"
[conntrack]
max_flows = 1048576
[[interface]]
match = "eth0"
attach = "xdp"
[[interface]]
match = "veth*"
attach = "tc"
[[service]]
name = "app"
vip = "10.96.0.10"
ports = ["8001-8003/tcp"]
algorithm = "least-connections"
affinity = { client_ip = true, timeout = "3h", group = "app" }
timeouts = { idle = "15h", client_request = "60s", backend_response = "60s" }
health = { type = "tcp", interval = "2s", timeout = "1s", rise = 2, fall = 3 }
slow_start = "30s"
[[service.backend]]
address = "10.0.1.11"
weight = 1
max_connections = 300
"#;

/// What is wrong, with the file or with a service of it.
fn refusal(text: &str) -> String {
    match parse(text, "f.toml") {
        Err(error) => error.to_string(),
        Ok(config) => alone(&config).1.first().expect("must be refused").error.clone(),
    }
}

/// The first service.
fn first(config: &Config) -> &ServiceSpec {
    config.services[0].spec.as_ref().expect("it is valid")
}

fn with(from: &str, to: &str) -> String {
    assert!(CONTRACT.contains(from));
    CONTRACT.replacen(from, to, 1)
}

#[test]
fn every_key_is_taken() {
    let config = parse(CONTRACT, "f.toml").unwrap();
    let minute = Some(Duration::from_secs(60));
    let idle = Some(Duration::from_secs(15 * 3600));
    assert_eq!(
        first(&config).timeouts,
        TimeoutSpec { idle, client_request: minute, backend_response: minute, ..Default::default() }
    );
    let affinity = first(&config).affinity.as_ref().expect("it is declared");
    assert_eq!((affinity.timeout, affinity.group.as_deref()), (Duration::from_secs(10_800), Some("app")));
    assert_eq!((affinity.ipv6_prefix, affinity.bound), (128, None));
    assert_eq!(first(&config).backends["10.0.1.11"].max_connections, Some(300));
    assert!(config.interfaces[1].matcher.is_match("veth12ab", None));
    assert!(!config.interfaces[0].matcher.is_match("eth01", None));
    assert!(first(&config).warnings().is_empty());
    let second = Duration::from_secs(1);
    assert_eq!(
        first(&config).health,
        Some(HealthSpec {
            probe: Probe::Tcp,
            port: None,
            interval: 2 * second,
            timeout: second,
            rise: 2,
            fall: 3,
            passive: true,
            panic: 0
        })
    );
    assert_eq!(first(&config).slow_start, Some(30 * second));
}

#[test]
fn nothing_means_defaults() {
    let config = load(None).unwrap();
    assert!(config.flows_by_default);
    assert_eq!(config.max_flows, default_flows(cpus()));
    assert_eq!(config.pin_dir, Path::new("/sys/fs/bpf/flowpin"));
}

#[test]
fn beside_a_cluster_interfaces_are_found_unless_they_are_named() {
    let found = parse("[kubernetes]", "f.toml").unwrap();
    let role = |name: &str, found_as| found.rule(name, found_as).map(InterfaceRule::role);
    assert_eq!(role("eth0", Some(Role::Uplink)), Some(Role::Uplink));
    assert_eq!(role("cali12ab", Some(Role::Pod)), Some(Role::Pod));
    assert_eq!(role("lo", None), None);
    assert!(found.interfaces.iter().all(|rule| rule.attach == Attach::Tc && rule.literal().is_none()));
    let named = parse("[kubernetes]\n[[interface]]\nmatch = \"eth0\"\nattach = \"xdp\"", "f.toml").unwrap();
    assert!(named.rule("eth1", Some(Role::Uplink)).is_none());
    assert_eq!(named.interfaces[0].literal(), Some("eth0"));
    assert!(parse("", "f.toml").unwrap().interfaces.is_empty());
}

#[test]
fn n3_node_ports_at_localhost_take_sockets() {
    let text = |scope: &str, words: &str| {
        format!("[sockets]\nscope = \"{scope}\"\n[kubernetes]\nnode_port_addresses = [{words}]\n")
    };
    for words in ["\"localhost\"", "\"primary\", \"localhost\"", "\"0.0.0.0/0\", \"127.0.0.0/8\""] {
        let error = refusal(&text("off", words));
        assert!(error.contains("write scope = \"host\" in [sockets], or leave localhost out"), "{error}");
        for scope in ["host", "all"] {
            assert!(parse(&text(scope, words), "f.toml").is_ok(), "{words}");
        }
    }
    assert!(parse(&text("off", "\"primary\", \"all\""), "f.toml").is_ok());
    let error = refusal(&text("host", "\"secondary\""));
    assert!(error.contains("kubernetes.node_port_addresses: \"secondary\" is not a prefix"), "{error}");
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let text = refusal(&with("weight = 1", "wieght = 1"));
    assert!(text.starts_with("line 26: unknown field `wieght`"), "{text}");
    assert!(refusal("[agnet]").contains("unknown field `agnet`"));
    assert!(refusal(&with("rise = 2", "raise = 2")).contains("unknown field `raise`"));
    assert!(refusal("x = [").contains("f.toml: line 1"));
}

#[test]
fn bad_values_are_named() {
    for (from, to, expect) in [
        ("10.96.0.10", "10.96.0", "\"10.96.0\" is not an address"),
        ("8001-8003/tcp", "8003-8001/tcp", "runs backwards"),
        ("8001-8003/tcp", "0/tcp", "port 0 is not a port"),
        ("least-connections", "random", "algorithm \"random\" is not known"),
        ("idle = \"15h\"", "idle = \"21days\"", "timeouts.idle \"21days\""),
        ("idle = \"15h\"", "idle = \"soon\"", "timeouts.idle \"soon\""),
        ("type = \"tcp\"", "type = \"icmp\"", "health.type \"icmp\""),
        ("backend_response = \"60s\"", "backend_response = \"2h\"", "from 1s to 30min"),
        ("client_ip = true", "client_ip = true, ipv6_prefix = 129", "affinity.ipv6_prefix \"129\""),
        ("client_ip = true", "client_ip = true, bound = 0", "affinity.bound \"0\""),
        ("group = \"app\"", "group = \"a b\"", "\"a b\""),
        ("weight = 1", "weight = 65536", "weight 65536"),
        ("weight = 1", "weight = -1", "weight -1"),
        ("\"10.0.1.11\"", "\"fd00::1\"", "not of the VIP's family"),
        ("1048576", "12", "max_flows 12 is out of range"),
        ("[agent]", "[agent]\nhash_seed = \"12\"", "agent.hash_seed \"12\" is not 16 hexadecimal digits"),
        ("[agent]", "[agent]\nhash_seed = \"+123456789abcdef\"", "agent.hash_seed"),
        ("127.0.0.1:9479", "9479", "metrics_listen \"9479\""),
        ("veth*", "eth0", "\"eth0\" is declared twice"),
        ("veth*", "veth[", "\"veth[\" is not a name or glob"),
        ("attach = \"tc\"", "attach = \"tcx\"", "unknown variant `tcx`"),
    ] {
        let text = refusal(&with(from, to));
        assert!(text.contains(expect) && !text.contains('\n'), "{from} -> {to}: {text}");
    }
}

#[test]
fn numbers_at_their_ends() {
    // What TOML has and JSON hasn't, and what no number of ours is.
    let odd = ["nan", "-nan", "inf", "-inf", "1e308", "-1e308", "5e-324", "-1", "9223372036854775808"];
    let ends = ["9223372036854775807", "-9223372036854775808", "0x7fffffffffffffff", "18446744073709551616"];
    for (from, key) in [
        ("timeout = \"3h\"", "timeout"),
        ("idle = \"15h\"", "idle"),
        ("client_request = \"60s\"", "client_request"),
        ("backend_response = \"60s\"", "backend_response"),
        ("interval = \"2s\"", "interval"),
        ("timeout = \"1s\"", "timeout"),
        ("slow_start = \"30s\"", "slow_start"),
        ("rise = 2", "rise"),
        ("fall = 3", "fall"),
        ("weight = 1", "weight"),
        ("max_connections = 300", "max_connections"),
        ("max_flows = 1048576", "max_flows"),
    ] {
        for value in odd.into_iter().chain(ends) {
            let text = refusal(&with(from, &format!("{key} = {value}")));
            assert!(!text.contains('\n') && !text.is_empty(), "{key} = {value}: {text}");
        }
        // Nor what would be one if it were added up.
        if from.contains('"') {
            for value in
                ["584942417355years", "18446744073709551615s", "99999999999999999999s", "1e308s", "", "-1s"]
            {
                let text = refusal(&with(from, &format!("{key} = \"{value}\"")));
                assert!(text.contains(&format!("\"{value}\"")), "{key} = {value}: {text}");
            }
        }
    }
    for listen in ["127.0.0.1:0", "127.0.0.1:65536", "[::1]:0", "127.0.0.1:-1", "127.0.0.1"] {
        let text = refusal(&with("127.0.0.1:9479", listen));
        assert!(text.contains(&format!("\"{listen}\"")) && text.contains("from 1 to 65535"), "{text}");
    }
}

#[test]
fn one_service_more_than_the_maps_hold() {
    let text: String = (0..16_001)
        .map(|i| {
            format!("[[service]]\nname='s{i}'\nvip='10.100.{}.{}'\nports=['80/tcp']\n", i / 256, i % 256)
        })
        .collect();
    assert!(refusal(&text).contains("16001 services are too many; the limit is 16000"));
}

#[test]
fn source_nat_needs_no_address_that_is_given() {
    let snat = with("slow_start", "forward = \"snat\"\nslow_start");
    let config = parse(&snat, "f.toml").unwrap();
    assert_eq!(first(&config).frontends[0].forward, Forwarding::all(ForwardKind::Snat));
    assert_eq!((config.snat.addresses.len(), config.snat.ports), (0, 1024..=29_999));
    let given = format!("[snat]\naddresses = [\"10.0.0.5\"]\nports = \"2000-2999\"\n{snat}");
    assert_eq!(parse(&given, "f.toml").unwrap().snat.ports, 2000..=2999);
    let error = refusal(&with("slow_start", "forward = \"dsr\"\nslow_start"));
    assert!(error.contains("forward \"dsr\" is not known; use nat, snat, dsr-l2 or dsr-ipip"), "{error}");
}

#[test]
fn frontends_and_backends_of_both_families() {
    let text = r#"
        [[service]]
        name = "shop/web:http"
        vips = ["10.96.0.10", "fd96::10"]
        ports = ["80:8080/tcp"]
        scope = "all"
        stray = "pass"
        affinity = { by = "port" }
        [[service.frontend]]
        addresses = ["0.0.0.0", "::"]
        ports = ["30080:8080/tcp"]
        forward = "snat"
        [[service.frontend]]
        addresses = ["192.0.2.10"]
        scope = "local"
        source_ranges = ["198.51.100.0/24"]
        forward = { pod = "snat" }
        [[service.backend]]
        address = "10.0.1.11"
        local = true
        [[service.backend]]
        address = "fd00::11"
    "#;
    let config = parse(text, "f.toml").unwrap();
    let service = first(&config);
    assert!(service.affinity.as_ref().is_some_and(|affinity| affinity.by_port));
    let shown: Vec<_> =
        service.frontends.iter().map(|f| (f.addresses.len(), f.scope.name(), f.sources.len())).collect();
    assert_eq!(shown, [(2, "all", 0), (2, "all", 0), (1, "local", 1)]);
    assert_eq!(
        service.frontends[2].forward,
        Forwarding { pod: ForwardKind::Snat, elsewhere: ForwardKind::Nat }
    );
    assert_eq!(service.backends.values().map(|b| b.local).collect::<Vec<_>>(), [true, false]);
    for (from, to, says) in [
        (
            "scope = \"local\"",
            "scope = \"near\"",
            "scope \"near\" is not known; use all, local or local-only",
        ),
        ("scope = \"local\"", "scpoe = \"local\"", "unknown field `scpoe`"),
        ("forward = { pod", "forward = { pods", "pod = \"nat\""),
        ("addresses = [\"192.0.2.10\"]", "addresses = [\"10.96.0.10\"]", "overlap at 10.96.0.10"),
        ("by = \"port\"", "by = \"port\", group = \"g\"", "not both"),
        ("\"fd00::11\"", "\"127.0.0.1\"", "127.0.0.1 can't be reached"),
        ("\"fd00::11\"", "\"::1\"", "::1 can't be reached"),
        ("vips = [\"10.96.0.10\", \"fd96::10\"]", "", "no address"),
    ] {
        assert!(text.contains(from));
        let error = refusal(&text.replacen(from, to, 1));
        assert!(error.contains(says) && !error.contains('\n'), "{from} -> {to}: {error}");
    }
}

#[test]
fn an_interface_can_be_fast() {
    let config = parse(&with("attach = \"tc\"", "attach = \"tc\"\nfast = true"), "f.toml").unwrap();
    assert_eq!(config.interfaces.iter().map(|i| i.fast).collect::<Vec<_>>(), [Fast::Off, Fast::Stack]);
    let config = parse(&with("attach = \"tc\"", "attach = \"tc\"\nfast = \"peer\""), "f.toml").unwrap();
    assert_eq!(config.interfaces[1].fast, Fast::Peer);
    for bad in ["\"pear\"", "1"] {
        let text = format!("attach = \"tc\"\nfast = {bad}");
        let error = parse(&with("attach = \"tc\"", &text), "f.toml").unwrap_err().to_string();
        assert!(error.contains("use true, false or \"peer\""), "{error}");
    }
}

#[test]
fn whose_sockets() {
    let sockets = |text: &str| parse(&(text.to_string() + &with("", "")), "f.toml").map(|c| c.sockets);
    assert_eq!(sockets("").unwrap().scope, SocketScope::Off);
    let spec = sockets("[sockets]\nscope = \"host\"\ncgroup = \"/cg\"\n").unwrap();
    assert_eq!((spec.scope, spec.cgroup), (SocketScope::Host, Some("/cg".into())));
    let error = sockets("[sockets]\nscope = \"pods\"\n").unwrap_err().to_string();
    assert!(error.contains("pods") && error.contains("host"), "{error}");
}

#[test]
fn what_direct_server_return_cannot_do() {
    let direct = |more: &str| {
        let service =
            "[[service]]\nname = \"s\"\nvip = \"10.96.0.1\"\nports = [\"80/tcp\"]\nforward = \"dsr-ipip\"\n";
        parse(&format!("{service}{more}"), "f.toml").unwrap().services[0].spec.clone().map(|_| ())
    };
    let backend = |address: &str| format!("[[service.backend]]\naddress = \"{address}\"\n");
    assert_eq!(direct(&backend("10.2.0.2")), Ok(()));
    assert_eq!(direct(&backend("10.2.0.2:80")), Ok(()), "the service's own port, said twice");
    let error = direct(&backend("10.2.0.2:8080")).unwrap_err();
    assert!(
        error.contains("10.2.0.2:8080") && error.contains("dsr-ipip") && error.contains("leave it out"),
        "{error}"
    );
    let error = direct("timeouts = { backend_response = \"5s\" }\n").unwrap_err();
    assert!(error.contains("backend_response") && error.contains("leave it out"), "{error}");
}

mod exec;

#[test]
fn where_lines_of_connections_go() {
    let log =
        |text: &str| parse(text, "f.toml").map(|config| config.log.map(|log| log.connections.to_string()));
    assert_eq!(log("").expect("defaults"), None);
    assert_eq!(log("[log]\n").expect("nowhere"), None);
    let said = log("[log]\nconnections = \"/var/log/c.log\"\n").expect("a file");
    assert_eq!(said.as_deref(), Some("/var/log/c.log"));
    let error = refusal("[log]\nconnections = \"c.log\"\n");
    assert!(
        error.contains("f.toml") && error.contains("\"c.log\"") && error.contains("write /var"),
        "{error}"
    );
    assert!(
        refusal("[log]\nconnection = \"journald\"\n").contains("connections"),
        "unknown keys are refused"
    );
    let node = "[kubernetes]\nnode = \"n1\"\n[log]\nconnections = \"journald\"\n";
    let config = parse(node, "f.toml").expect("it is good");
    assert_eq!(config.log.and_then(|log| log.node.clone()).as_deref(), Some("n1"));
}
