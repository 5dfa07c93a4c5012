//! The API's server, and the metrics listener.

use std::future::Future;

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use tokio::net::{TcpListener, UnixListener};

use super::{
    error::ApiError,
    types::{
        BackendAdd, BackendView, ConnectionFilter, ConnectionView, Drain, ServiceAdd, ServiceView, StatsView,
        StatusView,
    },
};
use crate::agent::handle::Handle;

/// Serves the API until `shutdown`.
pub async fn serve(
    listener: UnixListener,
    handle: Handle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/v1/services", get(services).post(add_service))
        .route("/v1/services/{name}", get(service).delete(remove_service))
        .route("/v1/services/{name}/backends", get(backends).post(add_backend))
        .route("/v1/services/{name}/backends/{backend}", delete(remove_backend))
        .route("/v1/services/{name}/backends/{backend}/drain", post(drain))
        .route("/v1/services/{name}/backends/{backend}/undrain", post(undrain))
        .route("/v1/connections", get(connections))
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .with_state(handle);
    if let Err(e) = axum::serve(listener, router).with_graceful_shutdown(shutdown).await {
        tracing::error!("API: {e}");
    }
}

/// Serves metrics and probes until `shutdown`.
pub async fn serve_metrics(
    listener: TcpListener,
    handle: Handle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(handle);
    if let Err(e) = axum::serve(listener, router).with_graceful_shutdown(shutdown).await {
        tracing::error!("metrics: {e}");
    }
}

type Answer<T> = Result<Json<T>, ApiError>;
type Body<T> = Result<Json<T>, JsonRejection>;

fn body<T>(body: Body<T>) -> Result<T, ApiError> {
    body.map(|Json(value)| value).map_err(|e| ApiError::Invalid(e.body_text()))
}

async fn nothing() -> ApiError {
    ApiError::NotFound("there is nothing at this path; see the README for the API".into())
}

async fn services(State(handle): State<Handle>) -> Json<Vec<ServiceView>> {
    Json(handle.shared.services())
}

async fn service(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<ServiceView> {
    handle.service(&name).map(Json)
}

async fn add_service(State(handle): State<Handle>, add: Body<ServiceAdd>) -> Answer<ServiceView> {
    handle.add_service(body(add)?).await.map(Json)
}

async fn remove_service(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<()> {
    handle.remove_service(&name).await.map(Json)
}

async fn backends(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<Vec<BackendView>> {
    handle.service(&name).map(|s| Json(s.backends))
}

async fn add_backend(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    add: Body<BackendAdd>,
) -> Answer<BackendView> {
    handle.add_backend(&name, body(add)?).await.map(Json)
}

async fn remove_backend(
    State(handle): State<Handle>,
    Path((name, backend)): Path<(String, String)>,
) -> Answer<()> {
    handle.remove_backend(&name, &backend).await.map(Json)
}

async fn drain(
    State(handle): State<Handle>,
    Path((name, backend)): Path<(String, String)>,
    drain: Body<Drain>,
) -> Answer<BackendView> {
    handle.drain(&name, &backend, body(drain)?).await.map(Json)
}

async fn undrain(
    State(handle): State<Handle>,
    Path((name, backend)): Path<(String, String)>,
) -> Answer<BackendView> {
    handle.undrain(&name, &backend).await.map(Json)
}

async fn connections(
    State(handle): State<Handle>,
    filter: Result<Query<ConnectionFilter>, QueryRejection>,
) -> Answer<Vec<ConnectionView>> {
    let Query(filter) = filter.map_err(|e| ApiError::Invalid(e.body_text()))?;
    handle.connections(filter).await.map(Json)
}

async fn status(State(handle): State<Handle>) -> Json<StatusView> {
    Json(handle.shared.status())
}

async fn stats(State(handle): State<Handle>) -> Json<StatsView> {
    Json(handle.shared.stats())
}

async fn ready(State(handle): State<Handle>) -> Response {
    if handle.ready() {
        return "ready\n".into_response();
    }
    let problems = handle.shared.status().problems.join("\n");
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{problems}\n")).into_response()
}

async fn metrics(State(handle): State<Handle>) -> Response {
    match handle.shared.metrics() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(e) => ApiError::Failed(e.to_string()).into_response(),
    }
}
