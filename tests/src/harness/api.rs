//! The API over its socket, as a client has it that keeps its connection.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};

use super::Agent;

/// A client.
pub struct Api {
    runtime: Runtime,
    socket: PathBuf,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null if it isn't.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The sentence of a refusal.
    ///
    /// # Panics
    /// It isn't one, or not of one line.
    pub fn refused(&self, what: &str) -> String {
        let answer = self.json();
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{what}: {self:?}"));
        assert!((400..500).contains(&self.status), "{what}: {self:?}");
        assert!(!error.is_empty() && !error.contains('\n'), "{what}: {error}");
        error.into()
    }
}

impl Api {
    /// Of an agent that listens.
    pub fn of(agent: &Agent) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, socket: agent.config().with_file_name("api.sock"), sender: None }
    }

    /// Asks, and waits for the whole answer; of one that goes on for ever only its head.
    ///
    /// # Panics
    /// There is none.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let shown = || format!("{method} {path} {}", String::from_utf8_lossy(body));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = Request::builder().method(method).uri(path).header("host", "flowpin");
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
        let (socket, endless) = (&self.socket, path.contains("follow=true"));
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        let answered = self.runtime.block_on(async {
            let mut sender = match kept {
                Some(sender) => sender,
                None => {
                    let stream = UnixStream::connect(socket).await.expect("the agent listens");
                    let (sender, connection) =
                        http1::handshake(TokioIo::new(stream)).await.expect("a connection");
                    tokio::spawn(connection);
                    sender
                }
            };
            let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = answer.status().as_u16();
            if endless && status == 200 {
                return Ok((Answer { status, text: String::new() }, None));
            }
            let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Ok::<_, String>((Answer { status, text }, Some(sender)))
        });
        let (answer, sender) = answered.unwrap_or_else(|e| panic!("{}: no answer: {e}", shown()));
        self.sender = sender;
        answer
    }
}
