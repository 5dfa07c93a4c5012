//! Refusals, and the HTTP status that goes with each.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::types::ErrorView;
use crate::model::readable::readable;

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
    /// A sentence; sent as one [`line`](Self::line).
    pub error: String,
}

impl Refusal {
    /// What is sent of it.
    pub fn line(&self) -> String {
        readable(&self.error)
    }
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
        (self.status, Json(ErrorView { error: self.line() })).into_response()
    }
}
