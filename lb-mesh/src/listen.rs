//! Connections that other nodes make, on which they send.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, split},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{error, warn};

use crate::{
    Reason,
    bucket::Bucket,
    context::{Context, HANDSHAKE, reason},
    dial::say_here,
    links::{Heard, Link, Links},
    names,
    wire::{ReadError, Reader},
};

/// Most connections that haven't shown a valid certificate yet.
const STRANGERS: usize = 256;
/// Most of them from one address: nodes behind one are few, and whoever isn't one can't keep others out.
const STRANGERS_OF_ADDRESS: usize = 16;
/// After a connection couldn't be accepted: there are too many open files.
const REST: Duration = Duration::from_millis(100);

/// Takes connections forever.
pub(crate) async fn keep(context: Context, listener: TcpListener, heard: mpsc::Sender<Heard>) {
    let strangers = Arc::new(Strangers::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!("a node's connection: {error}; it is made again");
                }
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("a node's connection can't be accepted: {error}");
                sleep(REST).await;
                continue;
            }
        };
        match Strangers::admit(&strangers, from.ip()) {
            Some(stranger) => {
                drop(connections.spawn(take(context.clone(), stream, from, stranger, heard.clone())))
            }
            None => {
                let why = "too many connections that haven't shown a certificate";
                context.links.refuse(Reason::Connections, None, &from, &why);
            }
        }
    }
}

/// Who hasn't shown a certificate yet, by address.
#[derive(Default)]
struct Strangers(Mutex<HashMap<IpAddr, usize>>);

struct Stranger {
    of: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    fn admit(this: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let address = address.to_canonical();
        let mut all = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = all.get(&address).copied().unwrap_or_default();
        if of_address >= STRANGERS_OF_ADDRESS || all.values().sum::<usize>() >= STRANGERS {
            return None;
        }
        all.insert(address, of_address + 1);
        Some(Stranger { of: this.clone(), address })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut all = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.address)),
        }
    }
}

async fn take(
    context: Context,
    stream: TcpStream,
    from: SocketAddr,
    stranger: Stranger,
    heard: mpsc::Sender<Heard>,
) {
    let links = &context.links;
    if let Err(error) = stream.set_nodelay(true) {
        return links.refuse(Reason::Handshake, None, &from, &error);
    }
    let acceptor = TlsAcceptor::from(context.identities.current().server);
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return links.refuse(reason(&error), None, &from, &error),
        Err(_) => return links.refuse(Reason::Handshake, None, &from, &"no TLS handshake in time"),
    };
    let name = match names::node_of(stream.get_ref().1.peer_certificates(), &links.cluster) {
        Ok(name) => name,
        Err(why) => return links.refuse(Reason::Name, None, &from, &why),
    };
    drop(stranger);
    if name == links.node {
        // It finds out by itself.
        return;
    }
    let Some(link) = links.accepted(&name) else {
        let why = format!("node {name} has too many connections: is its certificate used by several?");
        return links.refuse(Reason::Connections, None, &from, &why);
    };
    let (read, write) = split(stream);
    let closed = tokio::select! {
        closed = hear(links, &link, Reader::new(read), &heard) => closed,
        // Whoever can't be written to is gone as well.
        _ = say_here(write) => true,
    };
    if closed && link.is_last_incoming() {
        // If the driver is gone, the mesh ends.
        let _ = heard.send(Heard::Gone(link.id)).await;
    }
}

/// Until there is no more. True: the other end or its kernel has closed the connection.
async fn hear(
    links: &Links,
    link: &Link,
    mut reader: Reader<impl AsyncRead + Unpin>,
    heard: &mpsc::Sender<Heard>,
) -> bool {
    let mut bucket = Bucket::new(Instant::now());
    loop {
        let bytes = match reader.next().await {
            Ok(bytes) => bytes,
            Err(ReadError::Malformed(error)) => {
                links.refuse(Reason::Malformed, Some(&link.meter), &link.name, &error);
                return false;
            }
            Err(error) => return matches!(error, ReadError::Closed(_)),
        };
        links.heard(&link.meter);
        if let Err(wait) = bucket.take(Instant::now(), bytes.len()) {
            link.floods();
            // What it sends meanwhile waits at its end.
            sleep(wait).await;
            continue;
        }
        if bytes.is_empty() {
            continue;
        }
        if !link.take_in(&bytes, heard).await {
            return false;
        }
    }
}
