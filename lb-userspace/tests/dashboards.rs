//! The dashboard and the alert rules in `packaging`: they can be read, and every metric that they name is one that the agent has.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use flowpin::{
    cluster::SharingTimes,
    connection_log::Totals,
    datapath::Clock,
    observe::metrics::{Figures, Node, Page, node::Cluster},
    proxy::ClusterState,
};
use serde_json::Value;

/// Names that a page announces; those of families without a line as well.
fn exported() -> BTreeSet<String> {
    let node = Node {
        sharing: Some((Arc::default(), SharingTimes::default())),
        cluster: Some(Cluster {
            state: ClusterState::new(String::new()),
            metrics: Arc::default(),
            families: Vec::new(),
        }),
        connection_log: Some(Totals::default()),
        ..Node::default()
    };
    let page = Page::new(Figures { node, ..Figures::default() }, Clock::at(250));
    let text: String = page.map(|piece| String::from_utf8(piece).expect("text")).collect();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(name, kind)| {
        let endings: &[&str] = match kind {
            "gauge" => &[""],
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => panic!("{name} is a {kind}"),
        };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    });
    names.collect()
}

/// Metrics that an expression names.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("flowpin_") || word.starts_with("kubeproxy_"))
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Insists that all of these are there.
fn check(expressions: &[&str]) {
    let exported = exported();
    assert!(!expressions.is_empty());
    for expression in expressions {
        let mut some = expression.contains("up{");
        for name in named(expression) {
            some = true;
            assert!(exported.contains(name), "{name} of \"{expression}\" is not among {exported:?}");
        }
        assert!(some, "\"{expression}\" is about nothing");
    }
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let dashboard: Value = serde_json::from_str(&read("grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let charts = panels.iter().filter(|p| p["type"] != "row");
    let targets = charts.flat_map(|p| p["targets"].as_array().expect("targets"));
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter().skip(1);
    let queries = variables.map(|v| v["query"].as_str().expect("a query"));
    check(&targets.map(|t| t["expr"].as_str().expect("an expression")).chain(queries).collect::<Vec<_>>());
    let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
}

#[test]
fn alerts_are_about_what_there_is() {
    let rules: Value = serde_yaml_ng::from_str(&read("alerts.yml")).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    check(&rules.iter().map(|r| r["expr"].as_str().expect("an expression")).collect::<Vec<_>>());
    for rule in rules {
        let (severity, summary) = (&rule["labels"]["severity"], &rule["annotations"]["summary"]);
        assert!(rule["alert"].is_string() && severity.is_string() && summary.is_string(), "{rule}");
    }
}
