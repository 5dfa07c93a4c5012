//! What each route does: read the request, ask [`Control`], shape the answer.

use axum::{
    Json,
    body::Body as Stream,
    extract::State,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream};

use super::{
    control::Control,
    error::Refusal,
    extract::{Asked, Body, Named},
    types::{
        BackendAdd, BackendView, Closed, ConnectionClose, ConnectionQuery, Drain, EventQuery, ExplainQuery,
        ExplainView, ServiceAdd, ServiceView, StatsView, StatusView,
    },
};

/// What prometheus-client's text encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Elements of a long list that are sent together, if there are as many.
const TOGETHER: usize = 1024;

/// JSON, an object a line.
const NDJSON: &str = "application/x-ndjson";

type Answer<T> = Result<Json<T>, Refusal>;

pub async fn services<C: Control>(State(control): State<C>) -> Answer<Vec<ServiceView>> {
    Ok(Json(control.services().await?))
}

pub async fn service<C: Control>(
    State(control): State<C>,
    Named(name): Named<String>,
) -> Answer<ServiceView> {
    Ok(Json(control.service(name).await?))
}

pub async fn add_service<C: Control>(
    State(control): State<C>,
    Body(add): Body<ServiceAdd>,
) -> Result<(StatusCode, Json<ServiceView>), Refusal> {
    Ok((StatusCode::CREATED, Json(control.add_service(add).await?)))
}

pub async fn remove_service<C: Control>(
    State(control): State<C>,
    Named(name): Named<String>,
) -> Result<StatusCode, Refusal> {
    control.remove_service(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn backends<C: Control>(
    State(control): State<C>,
    Named(name): Named<String>,
) -> Answer<Vec<BackendView>> {
    Ok(Json(control.service(name).await?.backends))
}

pub async fn add_backend<C: Control>(
    State(control): State<C>,
    Named(service): Named<String>,
    Body(add): Body<BackendAdd>,
) -> Answer<BackendView> {
    Ok(Json(control.add_backend(service, add).await?))
}

pub async fn remove_backend<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Result<StatusCode, Refusal> {
    control.remove_backend(service, backend).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn drain<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
    Body(drain): Body<Drain>,
) -> Answer<BackendView> {
    Ok(Json(control.drain(service, backend, drain).await?))
}

pub async fn undrain<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<BackendView> {
    Ok(Json(control.undrain(service, backend).await?))
}

/// A JSON list, written as its elements come, a line each.
pub async fn connections<C: Control>(
    State(control): State<C>,
    Asked(query): Asked<ConnectionQuery>,
) -> Result<Response, Refusal> {
    let elements = control.connections(query).await?.enumerate().ready_chunks(TOGETHER).map(|some| {
        let mut text = Vec::new();
        for (i, connection) in some {
            text.extend_from_slice(if i == 0 { b"" } else { b",\n" });
            serde_json::to_writer(&mut text, &connection)?;
        }
        Ok::<_, serde_json::Error>(text)
    });
    let part = |text: &str| stream::iter([Ok(text.as_bytes().to_vec())]);
    let list = part("[").chain(elements).chain(part("]\n"));
    Ok(([(header::CONTENT_TYPE, "application/json")], Stream::from_stream(list)).into_response())
}

pub async fn close_connections<C: Control>(
    State(control): State<C>,
    Body(close): Body<ConnectionClose>,
) -> Answer<Closed> {
    Ok(Json(control.close_connections(close).await?))
}

/// A line of JSON for each event, for as long as there are any.
pub async fn events<C: Control>(
    State(control): State<C>,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, Refusal> {
    let lines = control.events(query).await?.map(|event| {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(line)
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Stream::from_stream(lines)).into_response())
}

pub async fn explain<C: Control>(
    State(control): State<C>,
    Asked(query): Asked<ExplainQuery>,
) -> Answer<ExplainView> {
    Ok(Json(control.explain(query).await?))
}

pub async fn status<C: Control>(State(control): State<C>) -> Answer<StatusView> {
    Ok(Json(control.status().await?))
}

pub async fn stats<C: Control>(State(control): State<C>) -> Answer<StatsView> {
    Ok(Json(control.stats().await?))
}

pub async fn metrics<C: Control>(State(control): State<C>) -> Result<Response, Refusal> {
    let pieces = stream::iter(control.metrics().await?.map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], Stream::from_stream(pieces)).into_response())
}

/// Alive: it answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Balancing: the desired state is in force and everything is attached. If not, why.
pub async fn readyz<C: Control>(State(control): State<C>) -> (StatusCode, String) {
    if control.ready().await {
        return (StatusCode::OK, "ready\n".into());
    }
    let problems = control.status().await.map_or_else(|_| Vec::new(), |s| s.problems);
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", problems.join("\n")))
}

pub async fn no_such_path(uri: Uri) -> Refusal {
    let error = format!("there is nothing at {}; start at /v1/services or /v1/status", uri.path());
    Refusal { status: StatusCode::NOT_FOUND, error }
}

pub async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let error = format!("{method} is not for {}; the Allow header of this answer says what is", uri.path());
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, error }
}
