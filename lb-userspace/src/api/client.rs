//! The API's client: one request, one connection.

use std::path::{Path, PathBuf};

use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::types::ErrorView;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error(
        "no agent answers on {path} ({error}); start one with: flowpin agent --config FILE, or give --api-socket"
    )]
    Unreachable {
        /// Socket.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// It said something that can't be understood.
    #[error(
        "the agent on {path} gave an answer that can't be understood ({error}); is it of another version?"
    )]
    Garbled {
        /// Socket.
        path: String,
        /// What.
        error: String,
    },
}

/// A client of the agent behind a socket.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// For this socket. Nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// GET.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, &()).await
    }
    /// POST.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.request(Method::POST, path, body).await
    }
    /// DELETE.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, path, &()).await
    }

    async fn request<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let shown = || self.socket.display().to_string();
        let garbled = |error: String| ClientError::Garbled { path: shown(), error };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| ClientError::Unreachable { path: shown(), error })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| garbled(e.to_string()))?;
        tokio::spawn(connection);
        let body = serde_json::to_vec(body).map_err(|e| garbled(e.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "flowpin")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .map_err(|e| garbled(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| garbled(e.to_string()))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|e| garbled(e.to_string()))?.to_bytes();
        if status != StatusCode::OK {
            let refusal = serde_json::from_slice::<ErrorView>(&bytes);
            return Err(refusal.map_or_else(|e| garbled(e.to_string()), |r| ClientError::Refused(r.error)));
        }
        serde_json::from_slice(&bytes).map_err(|e| garbled(e.to_string()))
    }
}

/// A path segment, percent-encoded: names may hold a slash, IPv6 addresses hold brackets and colons.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        assert_eq!(segment("ns/app"), "ns%2Fapp");
        assert_eq!(segment("[fd00::1]:80"), "%5Bfd00%3A%3A1%5D%3A80");
        assert_eq!(segment("10.0.0.1"), "10.0.0.1");
    }
}
