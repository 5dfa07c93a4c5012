//! One check of one backend: from the node, to the backend itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use lb_probes::Until;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout_at},
};
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{exec, tls};
use crate::model::health::{HealthSpec, Probe, statuses};

/// Why a check failed, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The backend isn't well.
    There(String),
    /// The node lacks what a check takes, which says nothing of the backend.
    Here(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::There(why)
    }
}

impl Failure {
    /// Of a connection that couldn't be opened: whose fault is it? Files, memory and ports are the node's. A check keeps none of
    /// them when it is over, so that it is others that have taken them.
    fn of(error: &std::io::Error) -> Self {
        let remedy = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "raise the node's limits of open files",
            Some(libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC) => "give the node memory",
            Some(libc::EADDRNOTAVAIL) => {
                "see with ss -tan who has the local ports towards it, or widen net.ipv4.ip_local_port_range"
            }
            _ => return Self::There(error.to_string()),
        };
        Self::Here(format!("{error}; {remedy}"))
    }

    /// Which of several paths it is about.
    fn of_path(self, path: &str) -> Self {
        match self {
            Self::There(why) => Self::There(format!("{path}: {why}")),
            here => here,
        }
    }

    /// Of a check that panicked.
    pub fn panicked(words: &str) -> Self {
        Self::Here(format!("a check panicked: {words}; report it, with the log"))
    }
}

/// Checks it, for a service.
///
/// # Errors
/// The backend isn't well, or can't be checked.
pub async fn check(spec: &HealthSpec, service: &str, to: SocketAddr) -> Result<(), Failure> {
    let late = || format!("no answer within {}", humantime::format_duration(spec.timeout));
    let deadline = Instant::now() + spec.timeout;
    let end = match &spec.probe {
        Probe::Exec { command } => return exec::run(command, service, to, deadline, &late()).await,
        Probe::Talk(_) | Probe::Redis(_) | Probe::Postgres(_) | Probe::MySql(_) => deadline + LAST_WORDS,
        Probe::Tcp | Probe::Http { .. } | Probe::Grpc { .. } | Probe::Udp { .. } => deadline,
    };
    match timeout_at(end, ask(&spec.probe, to, deadline, &late)).await {
        Ok(answer) => answer,
        // To an empty datagram nobody owes an answer.
        Err(_) if matches!(&spec.probe, Probe::Udp { send } if send.is_empty()) => Ok(()),
        Err(_) => Err(late().into()),
    }
}

/// A conversation ends by itself when its time is over, and says what had come: so long after that it is ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

async fn ask(
    probe: &Probe,
    to: SocketAddr,
    deadline: Instant,
    late: &impl Fn() -> String,
) -> Result<(), Failure> {
    let until = async || match timeout_at(deadline, connect(to)).await {
        Ok(stream) => stream.map(|stream| Until::new(stream, deadline, late())),
        Err(_) => Err(Failure::from(late())),
    };
    match probe {
        Probe::Tcp => {
            let stream = connect(to).await?;
            // A reset instead of a farewell: the backend isn't left with a connection to wind up.
            let _ = stream.set_zero_linger();
            Ok(())
        }
        Probe::Http { tls, paths, host, expect } => {
            for path in paths {
                let answer = page(to, *tls, host.as_deref(), path, expect);
                let answer = timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(late().into()));
                match answer {
                    Err(failure) if paths.len() > 1 => return Err(failure.of_path(path)),
                    answer => answer?,
                }
            }
            Ok(())
        }
        Probe::Grpc { service } => serving(to, service).await,
        Probe::Udp { send } => datagram(send, to).await,
        // Streams are dropped, not reset: databases would log it.
        Probe::Talk(conversation) => Ok(conversation.check(until().await?).await?),
        Probe::Redis(redis) => Ok(redis.check(until().await?).await?),
        Probe::Postgres(postgres) => Ok(postgres.check(until().await?).await?),
        Probe::MySql(mysql) => Ok(mysql.check(until().await?).await?),
        // Not asked by the agent itself.
        Probe::Exec { .. } => Ok(()),
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(to).await.map_err(|e| Failure::of(&e))
}

/// Asks for a path, over a connection of its own.
async fn page(
    to: SocketAddr,
    tls: bool,
    host: Option<&str>,
    path: &str,
    expect: &[RangeInclusive<u16>],
) -> Result<(), Failure> {
    let stream = connect(to).await?;
    let authority = host.map_or_else(|| to.to_string(), String::from);
    if !tls {
        return Ok(get(stream, &authority, path, expect).await?);
    }
    let name = host.map_or_else(|| to.ip().to_string(), String::from);
    let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
    let stream = tls::connector()?.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
    Ok(get(stream, &authority, path, expect).await?)
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    authority: &str,
    path: &str,
    expect: &[RangeInclusive<u16>],
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
    if expect.iter().any(|good| good.contains(&status)) {
        return Ok(());
    }
    Err(format!("status {status} instead of {}", statuses(expect)))
}

/// Sends it a datagram, and waits for an answer, of which nothing is looked at but that it comes.
async fn datagram(send: &str, to: SocketAddr) -> Result<(), Failure> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let answer = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(to).await?;
        socket.send(send.as_bytes()).await?;
        socket.recv(&mut [0; 1]).await
    };
    answer.await.map(drop).map_err(|e| Failure::of(&e))
}

/// The gRPC health checking protocol, `grpc.health.v1`.
async fn serving(to: SocketAddr, service: &str) -> Result<(), Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| innermost(&e))?;
    let asked = HealthCheckRequest { service: service.into() };
    let answer = HealthClient::new(channel).check(asked).await;
    let status = answer.map_err(|status| format!("gRPC: {}", status.message()))?.into_inner().status();
    if status == ServingStatus::Serving {
        return Ok(());
    }
    Err(format!("{} instead of SERVING", status.as_str_name()).into())
}

/// What an error comes from: its outer layers only name themselves.
fn innermost(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.downcast_ref().map_or_else(|| error.to_string().into(), Failure::of)
}

#[cfg(test)]
mod tests;
