//! `flowpin backend drain --cluster`: a backend at all nodes that share their counts.

use std::{io::Write, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Context, Failure,
    drain::{AWAY, LATE, REPORT},
    output::{Table, count, duration, or_dash, plural},
};
use crate::api::{
    client::ClientError,
    types::{Deed, EverywhereView, Task},
};

/// How often all nodes are asked.
const POLL: Duration = Duration::from_secs(1);

/// Does it at all nodes, and says how it is there now.
///
/// # Errors
/// The agent refuses; or some node hasn't done it, which is said after all.
pub async fn run(context: &Context, task: Task) -> Result<(), Failure> {
    let view = context.client.everywhere(&task).await?;
    context.printer.print(&view, text)?;
    missing(&view).map_or(Ok(()), Err)
}

/// Drains it at all nodes, and returns when no connection is left at any of them.
///
/// # Errors
/// As for [`run`]; or the deadline has passed with connections left, or somebody took the drain back.
pub async fn drain_and_wait(context: &Context, task: Task) -> Result<(), Failure> {
    let mut view = context.client.everywhere(&task).await?;
    if let Some(failure) = missing(&view) {
        context.printer.print(&view, text)?;
        return Err(failure);
    }
    let look = Task { deed: Deed::Look, ..task };
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut answered, mut passed) = (None, Instant::now(), None);
    loop {
        if let Some(end) = end(&view, &mut passed) {
            context.printer.print(&view, text)?;
            return end;
        }
        if told.is_none_or(|told: Instant| told.elapsed() >= REPORT) {
            told = Some(Instant::now());
            // Who can't read it goes without.
            drop(writeln!(std::io::stderr(), "flowpin: draining {}: {}", view.backend, summary(&view)));
        }
        ticks.tick().await;
        match context.client.everywhere(&look).await {
            Ok(now) => (view, answered) = (now, Instant::now()),
            Err(ClientError::Unreachable { .. }) if answered.elapsed() < AWAY => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Is it over, and how did it end? `passed`: since when all deadlines have passed.
fn end(view: &EverywhereView, passed: &mut Option<Instant>) -> Option<Result<(), Failure>> {
    let EverywhereView { service, backend: address, active_connections: left, nodes } = view;
    let backends = || nodes.iter().filter_map(|node| Some((&node.node, node.backend.as_ref()?)));
    if let Some((node, _)) = backends().find(|(_, backend)| backend.state == "active") {
        return Some(Err(Failure::Said(format!(
            "backend {address} of service \"{service}\" was undrained at node {node} by somebody else; drain it again"
        ))));
    }
    // Of a node that doesn't answer it isn't known.
    if *left == 0 && nodes.iter().all(|node| node.backend.is_some()) {
        return Some(Ok(()));
    }
    let is_over = |(_, backend): (_, &crate::api::types::BackendView)| {
        backend.active_connections == 0 || backend.drain_deadline_seconds.is_some_and(|left| left <= 0.0)
    };
    if !backends().all(is_over) || *left == 0 {
        *passed = None;
        return None;
    }
    let late = passed.get_or_insert_with(Instant::now).elapsed() >= LATE;
    late.then(|| {
        Err(Failure::Said(format!(
            "the deadline has passed and backend {address} of service \"{service}\" still has {} over all nodes; they stay \
             open: wait on with a later --deadline",
            plural(*left, "connection")
        )))
    })
}

/// Nodes that haven't done it.
fn missing(view: &EverywhereView) -> Option<Failure> {
    let nodes: Vec<_> = view.nodes.iter().filter(|node| node.backend.is_none()).collect();
    let first = nodes.first()?;
    let why = first.problem.as_deref().unwrap_or_default();
    Some(Failure::Said(format!(
        "not done at {}: {}: {why}; elsewhere it is",
        plural(nodes.len() as u64, "node"),
        first.node
    )))
}

fn summary(view: &EverywhereView) -> String {
    let silent = view.nodes.iter().filter(|node| node.backend.is_none()).count();
    let silent = match silent {
        0 => String::new(),
        some => format!(", {} not answering", plural(some as u64, "node")),
    };
    format!("{} left over all nodes{silent}", plural(view.active_connections, "connection"))
}

fn text(view: &EverywhereView) -> String {
    let mut table = Table::new(&["NODE", "STATE", ">ACTIVE", ">DEADLINE", "NOTE"]);
    for node in &view.nodes {
        let backend = node.backend.as_ref();
        let deadline = backend.and_then(|backend| backend.drain_deadline_seconds);
        table.row([
            node.node.clone(),
            or_dash(backend.map(|backend| &backend.state)),
            or_dash(backend.map(|backend| count(backend.active_connections))),
            or_dash(deadline.map(|left| if left > 0.0 { duration(left) } else { "passed".into() })),
            node.problem.clone().unwrap_or_default(),
        ]);
    }
    format!("{table}\nbackend {} of service \"{}\": {}", view.backend, view.service, summary(view))
}
