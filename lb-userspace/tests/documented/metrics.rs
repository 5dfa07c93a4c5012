//! `packaging/metrics.json`: every metric with its kind, what it is, and its labels. `UPDATE=1 cargo test -p flowpin --test documented`
//! writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowpin::{
    api::types::{ClusterView, RejectedView},
    cluster::SharingTimes,
    connection_log::Totals,
    datapath::Clock,
    model::{Origin, service::make_backend},
    observe::{
        metrics::{
            Figures, Page, Rows,
            node::{Cluster, Node},
        },
        now::Known,
    },
    proxy::ClusterState,
};
use lb_common::{
    abi::{BackendId, DurationHistogram, Reason},
    expiry::Timeout,
};
use serde_json::{Value, json};

/// Labels of what has lines only now and then, by what names begin with.
const NOW_AND_THEN: [(&str, &[&str]); 5] = [
    ("flowpin_backend_", &["backend", "service"]),
    ("flowpin_service_", &["service"]),
    ("flowpin_kubernetes_notes", &["reason"]),
    ("rest_client_requests", &["code", "host", "method"]),
    ("rest_client_request_duration", &["host", "verb"]),
];

/// A page of an agent that does all there is.
fn page() -> Page {
    let backend = make_backend("s", "10.0.0.1:80", None, None, false, Origin::File).expect("a backend");
    let known = Known {
        name: "10.0.0.1:80",
        spec: Some(&backend),
        id: Some(BackendId::new(0, 0)),
        healthy: true,
        one_way: false,
        failures: 0,
        why: None,
        from: None,
        removed: None,
    };
    let mut rows = Rows::default();
    rows.add("s", [known].into_iter(), true);
    rows.services[0].quorum = Some(true);
    let labels = rows.services[0].labels;
    rows.in_force.push((0, labels));
    let mut cluster = ClusterState::new("node".into());
    cluster.status.unseen = BTreeMap::from([("Service", String::new())]);
    let rejected = RejectedView {
        service: "s".into(),
        backend: None,
        origin: "file".into(),
        error: String::new(),
        last_good_in_force: false,
    };
    let node = Node {
        reasons: vec![(Reason::ALL[0], 0)],
        timed_out: BTreeMap::from([(("s".to_string(), Timeout::Idle), 0)]),
        restarts: BTreeMap::from([("health", 0)]),
        connection_log: Some(Totals::default()),
        rejected: vec![rejected],
        sharing: Some((Arc::new(shared()), SharingTimes::default())),
        cluster: Some(Cluster { state: cluster, metrics: Arc::default(), families: vec!["IPv4"] }),
        ..Node::default()
    };
    let figures = Figures {
        rows: Arc::new(rows),
        durations: Arc::new(vec![DurationHistogram::default()]),
        node,
        ..Figures::default()
    };
    Page::new(figures, Clock::at(250))
}

/// Names of a line's labels; `le` is a histogram's own.
fn labels(line: &str) -> Option<(&str, BTreeSet<&str>)> {
    let (name, rest) = line.split_once('{')?;
    let (inside, _) = rest.rsplit_once('}')?;
    let names = inside.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name);
    Some((name, names.filter(|name| *name != "le").collect()))
}

/// A service that nodes share.
fn shared() -> ClusterView {
    let service = json!({"name": "s", "owner": null, "shared": true, "age_seconds": 0.1, "rate": 1.0, "delay_seconds": null,
        "imbalance": 1.0, "backends": []});
    let services = vec![serde_json::from_value(service).expect("a service")];
    ClusterView { services, refused: [("flood".to_string(), 0)].into(), ..ClusterView::default() }
}

fn metrics() -> Value {
    let text: String = page().map(|piece| String::from_utf8(piece).expect("text")).collect();
    let mut all = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').expect("a sentence").1;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(labels);
        let of = |line: &str| {
            line.strip_prefix(name)
                .is_some_and(|end| ["", "_total", "_sum", "_count", "_bucket"].contains(&end))
        };
        let mut names: BTreeSet<&str> =
            lines.filter(|(line, _)| of(line)).flat_map(|(_, names)| names).collect();
        let others = NOW_AND_THEN.iter().filter(|(begin, _)| name.starts_with(begin));
        names.extend(others.flat_map(|(_, labels)| labels.iter()));
        let suffix = if kind == "counter" { "_total" } else { "" };
        let sentence = help.replace("?.", "?");
        all.push(json!({"name": format!("{name}{suffix}"), "kind": kind, "help": sentence, "labels": names}));
    }
    Value::Array(all)
}

#[test]
fn packaging_has_all_of_them() {
    let path = crate::root().join("packaging/metrics.json");
    let made = metrics();
    assert!(made.as_array().is_some_and(|all| all.len() > 40), "{made}");
    if std::env::var_os("UPDATE").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("JSON") + "\n";
        std::fs::write(&path, text).expect("written");
    }
    let there: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("the file")).expect("JSON");
    assert_eq!(
        there, made,
        "packaging/metrics.json is old: UPDATE=1 cargo test -p flowpin --test documented"
    );
}
