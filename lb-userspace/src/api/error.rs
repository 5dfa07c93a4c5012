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

/// So many characters of a sentence are shown, from its beginning and its end.
const SHOWN: usize = 500;

/// A sentence stays a line that can be read, whatever value it names: what would end the line, or do things to a terminal, is
/// escaped, and the middle of a very long one is left out.
fn readable(sentence: &str) -> String {
    let mut line = String::with_capacity(sentence.len());
    for c in sentence.chars() {
        if c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    let length = line.chars().count();
    if length <= 2 * SHOWN {
        return line;
    }
    let head: String = line.chars().take(SHOWN).collect();
    let tail: String = line.chars().skip(length - SHOWN).collect();
    format!("{head} ... ({} characters) ... {tail}", length - 2 * SHOWN)
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
        (self.status, Json(ErrorView { error: readable(&self.error) })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_line_that_can_be_read() {
        for (value, shown) in [
            ("a\nb", "a\\nb".to_string()),
            ("\u{1b}[2J", "\\u{1b}[2J".into()),
            ("caf\u{e9}", "caf\u{e9}".into()),
            (&"x".repeat(1_000), "x".repeat(1_000)),
            (
                &"x".repeat(1_000_000),
                format!("{} ... (999000 characters) ... {}", "x".repeat(500), "x".repeat(500)),
            ),
        ] {
            assert_eq!(readable(value), shown);
        }
    }
}
