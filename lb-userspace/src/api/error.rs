//! A refusal, with the HTTP status that goes with it.

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

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Invalid(e) => (StatusCode::BAD_REQUEST, e),
            Self::NotFound(e) => (StatusCode::NOT_FOUND, e),
            Self::Conflict(e) => (StatusCode::CONFLICT, e),
            Self::Failed(e) => (StatusCode::INTERNAL_SERVER_ERROR, e),
        };
        (status, Json(ErrorView { error })).into_response()
    }
}
