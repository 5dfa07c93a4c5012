//! What a request carries, read so that what can't be read is refused in the API's own shape and not in axum's.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::error::Refusal;
use crate::source::decl::read;

/// Names from the path, percent-decoded.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(value) = Path::from_request_parts(parts, state).await.map_err(|e| Refusal {
            status: e.status(),
            error: format!("path {}: {}", parts.uri.path(), e.body_text()),
        })?;
        Ok(Self(value))
    }
}

/// The query, each key known.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(value) = Query::from_request_parts(parts, state).await.map_err(|e| {
            let query = parts.uri.query().unwrap_or_default();
            Refusal { status: e.status(), error: format!("query \"{query}\": {}", e.body_text()) }
        })?;
        Ok(Self(value))
    }
}

/// A JSON body, whatever its content type says (`curl -d` says it is a form). No body at all is `{}`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| Refusal { status: e.status(), error: format!("body: {}", e.body_text()) })?;
        body(&bytes).map(Self)
    }
}

/// Reads a body.
///
/// # Errors
/// It isn't what is asked for.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = read(&mut json).and_then(|value| json.end().map(|()| value).map_err(|e| e.to_string()));
    value.map_err(|e| Refusal {
        status: StatusCode::BAD_REQUEST,
        error: format!("the body is not the JSON asked for: {e}; GET /v1/openapi.json says what it may be"),
    })
}
