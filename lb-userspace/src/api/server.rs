//! The routes, and the two places where they are served: everything on the Unix socket, the metrics page and the probes on TCP.
//! Whoever binds the socket sets its mode and removes it.

use std::future::Future;

use axum::{Json, Router, routing::get};
use serde_json::Value;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{
    connections,
    control::Control,
    openapi,
    route::Route,
    routes::{no_such_method, no_such_path, probes, routes},
    ui,
};

/// Serves the API until `shutdown` is done; requests that have begun are answered, for two seconds at most.
pub async fn serve<C: Control>(
    listener: UnixListener,
    control: C,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    connections::serve("API", listener, api(control), shutdown).await;
}

/// Serves `/metrics`, `/healthz`, `/readyz` and the stats page until `shutdown` is done, as [`serve`] does. `shows`: is there
/// such a page?
pub async fn serve_metrics<C: Control>(
    listener: TcpListener,
    control: C,
    shows: bool,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (stop, stopped) = watch::channel(());
    let page = if shows { ui::router(control.clone(), stopped) } else { ui::off() };
    let router = router(probes()).fallback(no_such_path).with_state(control).merge(page);
    // What goes on for as long as somebody looks ends first.
    let shutdown = async {
        shutdown.await;
        drop(stop);
    };
    connections::serve("metrics", listener, router, shutdown).await;
}

/// What kube-proxy serves to scrapers.
pub fn scraped<C: Control>(control: C) -> Router {
    let mode = get(async || "flowpin");
    router(probes()).route("/proxyMode", mode).fallback(no_such_path).with_state(control)
}

fn router<C: Control>(routes: Vec<Route<C>>) -> Router<C> {
    routes.into_iter().fold(Router::new(), |router, Route { path, handler, .. }| router.route(path, handler))
}

/// What describes the API.
pub fn document<C: Control>() -> Value {
    let mut all: Vec<Route<C>> = routes();
    all.extend(probes());
    openapi::document(&all)
}

fn api<C: Control>(control: C) -> Router {
    router(probes())
        .merge(router(routes()))
        .route("/v1/openapi.json", get(async || Json(document::<C>())))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(control)
}
