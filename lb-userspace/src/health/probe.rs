//! One check of one backend: from the node, to the backend itself.

use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::tls;
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
    match probe {
        Probe::Tcp => {
            let stream = connect(to).await?;
            // A reset instead of a farewell: the backend isn't left with a connection to wind up.
            let _ = stream.set_zero_linger();
            Ok(())
        }
        Probe::Http { tls, path, host, expect } => {
            let stream = connect(to).await?;
            let authority = host.clone().unwrap_or_else(|| to.to_string());
            if !tls {
                return get(stream, &authority, path, *expect).await;
            }
            let name = host.clone().unwrap_or_else(|| to.ip().to_string());
            let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
            let stream = tls::connector()?.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
            get(stream, &authority, path, *expect).await
        }
        Probe::Grpc { service } => serving(to, service).await,
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(to).await.map_err(|e| e.to_string())
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
    path: &str,
    expect: u16,
) -> Result<(), String> {
    let words = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let request = Request::get(path)
        .header(HOST, authority)
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

/// The gRPC health checking protocol, `grpc.health.v1`.
async fn serving(to: SocketAddr, service: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| innermost(&e))?;
    let asked = HealthCheckRequest { service: service.into() };
    let answer = HealthClient::new(channel).check(asked).await;
    let status = answer.map_err(|status| format!("gRPC: {}", status.message()))?.into_inner().status();
    if status == ServingStatus::Serving {
        return Ok(());
    }
    Err(format!("{} instead of SERVING", status.as_str_name()))
}

/// What an error comes from: its outer layers only name themselves.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
