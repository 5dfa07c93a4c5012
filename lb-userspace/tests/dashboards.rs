//! The dashboard and the alert rules in `packaging`: they can be read, and every metric that they name is one that the agent has.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use flowpin::{
    api::types::RejectedView,
    datapath::Clock,
    observe::metrics::{BackendRow, DurationRow, Node, Page, Rows},
};
use lb_common::{
    abi::{DurationHistogram, Reason},
    expiry::Timeout,
};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde_json::Value;

/// Names on a page that shows everything.
fn exported() -> BTreeSet<String> {
    let rejected: RejectedView = serde_json::from_str(
        r#"{"service":"app","origin":"file","error":"wrong","last_good_in_force":true}"#,
    )
    .expect("a rejection");
    let reconcile = Histogram::new(exponential_buckets(0.001, 2.0, 2));
    reconcile.observe(0.1);
    let mut rows = Rows::default();
    rows.add_service("app", Some(1.0));
    let (clients, oldest, left) = (Some(1), Some(1.0), Some(1.0));
    rows.add_backend(
        "app",
        "10.0.0.1",
        BackendRow { state: "draining", clients, oldest, left, ..BackendRow::default() },
    );
    let durations = vec![DurationRow::new("app", DurationHistogram::default())];
    let node = Node {
        reasons: vec![(Reason::Stray, 1)],
        timed_out: [(("app".into(), Timeout::Idle), 1)].into(),
        reconcile: Some(reconcile),
        rejected: vec![rejected],
        ..Node::default()
    };
    let page = Page::new(Arc::new(rows), Arc::new(durations), Clock::at(250), node);
    let text: String = page.map(|piece| String::from_utf8(piece).expect("text")).collect();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.map(|l| l.split(['{', ' ']).next().unwrap_or_default().to_string()).collect()
}

/// Metrics that an expression names.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("flowpin_"))
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
    let targets = panels.iter().flat_map(|p| p["targets"].as_array().expect("targets"));
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
