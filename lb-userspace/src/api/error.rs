//! One shape for every refusal, also for those that axum would word itself: paths, queries and bodies that can't be read.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{control::ApiError, types::ErrorView};

/// An answer that is not 2xx.
pub struct Refusal(StatusCode, String);

impl Refusal {
    /// With a status of the caller's choice.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, error.into())
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Invalid(e) => Self(StatusCode::BAD_REQUEST, e),
            ApiError::NotFound(e) => Self(StatusCode::NOT_FOUND, e),
            ApiError::Conflict(e) => Self(StatusCode::CONFLICT, e),
            ApiError::Failed(e) => Self(StatusCode::INTERNAL_SERVER_ERROR, e),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorView { error: self.1 })).into_response()
    }
}

/// Names from the path, percent-decoded.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(e) => Err(Refusal(e.status(), format!("path {}: {}", parts.uri.path(), e.body_text()))),
        }
    }
}

/// The query, each key known.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(e) => {
                let query = parts.uri.query().unwrap_or_default();
                Err(Refusal(e.status(), format!("query \"{query}\": {}", e.body_text())))
            }
        }
    }
}

/// A JSON body, whatever its content type says (`curl -d` says it is a form). No body at all is `{}`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| Refusal(e.status(), format!("body: {}", e.body_text())))?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        match serde_json::from_slice(text) {
            Ok(value) => Ok(Self(value)),
            Err(e) => {
                Err(Refusal(StatusCode::BAD_REQUEST, format!("the body is not the JSON asked for: {e}")))
            }
        }
    }
}
