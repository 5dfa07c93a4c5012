//! Clients: connections that stay open and have data exchanged on them all the time.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex, Notify},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    netns::within,
    world::{BACKENDS, PORT},
};

/// Between two rounds of data.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a connection, and an answer, may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Connections by backend, those without any among them.
pub type Spread = BTreeMap<&'static str, usize>;

/// A connection to a backend.
struct Conn {
    stream: TcpStream,
    backend: &'static str,
}

/// What the traffic shares with those who ask.
#[derive(Default)]
struct Open {
    conns: Mutex<(Vec<Conn>, Traffic)>,
    /// After each round.
    round: Notify,
}

/// How the exchange of data goes.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Traffic {
    /// Rounds: in each, every connection has sent something and got it back.
    pub rounds: u64,
    /// Connections that broke.
    pub broken: u64,
}

/// Connections to one address. They are closed when it is dropped.
pub struct Clients {
    tag: String,
    to: SocketAddr,
    open: Arc<Open>,
    _traffic: JoinSet<()>,
}

impl Clients {
    /// None yet.
    ///
    /// # Errors
    /// `vip` is no address.
    pub fn new(tag: &str, vip: &str) -> anyhow::Result<Self> {
        let open = Arc::new(Open::default());
        let mut traffic = JoinSet::new();
        traffic.spawn(exchange(open.clone()));
        let to = SocketAddr::new(vip.parse()?, PORT);
        Ok(Self { tag: tag.into(), to, open, _traffic: traffic })
    }

    /// Opens so many more, one after the other.
    ///
    /// # Errors
    /// One can't be opened, or nobody says who is at its other end.
    pub async fn open(&self, count: usize) -> anyhow::Result<()> {
        let (tag, to) = (self.tag.clone(), self.to);
        // Not on a thread that servers may need.
        let opened = tokio::task::spawn_blocking(move || {
            within(&tag, "client", || (0..count).map(|_| connect(to)).collect::<io::Result<Vec<_>>>())
        });
        let opened = opened.await?.with_context(|| format!("connections to {to}"))?;
        let mut conns = Vec::new();
        for (stream, name) in opened {
            let Some(backend) = BACKENDS.into_iter().find(|backend| *backend == name) else {
                bail!("a connection to {to} ended at {name:?}, which is no backend");
            };
            conns.push(Conn { stream: TcpStream::from_std(stream)?, backend });
        }
        self.open.conns.lock().await.0.extend(conns);
        Ok(())
    }

    /// Where those are that are open.
    pub async fn spread(&self) -> Spread {
        let mut spread: Spread = BACKENDS.into_iter().map(|backend| (backend, 0)).collect();
        for conn in &self.open.conns.lock().await.0 {
            *spread.entry(conn.backend).or_default() += 1;
        }
        spread
    }

    /// Closes those to a backend. How many they were.
    pub async fn leave(&self, backend: &str) -> usize {
        let conns = &mut self.open.conns.lock().await.0;
        let before = conns.len();
        conns.retain(|conn| conn.backend != backend);
        before - conns.len()
    }

    /// How the traffic goes, after a round that began later than now.
    pub async fn traffic(&self) -> Traffic {
        let target = self.open.conns.lock().await.1.rounds + 1;
        loop {
            let round = self.open.round.notified();
            let traffic = self.open.conns.lock().await.1;
            if traffic.rounds >= target {
                return traffic;
            }
            round.await;
        }
    }
}

/// A connection, and who says to be at its other end.
fn connect(to: SocketAddr) -> io::Result<(std::net::TcpStream, String)> {
    let mut stream = std::net::TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let (mut name, mut byte) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        name.push(byte[0].into());
    }
    stream.set_nonblocking(true)?;
    Ok((stream, name))
}

/// Has data go to and fro on all connections.
async fn exchange(open: Arc<Open>) {
    let mut rounds = interval(PAUSE);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let (conns, traffic) = &mut *open.conns.lock().await;
        traffic.rounds += 1;
        let sent = [traffic.rounds.to_le_bytes(), (!traffic.rounds).to_le_bytes()].concat();
        let mut whole = Vec::with_capacity(conns.len());
        for mut conn in conns.drain(..) {
            match timeout(LIMIT, there_and_back(&mut conn.stream, &sent)).await {
                Ok(Ok(true)) => whole.push(conn),
                _ => traffic.broken += 1,
            }
        }
        conns.append(&mut whole);
        open.round.notify_waiters();
    }
}

/// Does the same come back?
async fn there_and_back(stream: &mut TcpStream, sent: &[u8]) -> io::Result<bool> {
    stream.write_all(sent).await?;
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).await?;
    Ok(back == sent)
}
