//! A line between nodes that is slow, and breaks.

use std::{net::SocketAddr, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How a line is.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// One way.
    pub delay: Duration,
    /// Breaks with so many of 100 portions of data.
    pub breaks: u32,
}

/// Where a node is for others: whatever comes there is passed on to where it really is.
pub struct Relay {
    pub address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    broken: watch::Sender<u64>,
    /// Nothing that comes from those that connect is passed on.
    stuck: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn new(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (target, to) = watch::channel(None);
        let (broken, count) = watch::channel(0);
        let stuck = watch::channel(false).0;
        let line_stuck = stuck.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            let mut seed = 0;
            loop {
                let Ok((from, _)) = listener.accept().await else { continue };
                let Some(to) = *to.borrow() else { continue };
                seed += 2;
                let mut count = count.clone();
                let stuck = line_stuck.clone();
                count.mark_unchanged();
                lines.spawn(async move {
                    let Ok(to) = TcpStream::connect(to).await else { return };
                    from.set_nodelay(true).unwrap();
                    to.set_nodelay(true).unwrap();
                    let (from_read, from_write) = from.into_split();
                    let (to_read, to_write) = to.into_split();
                    let never = watch::channel(false).0;
                    tokio::select! {
                        () = pass(from_read, to_write, faults, seed, &stuck) => {}
                        () = pass(to_read, from_write, faults, seed + 1, &never) => {}
                        _ = count.changed() => {}
                    }
                });
            }
        });
        Self { address, target, broken, stuck, _tasks: tasks }
    }

    /// The node is there, or nowhere.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        self.target.send_replace(target);
    }

    /// All lines break.
    pub fn cut(&self) {
        self.broken.send_modify(|count| *count += 1);
    }

    /// What comes isn't passed on any more, or is again.
    pub fn set_stuck(&self, stuck: bool) {
        self.stuck.send_replace(stuck);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    faults: Faults,
    seed: u64,
    stuck: &watch::Sender<bool>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut is_stuck = stuck.subscribe();
    let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut portion = [0; 4_096];
        loop {
            if is_stuck.wait_for(|stuck| !stuck).await.is_err() {
                return;
            }
            let Ok(length @ 1..) = from.read(&mut portion).await else { return };
            if rng.random_range(0..100) < faults.breaks {
                return;
            }
            if late.send((Instant::now() + faults.delay, portion[..length].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, portion)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&portion).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
