//! Promise: a port that another process has is had when it is free, and told of until then; what Kubernetes' own programs
//! show of themselves is shown.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use fake_apiserver::Fault;
use flowpin_tests::harness::{Net, Ns, eventually, topology::Family::V4};

use nix::sys::signal::Signal;

use super::{LIMIT, NODE, World};

/// What a port says: status and headers, body.
fn get(from: &Ns, to: &str, path: &str) -> std::io::Result<(String, String)> {
    let to: SocketAddr = to.parse().expect("an address");
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        Ok((head.to_lowercase(), body.to_string()))
    })
}

#[test]
fn load_balancers_kubelets_and_scrapers_are_answered_as_by_kube_proxy() {
    let world = World::new();
    let (api, client, node) = (&world.api, &world.net.client, &world.net.node);
    let says = |what: &str, to: &str, path: &str, from: &Ns, wanted: &[&str]| {
        eventually(what, LIMIT, || match get(from, to, path) {
            Ok((head, body)) if wanted.iter().all(|w| head.contains(w) || body.contains(w)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    // A Service whose load balancer asks for endpoints of the node.
    let balanced = |policy: &str, conditions: &str| {
        format!(
            "- kind: Service
  metadata: {{namespace: d, name: lb, uid: lb-1}}
  spec: {{type: LoadBalancer, clusterIP: {}, externalTrafficPolicy: {policy}, healthCheckNodePort: 31000, ports: [{{port: 80}}]}}
- kind: EndpointSlice
  metadata: {{namespace: d, name: lb-1, labels: {{kubernetes.io/service-name: lb}}}}
  addressType: IPv4
  ports: [{{name: '', port: 80}}]
  endpoints: [{{addresses: [{}], nodeName: me, conditions: {{{conditions}}}}}, {{addresses: [{}], nodeName: other}}]
",
            V4.vip(3), V4.backend(0), V4.backend(1)
        )
    };
    let local = "10.1.0.1:31000";
    assert!(get(client, local, "/").is_err(), "nobody is to ask there");
    api.apply(&balanced("Local", "ready: true"));
    let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"d\",\n\t\t\"name\": \"lb\"\n\t},\n\t\"localEndpoints\": 1,\n\
                \t\"serviceProxyHealthy\": true\n}";
    let headers =
        ["200 ok", "x-load-balancing-endpoint-weight: 1", "content-type: application/json", "nosniff"];
    says("a local endpoint", local, "/any", client, &[&headers[..], &[body]].concat());
    api.apply(&balanced("Local", "ready: false, serving: true, terminating: true"));
    says("it is going away", local, "/", client, &["503", "weight: 0", "\"localEndpoints\": 0"]);
    api.apply(&balanced("Cluster", "ready: true"));
    eventually("the port is closed", LIMIT, || match get(client, local, "/") {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The node.
    let probe = "10.1.0.1:10256";
    says("the node is well", probe, "/healthz", client, &["200 ok", "lastUpdated", "\"nodeEligible\":true"]);
    api.apply(&NODE.replace("status:", "spec: {taints: [{key: ToBeDeletedByClusterAutoscaler}]}\nstatus:"));
    says("it is to go", probe, "/healthz", client, &["503", "\"nodeEligible\":false", "\"healthy\":true"]);
    says("and alive", probe, "/livez", client, &["200 ok", "lastUpdated"]);
    // Metrics, only for the node itself.
    let scraped = "127.0.0.1:10249";
    says("a mode", scraped, "/proxyMode", node, &["200 ok"]);
    let names = [
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}",
        "kubeproxy_network_programming_duration_seconds_bucket{",
        "kubeproxy_proxy_healthz_total{code=\"503\"}",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\"} 0",
        "flowpin_kubernetes_synced{} 1",
        "process_resident_memory_bytes",
    ];
    says("kube-proxy's metrics", scraped, "/metrics", node, &names);
    assert!(get(client, "10.1.0.1:10249", "/metrics").is_err());
}

#[test]
fn a_port_that_is_taken_is_had_when_it_is_free() {
    let net = Net::new(1);
    let taken = net.node.run(|| std::net::TcpListener::bind("0.0.0.0:10256")).expect("a port");
    let world = World::of(net);
    eventually("that is in the status", LIMIT, || match world.status()["not_listening"].to_string() {
        said if said.contains("10256") && said.contains("in use") => Ok(()),
        said => Err(said),
    });
    let event = eventually("an Event", LIMIT, || {
        let mut created = world.api.created().into_iter();
        created.find(|event| event["reason"] == "FailedToListen").ok_or("none".into())
    });
    let regarding = &event["regarding"];
    assert_eq!((&regarding["kind"], &regarding["name"]), (&"Node".into(), &"me".into()), "{event}");
    drop(taken);
    eventually("it answers", LIMIT, || match get(&world.net.client, "10.1.0.1:10256", "/livez") {
        Ok((head, _)) if head.contains("200 ok") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(world.status()["not_listening"].to_string(), "[]");
}

#[test]
fn what_is_asked_of_the_api_server_is_counted_and_the_agent_shows_itself() {
    let world = World::of(Net::new(1));
    let page = |path: &str| {
        let (head, body) = get(&world.net.node, "127.0.0.1:10249", path).expect("an answer");
        assert!(head.contains("200 ok"), "{head}");
        body
    };
    let count = |code: &str, method: &str| {
        let labels = format!("code=\"{code}\",host=\"127.0.0.1:6443\",method=\"{method}\"");
        let metrics = page("/metrics");
        let line =
            metrics.lines().find(|l| l.starts_with(&format!("rest_client_requests_total{{{labels}}}")));
        line.map_or(0, |line| line.split(' ').next_back().unwrap().parse::<u64>().expect("a count"))
    };
    // A list and a watch of each of five kinds.
    eventually("lists and watches are counted", LIMIT, || match count("200", "GET") {
        10.. => Ok(()),
        n => Err(n.to_string()),
    });
    let durations = page("/metrics");
    let wanted =
        "rest_client_request_duration_seconds_bucket{le=\"60.0\",verb=\"GET\",host=\"127.0.0.1:6443\"}";
    assert!(durations.contains(wanted), "{durations}");
    assert_eq!((count("500", "GET"), count("<error>", "GET")), (0, 0));
    world.api.fault(Fault::Refuse { plural: "services", status: 500, times: 1, wait: 0 });
    world.api.stop();
    eventually("that nobody answers is counted", LIMIT, || match count("<error>", "GET") {
        0 => Err("none".into()),
        _ => Ok(()),
    });
    world.net.node.run(|| world.api.restart());
    eventually("what is refused is counted", LIMIT, || match count("500", "GET") {
        1 => Ok(()),
        n => Err(n.to_string()),
    });
    assert!(page("/statusz").contains("API server: http://127.0.0.1:6443"));
    let config: serde_json::Value = serde_json::from_str(&page("/configz")).expect("JSON");
    assert_eq!(config["flowpin"]["kubernetes"]["node"], "me");
    assert!(page("/metrics/slis").contains("kubernetes_healthcheck{name=\"in-force\",type=\"healthz\"} 1"));
}

#[test]
fn ready_is_who_balances_what_the_api_server_has_told() {
    let mut world = World::of(Net::new(1));
    let ready = |world: &World, wanted: &str| {
        let what = format!("it says {wanted}");
        eventually(&what, LIMIT, || match get(&world.net.node, "127.0.0.1:9479", "/readyz") {
            Ok((head, _)) if head.contains(wanted) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    ready(&world, "200 ok");
    world.agent.done(&["detach", "--hand-over"]);
    ready(&world, "503");
    world.agent.done(&["attach"]);
    ready(&world, "200 ok");
    // What was in force still is, but nobody has told whether that is all.
    world.api.stop();
    world.agent.end(Signal::SIGTERM);
    world.again();
    ready(&world, "503");
    assert_eq!(world.open(0).backend, "b0");
    world.net.node.run(|| world.api.restart());
    ready(&world, "200 ok");
}
