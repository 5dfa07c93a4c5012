//! What each route does: read the request, ask [`Control`], shape the answer.

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::{
    control::{ApiError, Control},
    error::{Asked, Body, Named, Refusal},
    types::*,
};
use crate::model::{backend_name, service::parse_backend};

/// What prometheus-client's text encoder writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The states that [`ConnectionView::state`] can have.
const STATES: [&str; 5] = ["syn-sent", "established", "closing", "closed", "active"];

type Answer<T> = Result<Json<T>, Refusal>;

/// The form in which [`Control`] knows a backend, whichever way the address was written.
fn canonical(service: &str, backend: &str) -> Result<String, ApiError> {
    let (address, port) = parse_backend(service, backend).map_err(|e| ApiError::Invalid(e.to_string()))?;
    Ok(backend_name(address, port))
}

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
    let backend = canonical(&service, &backend)?;
    control.remove_backend(service, backend).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn drain<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
    Body(drain): Body<Drain>,
) -> Answer<BackendView> {
    let backend = canonical(&service, &backend)?;
    Ok(Json(control.drain(service, backend, drain).await?))
}

pub async fn undrain<C: Control>(
    State(control): State<C>,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<BackendView> {
    let backend = canonical(&service, &backend)?;
    Ok(Json(control.undrain(service, backend).await?))
}

pub async fn connections<C: Control>(
    State(control): State<C>,
    Asked(mut filter): Asked<ConnectionFilter>,
) -> Answer<Vec<ConnectionView>> {
    if let Some(state) = &filter.state
        && !STATES.contains(&state.as_str())
    {
        return Err(
            ApiError::Invalid(format!("state \"{state}\" is not known; use {}", STATES.join(", "))).into()
        );
    }
    for (what, end) in [("backend", &mut filter.backend), ("client", &mut filter.client)] {
        if let Some(text) = end {
            let (address, port) = parse_backend("", text).map_err(|_| {
                ApiError::Invalid(format!(
                    "{what} \"{text}\" is not an address; write 10.0.1.11, 10.0.1.11:5432 or [fd00::11]:5432"
                ))
            })?;
            *text = backend_name(address, port);
        }
    }
    Ok(Json(control.connections(filter).await?))
}

pub async fn status<C: Control>(State(control): State<C>) -> Answer<StatusView> {
    Ok(Json(control.status().await?))
}

pub async fn stats<C: Control>(State(control): State<C>) -> Answer<StatsView> {
    Ok(Json(control.stats().await?))
}

pub async fn metrics<C: Control>(State(control): State<C>) -> Result<Response, Refusal> {
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], control.metrics().await?).into_response())
}

/// Alive: it answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn readyz<C: Control>(State(control): State<C>) -> (StatusCode, &'static str) {
    if control.ready().await {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: \"flowpin status\" says why\n")
    }
}

pub async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}; start at /v1/services or /v1/status", uri.path()),
    )
}

pub async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not for {}; the answer's Allow header names what is", uri.path()),
    )
}
