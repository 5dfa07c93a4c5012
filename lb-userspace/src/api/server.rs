//! The routes, and the two places where they are served: everything on the Unix socket, the metrics page and the probes on TCP.
//! Whoever binds the socket sets its mode and removes it.

use std::{future::Future, time::Duration};

use axum::{
    Router,
    routing::{get, post},
    serve::Listener,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::oneshot,
};

use super::{control::Control, handlers::*};

/// How long requests that have begun may take once the server is to stop. A client that sends half a request and waits must
/// not keep the agent from going.
const GRACE: Duration = Duration::from_secs(2);

/// Serves the API until `shutdown` is done; requests that have begun are answered, for two seconds at most.
pub async fn serve<C: Control>(
    listener: UnixListener,
    control: C,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    run("API", listener, api(control), shutdown).await;
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown` is done, as [`serve`] does.
pub async fn serve_metrics<C: Control>(
    listener: TcpListener,
    control: C,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    run("metrics", listener, probes().fallback(no_such_path).with_state(control), shutdown).await;
}

fn probes<C: Control>() -> Router<C> {
    Router::new()
        .route("/metrics", get(metrics::<C>))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz::<C>))
}

fn api<C: Control>(control: C) -> Router {
    probes()
        .route("/v1/services", get(services::<C>).post(add_service::<C>))
        .route("/v1/services/{name}", get(service::<C>).delete(remove_service::<C>))
        .route("/v1/services/{name}/backends", get(backends::<C>).post(add_backend::<C>))
        .route("/v1/services/{name}/backends/{address}", axum::routing::delete(remove_backend::<C>))
        .route("/v1/services/{name}/backends/{address}/drain", post(drain::<C>))
        .route("/v1/services/{name}/backends/{address}/undrain", post(undrain::<C>))
        .route("/v1/connections", get(connections::<C>))
        .route("/v1/connections/close", post(close_connections::<C>))
        .route("/v1/events", get(events::<C>))
        .route("/v1/explain", get(explain::<C>))
        .route("/v1/status", get(status::<C>))
        .route("/v1/stats", get(stats::<C>))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(control)
}

async fn run<L>(what: &str, listener: L, router: Router, shutdown: impl Future<Output = ()> + Send + 'static)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let (stopping, stopped) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // The receiver is gone only if the server ended by itself; then nobody waits.
        let _ = stopping.send(());
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    let limit = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = server => {
            if let Err(e) = result {
                tracing::error!("{what}: {e}");
            }
        }
        () = limit => tracing::warn!("{what}: a request took longer than the agent waits for when it ends"),
    }
}
