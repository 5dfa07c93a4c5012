//! A collector that takes logs as OTLP/HTTP with JSON (opentelemetry.io/docs/specs/otlp): a request a block.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{block::Block, line, queue::Entry, writer::Failure};

/// How long a request may take.
const WAIT: Duration = Duration::from_secs(10);
/// The port of OTLP/HTTP, where the address has none.
const PORT: u16 = 4318;
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// See the module.
pub struct Collector {
    uri: Uri,
    resource: Value,
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn nanos(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

impl Collector {
    /// At this address.
    pub fn new(uri: Uri, node: Option<&str>) -> Self {
        let version = text("service.version", env!("CARGO_PKG_VERSION"));
        let mut about = vec![text("service.name", "flowpin"), version];
        about.extend(node.map(|node| text("host.name", node)));
        Self { uri, resource: json!({"attributes": about}) }
    }

    /// Hands over what is left of the block.
    ///
    /// # Errors
    /// It can't be reached or doesn't take it.
    pub async fn write(&mut self, block: &mut Block) -> Result<(), Failure> {
        if block.is_done() {
            return Ok(());
        }
        let body = self.body(block).to_string();
        let late =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", WAIT.as_secs()));
        let (status, answer) = timeout(WAIT, self.post(body)).await.map_err(late)??;
        // What these are for, by the protocol: again later.
        let later = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if later.contains(&status) {
            return Err(io::Error::other(format!("status {status}")).into());
        }
        if !status.is_success() {
            let why = format!("status {status}: {}", readable(&answer));
            return Err(Failure::Never { refused: u64::MAX, why });
        }
        block.finish();
        match rejected(&answer) {
            0 => Ok(()),
            refused => {
                Err(Failure::Never { refused, why: format!("records refused: {}", readable(&answer)) })
            }
        }
    }

    fn body(&self, block: &Block) -> Value {
        let observed = nanos(SystemTime::now());
        let records: Vec<Value> = block.left().map(|(entry, line)| record(entry, line, &observed)).collect();
        json!({"resourceLogs": [{
            "resource": self.resource,
            "scopeLogs": [{"scope": {"name": "flowpin.connections"}, "logRecords": records}],
        }]})
    }

    async fn post(&self, body: String) -> io::Result<(StatusCode, Bytes)> {
        let authority = self.uri.authority().map(ToString::to_string).unwrap_or_default();
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.uri.port_u16().unwrap_or(PORT))).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("flowpin/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let asked = async {
            let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            let answer = Limited::new(body, ANSWER).collect().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((head.status, answer.to_bytes()))
        };
        tokio::pin!(asked);
        // The connection does its part for as long as the answer is waited for.
        tokio::select! {
            answer = &mut asked => answer,
            ended = connection => {
                ended.map_err(io::Error::other)?;
                asked.await
            }
        }
    }
}

fn record(entry: &Entry, line: &[u8], observed: &str) -> Value {
    let body = json!({"stringValue": String::from_utf8_lossy(line)});
    match entry {
        Entry::Ended(ended) => json!({
            "timeUnixNano": nanos(ended.ended), "observedTimeUnixNano": observed,
            "severityNumber": 9, "severityText": "INFO", "body": body,
            "attributes": [
                text("flowpin.service", &ended.service),
                text("flowpin.backend", &line::backend(ended).to_string()),
                text("flowpin.termination", line::termination(ended.event.what)),
                text("client.address", &line::client(ended).ip().to_string()),
            ],
        }),
        Entry::Lost { since, .. } => json!({
            "timeUnixNano": nanos(*since), "observedTimeUnixNano": observed,
            "severityNumber": 13, "severityText": "WARN", "body": body,
        }),
    }
}

/// Records that an answer says weren't taken, of a request that was.
fn rejected(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedLogRecords"];
    count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0)
}

/// The beginning of an answer, for a message.
fn readable(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
