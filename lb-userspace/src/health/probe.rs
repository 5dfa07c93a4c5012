//! One check of one backend: from the node, to the backend itself.

use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::model::health::{HealthSpec, Probe};

/// Checks it. `Err`: in a few words, why it failed.
///
/// # Errors
/// The backend isn't well.
pub async fn check(spec: &HealthSpec, to: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(spec.timeout, ask(&spec.probe, to)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(spec.timeout))),
    }
}

async fn ask(probe: &Probe, to: SocketAddr) -> Result<(), String> {
    let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
    match probe {
        Probe::Tcp => {
            // A reset instead of a farewell: the backend isn't left with a connection to wind up.
            let _ = stream.set_zero_linger();
            Ok(())
        }
        Probe::Http { path, expect } => get(stream, to, path, *expect).await,
    }
}

async fn get(stream: TcpStream, to: SocketAddr, path: &str, expect: u16) -> Result<(), String> {
    let words = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let request = Request::get(path)
        .header(HOST, to.to_string())
        .header("user-agent", concat!("flowpin/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection does its part for as long as the answer is waited for. When it ends first, the answer has come, or never will.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(words)?;
            answer.await
        }
    };
    let status = answer.map_err(words)?.status().as_u16();
    if status == expect { Ok(()) } else { Err(format!("status {status} instead of {expect}")) }
}
