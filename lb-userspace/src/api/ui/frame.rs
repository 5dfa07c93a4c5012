//! What a view shows at one moment: parts and rows, as JSON. Those that are as they were aren't sent again.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::abi::Reason;
use serde::Serialize;

use super::view::{Part, View};
use crate::{
    api::types::{
        BackendView, DetachedView, FrontendView, InterfaceView, ServiceDecl, ServiceView, StatusView,
        WarningView,
    },
    observe::{
        Overview,
        overview::{Attention, Durations, Shown, Totals},
    },
};

/// Bars of a service in a list of services.
const BARS: usize = 32;
/// Backends that are listed below their services, if the page has no more of them.
const BELOW: usize = 100;

/// A name, and what is sent under it.
pub type Text<K> = (K, Arc<str>);

/// See the module.
#[derive(Debug, Default)]
pub struct Frame {
    /// When its counts were read, in seconds on a clock of the page's own.
    pub at: f64,
    /// `node`, `drops`, `reasons`, `overview`, `list`, `service`.
    pub parts: Vec<Text<&'static str>>,
    /// Services, or the backends of one, by name.
    pub rows: Vec<Text<String>>,
}

/// As JSON, which all of these can be written as.
fn json(value: &impl Serialize) -> Arc<str> {
    serde_json::to_string(value).unwrap_or_default().into()
}

/// The agent and its datapath; also sent with what is refused.
#[derive(Serialize)]
struct Node<'a> {
    state: &'a str,
    version: &'a str,
    kernel: &'a str,
    interfaces: &'a [InterfaceView],
    conntrack_entries: u64,
    conntrack_capacity: u64,
    affinity_entries: u64,
    affinity_capacity: u64,
    problems: &'a [String],
    warnings: &'a [WarningView],
    rejected: usize,
    detached: &'a Option<DetachedView>,
}

#[derive(Serialize)]
struct ReasonText {
    reason: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

/// What every view shows of the node.
pub fn node(status: &StatusView, drops: &BTreeMap<&'static str, u64>) -> Vec<Text<&'static str>> {
    let node = Node {
        state: &status.state,
        version: &status.version,
        kernel: &status.kernel,
        interfaces: &status.interfaces,
        conntrack_entries: status.conntrack_entries,
        conntrack_capacity: status.conntrack_capacity,
        affinity_entries: status.affinity_entries,
        affinity_capacity: status.affinity_capacity,
        problems: &status.problems,
        warnings: &status.warnings,
        rejected: status.rejected.len(),
        detached: &status.detached,
    };
    let texts = |r: &Reason| ReasonText { reason: r.name(), meaning: r.meaning(), remedy: r.remedy() };
    let reasons: Vec<ReasonText> = Reason::ALL.iter().map(texts).collect();
    vec![("node", json(&node)), ("reasons", json(&reasons)), ("drops", json(drops))]
}

#[derive(Serialize)]
struct Summary<'a> {
    /// As [`Frame::at`].
    at: f64,
    totals: &'a Totals,
    attention: &'a [Attention],
    durations: &'a Durations,
}

/// What every view shows of all services.
pub fn overview(at: f64, overview: &Overview) -> Text<&'static str> {
    let Overview { totals, attention, durations, .. } = overview;
    ("overview", json(&Summary { at, totals, attention, durations }))
}

/// Which rows, in which order.
#[derive(Serialize)]
struct List<'a, T> {
    /// `null`: of services.
    service: &'a Option<String>,
    /// From 1.
    page: usize,
    pages: usize,
    found: usize,
    names: Vec<T>,
}

impl<'a, T> List<'a, T> {
    fn part<U>(view: &'a View, part: &Part<U>, names: Vec<T>) -> Text<&'static str>
    where
        T: Serialize,
    {
        let Part { page, pages, found, .. } = *part;
        ("list", json(&List { service: &view.service, page: page + 1, pages, found, names }))
    }
}

#[derive(Serialize)]
struct ServiceRow<'a> {
    name: &'a str,
    vip: String,
    ports: &'a [String],
    algorithm: &'a str,
    origin: &'a str,
    imbalance: Option<f64>,
    totals: Totals,
    /// Warnings and refusals.
    notes: Vec<&'a str>,
    /// Open connections, weight, and whether it takes new ones: of the first backends.
    bars: Vec<(u64, u16, bool)>,
    /// All of them, if the page has room for those of all its services.
    backends: Option<&'a [BackendView]>,
}

/// The rows of a page of services.
pub fn services(
    view: &View,
    part: &Part<Arc<str>>,
    shown: &Shown,
) -> (Text<&'static str>, Vec<Text<String>>) {
    let services = &shown.services;
    let below = services.iter().map(|s| s.backends.len()).sum::<usize>() <= BELOW;
    let row = |s: &ServiceView| {
        let bars = s.backends.iter().take(BARS);
        json(&ServiceRow {
            name: &s.name,
            vip: s.vip.to_string(),
            ports: &s.ports,
            algorithm: &s.algorithm,
            origin: &s.origin,
            imbalance: s.imbalance,
            totals: Totals::of(&s.backends),
            notes: s.warnings.iter().chain(&s.rejected).map(String::as_str).collect(),
            bars: bars.map(|b| (b.active_connections, b.weight, b.state == "active" && b.healthy)).collect(),
            backends: below.then_some(&s.backends),
        })
    };
    let names = services.iter().map(|s| &s.name).collect();
    (List::part(view, part, names), services.iter().map(|s| (s.name.clone(), row(s))).collect())
}

#[derive(Serialize)]
struct Detail<'a> {
    name: &'a str,
    frontends: &'a [FrontendView],
    algorithm: &'a str,
    stray: &'a str,
    origin: &'a str,
    imbalance: Option<f64>,
    totals: Totals,
    notes: Vec<&'a str>,
    declared: &'a ServiceDecl,
    durations: &'a Durations,
    /// Most open connections of a backend for its weight: what bars are measured by.
    most: f64,
}

/// The rows of a page of a service's backends, and the service.
pub fn service(
    view: &View,
    s: &ServiceView,
    durations: &Durations,
) -> (Vec<Text<&'static str>>, Vec<Text<String>>) {
    let part = view.backends(&s.backends);
    let loads = s.backends.iter().map(|b| b.active_connections as f64 / f64::from(b.weight.max(1)));
    let detail = Detail {
        name: &s.name,
        frontends: &s.frontends,
        algorithm: &s.algorithm,
        stray: &s.stray,
        origin: &s.origin,
        imbalance: s.imbalance,
        totals: Totals::of(&s.backends),
        notes: s.warnings.iter().chain(&s.rejected).map(String::as_str).collect(),
        declared: &s.declared,
        durations,
        most: loads.fold(0.0, f64::max),
    };
    let names: Vec<&String> = part.items.iter().map(|b| &b.address).collect();
    let list = List::part(view, &part, names);
    let rows = part.items.iter().map(|b| (b.address.clone(), json(b))).collect();
    (vec![("service", json(&detail)), list], rows)
}
