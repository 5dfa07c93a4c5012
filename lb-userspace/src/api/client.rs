//! The command line's way to the agent: one request, one connection, one answer.

mod events;
mod nodes;

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

pub use self::events::Events;
use super::types::*;

/// How long an answer may take. A million connections are listed in a few seconds; an agent that needs longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What RFC 3986 leaves as it is in a path segment or a query value. Everything else is encoded, the slash of `namespace/name`
/// and the brackets of IPv6 included.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("the agent can't be reached at {}: {why}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What happened and what to do.
        why: String,
    },
    /// The agent says no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The agent's sentence.
        message: String,
    },
    /// What answers is not a Flowpin agent of this version.
    #[error("the agent at {} answered {what}; are agent and command of the same version?", path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is odd about it.
        what: String,
    },
}

/// A client of the agent at one socket. Holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// One path segment.
fn segment(text: &str) -> impl Display {
    utf8_percent_encode(text, RESERVED)
}

fn backend_path(service: &str, backend: &str) -> String {
    format!("/v1{}", backend_of(service, backend))
}

/// A backend's path, at this node or at all.
fn backend_of(service: &str, backend: &str) -> String {
    format!("/services/{}/backends/{}", segment(service), segment(backend))
}

fn connections_path(query: &ConnectionQuery) -> String {
    let limit = query.limit.map(|n| n.to_string());
    let given = [
        ("service", &query.service),
        ("backend", &query.backend),
        ("client", &query.client),
        ("state", &query.state),
        ("sort", &query.sort),
        ("limit", &limit),
    ];
    let text: Vec<String> = given
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", segment(value.as_deref()?))))
        .collect();
    format!("/v1/connections?{}", text.join("&"))
}

impl Client {
    /// Of the agent at `socket`; nothing is sent yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// All services.
    ///
    /// # Errors
    /// As all of the methods: unreachable, refused, not understood.
    pub async fn services(&self) -> Result<Vec<ServiceView>, ClientError> {
        self.get("/v1/services").await
    }

    /// One service.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn service(&self, name: &str) -> Result<ServiceView, ClientError> {
        self.get(&format!("/v1/services/{}", segment(name))).await
    }

    /// Adds a service.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn add_service(&self, add: &impl Serialize) -> Result<ServiceView, ClientError> {
        self.post("/v1/services", add).await
    }

    /// Changes what is named of a service.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn set_service(&self, name: &str, change: &Patch) -> Result<ServiceView, ClientError> {
        self.patch(&format!("/v1/services/{}", segment(name)), change).await
    }

    /// Removes a service.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn remove_service(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&format!("/v1/services/{}", segment(name))).await
    }

    /// Adds a backend, or changes one.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn add_backend(&self, service: &str, add: &BackendDecl) -> Result<BackendView, ClientError> {
        self.post(&format!("/v1/services/{}/backends", segment(service)), add).await
    }

    /// Changes what is named of a backend.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn set_backend(
        &self,
        service: &str,
        backend: &str,
        change: &Patch,
    ) -> Result<BackendView, ClientError> {
        self.patch(&backend_path(service, backend), change).await
    }

    /// Removes a backend.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn remove_backend(&self, service: &str, backend: &str) -> Result<(), ClientError> {
        self.delete(&backend_path(service, backend)).await
    }

    /// Drains a backend.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn drain(
        &self,
        service: &str,
        backend: &str,
        drain: &Drain,
    ) -> Result<BackendView, ClientError> {
        self.post(&format!("{}/drain", backend_path(service, backend)), drain).await
    }

    /// Takes a drain back.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn undrain(&self, service: &str, backend: &str) -> Result<BackendView, ClientError> {
        self.post(&format!("{}/undrain", backend_path(service, backend)), &Drain::default()).await
    }

    /// Pinned flows.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn connections(&self, query: &ConnectionQuery) -> Result<Vec<ConnectionView>, ClientError> {
        self.get(&connections_path(query)).await
    }

    /// The same as JSON, handed to `out` as it comes.
    ///
    /// # Errors
    /// See [`Client::services`]; and `out`'s.
    pub async fn copy_connections<E: From<ClientError>>(
        &self,
        query: &ConnectionQuery,
        mut out: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut body = self.request(Method::GET, &connections_path(query), Bytes::new()).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.broken(&e))?;
            frame.data_ref().map_or(Ok(()), |data| out(data))?;
        }
        Ok(())
    }

    /// Closes connections. Takes as long as it takes: nobody knows beforehand how many there are.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn close_connections(&self, close: &ConnectionClose) -> Result<Closed, ClientError> {
        self.read(&self.exchange(Method::POST, "/v1/connections/close", self.json(close)?).await?)
    }

    /// Stops balancing. Returns when the agent has begun to.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn detach(&self, detach: &Detach) -> Result<DetachedView, ClientError> {
        self.post("/v1/detach", detach).await
    }

    /// Balances again.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn attach(&self) -> Result<(), ClientError> {
        self.send(Method::POST, "/v1/attach", Bytes::new()).await.map(|_| ())
    }

    /// Events, one by one.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn events(&self, query: &EventQuery) -> Result<Events<'_>, ClientError> {
        let service = query.service.as_ref().map(|s| format!("&service={}", segment(s))).unwrap_or_default();
        let path = format!("/v1/events?follow={}{service}", query.follow);
        let body = self.request(Method::GET, &path, Bytes::new()).await?.into_body();
        Ok(Events { client: self, body, buffer: Vec::new() })
    }

    /// Where a client is, or would be given to.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn explain(&self, query: &ExplainQuery) -> Result<ExplainView, ClientError> {
        let protocol = query.protocol.as_deref().unwrap_or("tcp");
        let (client, vip) = (segment(&query.client), segment(&query.vip));
        self.get(&format!("/v1/explain?client={client}&vip={vip}&protocol={protocol}")).await
    }

    /// State of agent and datapath.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn status(&self) -> Result<StatusView, ClientError> {
        self.get("/v1/status").await
    }

    /// Counters.
    ///
    /// # Errors
    /// See [`Client::services`].
    pub async fn stats(&self) -> Result<StatsView, ClientError> {
        self.get("/v1/stats").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.send(Method::GET, path, Bytes::new()).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.read(&self.send(Method::POST, path, self.json(body)?).await?)
    }

    async fn patch<T: DeserializeOwned>(&self, path: &str, change: &Patch) -> Result<T, ClientError> {
        self.read(&self.send(Method::PATCH, path, self.json(change)?).await?)
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        let json = serde_json::to_vec(body);
        json.map(Bytes::from).map_err(|e| self.odd(format!("nothing: the request has no JSON form: {e}")))
    }

    async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, Bytes::new()).await.map(|_| ())
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.odd(format!("something else than was asked for ({e})")))
    }

    fn odd(&self, what: String) -> ClientError {
        ClientError::NotUnderstood { path: self.socket.clone(), what }
    }

    fn unreachable(&self, why: impl Into<String>) -> ClientError {
        ClientError::Unreachable { path: self.socket.clone(), why: why.into() }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        match tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!(
                "it took the request and gave no answer within {} s; see its log",
                PATIENCE.as_secs()
            ))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let response = self.request(method, path, body).await?;
        Ok(response.into_body().collect().await.map_err(|e| self.broken(&e))?.to_bytes())
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        self.unreachable(format!("it hung up before it had answered ({error}); see its log"))
    }

    /// Sends a request; an answer that is a yes.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(why_unreachable(&e)))?;
        let broken = |e: hyper::Error| self.broken(&e);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the exchange; its errors come back through `sender` as well.
        #[expect(clippy::disallowed_methods, reason = "of the command line, which ends first")]
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "flowpin")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| self.odd(format!("nothing: {path} is no path ({e})")))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        match serde_json::from_slice::<ErrorView>(&body) {
            Ok(view) => Err(ClientError::Refused { status, message: view.error }),
            Err(_) => Err(self.odd(format!("with status {status} and no reason"))),
        }
    }
}

/// What a failed connect means to an operator, and the remedy.
fn why_unreachable(error: &io::Error) -> String {
    const START: &str = "start it with \"flowpin agent\", or name its socket with --api-socket";
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no such socket; {START}"),
        io::ErrorKind::ConnectionRefused => format!("nobody listens there, the agent has stopped; {START}"),
        io::ErrorKind::PermissionDenied => {
            "permission denied; run this as root or as a member of the socket's group".into()
        }
        _ => format!("{error}; {START}"),
    }
}
