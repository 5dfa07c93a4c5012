//! Backends: each says who it is, and then echoes.

use std::io;

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    netns::within,
    world::{BACKENDS, PORT},
};

/// Starts all of them; they end when the set is dropped.
///
/// # Errors
/// One can't listen.
pub fn start(tag: &str) -> anyhow::Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    for name in BACKENDS {
        let listener = within(tag, name, || {
            let listener = std::net::TcpListener::bind(("0.0.0.0", PORT))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        servers.spawn(accept(TcpListener::from_std(listener)?, name));
    }
    Ok(servers)
}

async fn accept(listener: TcpListener, name: &'static str) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        open.spawn(echo(stream, name));
    }
}

async fn echo(mut stream: TcpStream, name: &'static str) -> io::Result<()> {
    stream.write_all(format!("{name}\n").as_bytes()).await?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.map(drop)
}
