//! Refusals, and the HTTP status that goes with each.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::types::ErrorView;

/// What the API says no with. One line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// 400: the request is wrong.
    Invalid(String),
    /// 404: no such service or backend.
    NotFound(String),
    /// 409: it exists already, or belongs to the config file.
    Conflict(String),
    /// 500: the kernel or the disk refused.
    Failed(String),
}

/// An answer that is not 2xx, in the one shape that they all have.
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// One line.
    pub error: String,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let (status, error) = match error {
            ApiError::Invalid(e) => (StatusCode::BAD_REQUEST, e),
            ApiError::NotFound(e) => (StatusCode::NOT_FOUND, e),
            ApiError::Conflict(e) => (StatusCode::CONFLICT, e),
            ApiError::Failed(e) => (StatusCode::INTERNAL_SERVER_ERROR, e),
        };
        Self { status, error }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorView { error: self.error })).into_response()
    }
}
