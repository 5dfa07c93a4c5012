//! Connections that this node makes: one to each other node, on which it sends. What the other sends comes on the
//! connection that it makes.

use std::{collections::BTreeMap, net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::BytesMut;
use rand::RngExt as _;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpStream, lookup_host},
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tracing::{error, info};

use crate::{
    Reason,
    context::{Context, HANDSHAKE, reason},
    links::{Link, Links},
    names,
    outbox::PORTION,
    view::PeerState,
    wire::{ALIVE, HERE, ReadError, Reader},
};

/// How often names are resolved.
const RESOLVE: Duration = Duration::from_secs(30);
/// The same when a node has connected that isn't known.
const RESOLVE_SOON: Duration = Duration::from_secs(1);
/// How long a name server may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// Pause before the second attempt; it doubles.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Connects to all addresses of all peers, and looks for new ones, until nobody can say any more who they are.
pub(crate) async fn keep(context: Context, mut peers: watch::Receiver<Vec<String>>) {
    let mut tasks = JoinSet::new();
    let mut of = BTreeMap::new();
    loop {
        let resolved = Instant::now();
        let configured = peers.borrow_and_update().clone();
        context.peers.configured(&configured);
        resolve(&context, &configured).await;
        for address in context.peers.addresses() {
            if !of.values().any(|it| *it == address) {
                of.insert(tasks.spawn(keep_one(context.clone(), address)).id(), address);
            }
        }
        let pause = async {
            tokio::select! {
                () = sleep(RESOLVE) => true,
                changed = peers.changed() => changed.is_ok(),
                () = context.links.wanted.notified() => {
                    sleep(RESOLVE_SOON.saturating_sub(resolved.elapsed())).await;
                    true
                }
            }
        };
        tokio::pin!(pause);
        loop {
            tokio::select! {
                goes_on = &mut pause => {
                    if goes_on {
                        break;
                    }
                    return;
                }
                Some(ended) = tasks.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    let address = of.remove(&id);
                    if let (Err(error), Some(address)) = (ended, address) {
                        error!("connecting to {address}: {error}; it is tried again");
                    }
                }
            }
        }
    }
}

async fn resolve(context: &Context, peers: &[String]) {
    let mut tasks = JoinSet::new();
    for peer in peers.iter().cloned() {
        tasks.spawn(async move {
            let found = match timeout(RESOLVE_LIMIT, lookup_host(&peer)).await {
                Ok(Ok(found)) => Ok(found.collect()),
                Ok(Err(error)) => Err(format!("can't be resolved: {error}")),
                Err(_) => Err("no name server has answered".to_owned()),
            };
            (peer, found)
        });
    }
    while let Some(resolved) = tasks.join_next().await {
        match resolved {
            Ok((peer, found)) => context.peers.resolved(&peer, found),
            Err(error) => error!("resolving names of peers: {error}"),
        }
    }
}

/// What has come of an attempt.
enum Outcome {
    /// It is this node.
    Itself,
    /// It is a node to which there is a connection already.
    Elsewhere(String),
    /// There was a connection, and why it has ended.
    Ended(String),
    /// There was none.
    Failed(String),
}

/// Connects to an address over and over, for as long as it is a peer's.
async fn keep_one(context: Context, address: SocketAddr) {
    let mut longest = FIRST_PAUSE;
    while context.peers.has(address) {
        let began = Instant::now();
        let outcome = attempt(&context, address).await;
        if matches!(outcome, Outcome::Ended(_)) && began.elapsed() > longest {
            longest = FIRST_PAUSE;
        }
        let state = match outcome {
            Outcome::Itself => PeerState::Itself,
            Outcome::Elsewhere(name) => PeerState::Elsewhere(name),
            Outcome::Ended(why) | Outcome::Failed(why) => PeerState::Failing(why),
        };
        let quiet = matches!(state, PeerState::Itself);
        let elsewhere = match &state {
            PeerState::Elsewhere(name) => Some(name.clone()),
            _ => None,
        };
        context.peers.set(address, Some(state));
        if quiet {
            sleep(RESOLVE).await;
            continue;
        }
        while elsewhere.as_ref().is_some_and(|name| context.links.is_connected(name)) {
            sleep(LONGEST_PAUSE).await;
        }
        // Not all at once, if all have lost their connection at once.
        let wait = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        let wanted = context.links.wanted.notified();
        tokio::pin!(wanted);
        wanted.as_mut().enable();
        sleep(wait.min(FIRST_PAUSE)).await;
        tokio::select! {
            () = sleep(wait.saturating_sub(FIRST_PAUSE)) => longest = (longest * 2).min(LONGEST_PAUSE),
            () = wanted => longest = FIRST_PAUSE,
        }
    }
    context.peers.set(address, None);
}

async fn attempt(context: &Context, address: SocketAddr) -> Outcome {
    let links = &context.links;
    let failed = |why: &dyn std::fmt::Display| Outcome::Failed(why.to_string());
    let stream = match timeout(HANDSHAKE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return failed(&"no answer"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        return failed(&error);
    }
    let connector = TlsConnector::from(context.identities.current().client);
    let Ok(cluster) = ServerName::try_from(names::of_cluster(&links.cluster)) else {
        return failed(&"the cluster's name is none");
    };
    let stream = match timeout(HANDSHAKE, connector.connect(cluster, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let reason = reason(&error);
            if reason != Reason::Handshake {
                links.refuse(reason, None, &address, &error);
            }
            return failed(&error);
        }
        Err(_) => return failed(&"no TLS handshake in time; is it Flowpin's port?"),
    };
    let name = match names::node_of(stream.get_ref().1.peer_certificates(), &links.cluster) {
        Ok(name) => name,
        Err(why) => {
            links.refuse(Reason::Name, None, &address, &why);
            return Outcome::Failed(why);
        }
    };
    if name == links.node {
        return Outcome::Itself;
    }
    if links.is_connected(&name) {
        return Outcome::Elsewhere(name);
    }
    let (read, write) = split(stream);
    let mut reader = Reader::new(read);
    // Only now it is known that the other end takes this node's certificate.
    if let Err(error) = reader.next().await {
        return failed(&error);
    }
    let Some(link) = links.connected(&name, Some(address)) else { return Outcome::Elsewhere(name) };
    context.peers.set(address, Some(PeerState::Connected(name.clone())));
    info!("connected to node {name} at {address}");
    let why = tokio::select! {
        why = hear(links, &link, &mut reader) => why,
        why = send(links, &link, write) => why,
    };
    info!("the connection to node {name} at {address} has ended: {why}");
    Outcome::Ended(why)
}

/// The other end only says that it is there.
async fn hear(links: &Links, link: &Link, reader: &mut Reader<impl tokio::io::AsyncRead + Unpin>) -> String {
    loop {
        links.heard(&link.meter);
        match reader.next().await {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(_) => {
                let why = "frames come on the connection of the node that sends them";
                links.refuse(Reason::Malformed, Some(&link.meter), &link.name, &why);
                return why.to_owned();
            }
            Err(error) => {
                if let ReadError::Malformed(error) = &error {
                    links.refuse(Reason::Malformed, Some(&link.meter), &link.name, error);
                }
                return error.to_string();
            }
        }
    }
}

async fn send(links: &Links, link: &Link, mut stream: impl AsyncWrite + Unpin) -> String {
    let Some(outbox) = &link.outbox else { return String::new() };
    let mut buffer = BytesMut::new();
    loop {
        buffer.clear();
        let frames = timeout(ALIVE, outbox.take(&mut buffer, PORTION)).await.unwrap_or_default();
        let bytes = buffer.len() as u64;
        if frames == 0 {
            buffer.extend_from_slice(&HERE);
        }
        let written = async {
            stream.write_all(&buffer).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return error.to_string();
        }
        for meter in [&*link.meter, &links.total] {
            meter.frames_out.fetch_add(frames, Relaxed);
            meter.bytes_out.fetch_add(bytes, Relaxed);
        }
    }
}

/// Says that this end is there, until that can't be said any more.
pub(crate) async fn say_here(mut stream: impl AsyncWrite + Unpin) -> String {
    let mut due = interval(ALIVE);
    loop {
        due.tick().await;
        let written = async {
            stream.write_all(&HERE).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            return error.to_string();
        }
    }
}
