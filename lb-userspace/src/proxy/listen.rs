//! Listens where load balancers and kubelets ask, and where kube-proxy's metrics are scraped. A port that somebody else
//! has is tried again, quietly: kube-proxy may still be there.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    task::JoinSet,
    time::timeout,
};

use super::{ClusterState, Occurrence, ProxyMetrics, events::Regarding, health, state::families};
use crate::{api::connections, model::OwnAddresses};

/// How often a port is tried that wasn't to be had.
const AGAIN: Duration = Duration::from_secs(2);

/// What answers are made of.
#[derive(Clone)]
pub struct Known {
    /// The cluster.
    pub cluster: watch::Sender<Option<ClusterState>>,
    /// The node's addresses.
    pub own: watch::Receiver<OwnAddresses>,
    /// Counts answers.
    pub metrics: Arc<ProxyMetrics>,
    /// What happens, for Events.
    pub occurrences: broadcast::Sender<Occurrence>,
    /// Where it can't be listened, and why, by port.
    pub deaf: watch::Sender<BTreeMap<u16, String>>,
}

/// A port, and who asks there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    /// Kubelets and load balancers ask for the node.
    Node,
    /// Load balancers ask for a Service.
    Service(Arc<str>),
    /// Scrapers ask for metrics.
    Metrics,
}

/// Listens where it is to until nobody says any more where. `node`, `scraped`: ports for the node's health and metrics;
/// `page`: the latter's routes.
pub async fn run(known: Known, node: Option<u16>, scraped: Option<u16>, page: Router) {
    let mut cluster = known.cluster.subscribe();
    known.deaf.send_replace(BTreeMap::new());
    // A server ends when its sender goes.
    let mut serving: BTreeMap<u16, (Port, watch::Sender<()>)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let mut wanted: BTreeMap<u16, Port> = BTreeMap::new();
        for (key, port) in cluster.borrow_and_update().iter().flat_map(|cluster| cluster.health.iter()).rev()
        {
            wanted.insert(port.port, Port::Service(key.clone()));
        }
        wanted.extend(node.map(|port| (port, Port::Node)));
        wanted.extend(scraped.map(|port| (port, Port::Metrics)));
        serving.retain(|port, (what, _)| wanted.get(port) == Some(what));
        for (port, what) in wanted {
            serving.entry(port).or_insert_with(|| {
                let (keep, kept) = watch::channel(());
                tasks.spawn(serve(known.clone(), port, what.clone(), page.clone(), kept));
                (what, keep)
            });
        }
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            Some(Err(error)) = tasks.join_next() => {
                if error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}

/// Serves a port until it isn't wanted any more.
async fn serve(known: Known, port: u16, what: Port, page: Router, kept: watch::Receiver<()>) {
    let router = match &what {
        Port::Node => of_node(&known),
        Port::Service(key) => of_service(&known, key.clone()),
        Port::Metrics => page,
    };
    let (mut logged, mut told) = (false, false);
    let listener = loop {
        let bound = match what {
            Port::Metrics => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await,
            _ => everywhere(port).await,
        };
        match bound {
            Ok(listener) => break listener,
            Err(error) => {
                let text = sentence(port, &what, &error);
                if !std::mem::replace(&mut logged, true) {
                    tracing::warn!("{text}");
                    known.deaf.send_modify(|deaf| drop(deaf.insert(port, text.clone())));
                }
                told = told || tell(&known, &what, text);
            }
        }
        if timeout(AGAIN, unwanted(kept.clone())).await.is_ok() {
            return hear(&known, port);
        }
    };
    if logged {
        tracing::info!(port, "listening now");
        hear(&known, port);
    }
    connections::serve(&port.to_string(), listener, router, unwanted(kept)).await;
}

/// Done when whoever keeps it doesn't any more.
async fn unwanted(mut kept: watch::Receiver<()>) {
    let _ = kept.changed().await;
}

/// At all addresses, of IPv6 too where the node has it.
async fn everywhere(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(e) if e.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

/// What is wrong.
fn sentence(port: u16, what: &Port, error: &std::io::Error) -> String {
    let for_what: &str = match what {
        Port::Node => "kubelets and load balancers",
        Port::Metrics => "metrics",
        Port::Service(key) => key,
    };
    format!("port {port} for {for_what}: {error}; trying again every {} s", AGAIN.as_secs())
}

/// Has an Event written. False: nobody knows yet which Node this is, or where Events go.
fn tell(known: &Known, what: &Port, text: String) -> bool {
    let Some(node) = known.cluster.borrow().as_ref().map(|cluster| cluster.node.clone()) else {
        return false;
    };
    let (regarding, reason) = match what {
        Port::Node | Port::Metrics => (Regarding { kind: "Node", key: node }, "FailedToListen"),
        Port::Service(key) => {
            (Regarding { kind: "Service", key: key.to_string() }, "FailedToStartServiceHealthcheck")
        }
    };
    known.occurrences.send(Occurrence::warning(regarding, reason, "Listen", text)).is_ok()
}

fn hear(known: &Known, port: u16) {
    known.deaf.send_modify(|deaf| drop(deaf.remove(&port)));
}

fn of_node(known: &Known) -> Router {
    let answer = |eligible: bool| {
        let known = known.clone();
        move || async move {
            let families = families(&known.own.borrow());
            let answer =
                health::node(known.cluster.borrow().as_ref(), eligible, &families, SystemTime::now());
            known.metrics.probed(eligible, answer.0 == 200);
            respond(answer)
        }
    };
    Router::new().route("/healthz", get(answer(true))).route("/livez", get(answer(false)))
}

fn of_service(known: &Known, key: Arc<str>) -> Router {
    let cluster = known.cluster.subscribe();
    Router::new().fallback(move |_: Request| async move {
        let (local, healthy) = match &*cluster.borrow() {
            Some(state) => {
                let found = state.health.iter().find(|(known, _)| *known == key);
                (found.map_or(0, |(_, port)| port.local), state.is_healthy(std::time::Instant::now()))
            }
            None => (0, false),
        };
        let weight = [("X-Load-Balancing-Endpoint-Weight", local.to_string())];
        (weight, respond(health::service(&key, local, healthy))).into_response()
    })
}

fn respond((code, body): health::Answer) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, headers, body).into_response()
}
