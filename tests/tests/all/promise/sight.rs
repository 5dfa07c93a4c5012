//! Promise: who asks for some of the connections gets the right ones.

use flowpin_tests::harness::{
    Agent, Net,
    agent::{interfaces, service},
    client::{Conn, at},
    server::Server,
    topology::Family::{V4, V6},
};
use serde_json::Value;

fn list(agent: &Agent, more: &[&str]) -> Vec<Value> {
    let all = agent.json(&[&["connection", "list"], more].concat());
    all.as_array().expect("a list").clone()
}

fn column(list: &[Value], key: &str) -> Vec<f64> {
    list.iter().map(|c| c[key].as_f64().expect("a number")).collect()
}

#[test]
fn the_first_few_by_age_silence_and_bytes() {
    let net = Net::new(2);
    let _servers: Vec<Server> = net.backends.iter().map(|ns| Server::start(ns, "b", [80])).collect();
    let mut config = interfaces(&[("c0", "tc"), ("b*", "tc")]);
    for (name, family) in [("four", V4), ("six", V6)] {
        let targets = [family.backend(0), family.backend(1)];
        config += &service(name, &family.vip(0), "\"80/tcp\"", &targets, "");
    }
    let agent = Agent::start(&net.node, &config);
    let mut conns: Vec<Conn> = net
        .client
        .run(|| (0..40).map(|i| Conn::open(at(&[V4, V6][i % 2].vip(0), 80)).expect("answered")).collect());
    // Of each: one that has said more than all the others.
    for (i, conn) in conns.iter_mut().enumerate() {
        conn.exchange(if i < 2 { 100_000 } else { 10 * i }).expect("it is open");
    }
    let clients = |list: &[Value]| -> Vec<String> {
        list.iter().map(|c| c["client"].as_str().expect("a name").into()).collect()
    };
    let loud: Vec<String> =
        conns[..2].iter().map(|c| c.stream.local_addr().expect("an address").to_string()).collect();

    assert_eq!(list(&agent, &[]).len(), 40);
    assert_eq!(list(&agent, &["--limit", "7"]).len(), 7);
    assert_eq!(list(&agent, &["--limit", "0"]).len(), 0);
    assert_eq!(list(&agent, &["--service", "six", "--limit", "100"]).len(), 20);

    let most = list(&agent, &["--sort", "bytes", "--limit", "2"]);
    let (mut found, mut wanted) = (clients(&most), loud);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "one is IPv4, one is IPv6, and both are found");
    for (order, key) in [("age", "age_seconds"), ("idle", "idle_seconds")] {
        let all = list(&agent, &["--sort", order]);
        assert_eq!(all.len(), 40);
        let values = column(&all, key);
        // Each is read off the clock in its turn: a later look may find a tick more.
        assert!(values.windows(2).all(|w| w[0] + 0.1 >= w[1]), "{order}: {values:?}");
        let first = column(&list(&agent, &["--sort", order, "--limit", "3"]), key);
        assert!(first.iter().all(|v| *v + 0.1 >= values[2]), "{order}: {first:?} of {values:?}");
    }
    let metrics = net.node.must("curl -sf http://127.0.0.1:9479/metrics");
    for name in ["four", "six"] {
        let line = format!("flowpin_service_imbalance{{service=\"{name}\"}} 1.0");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let error = agent.cli(&["connection", "list", "--sort", "size"]);
    assert_eq!(error.status.code(), Some(2));
}
