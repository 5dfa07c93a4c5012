//! Which nodes are there: those that were heard not long ago. What is sent to each goes through a task of its own.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_nats::Client;
use bytes::BytesMut;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{error, info};

use super::{beacon::Beacon, subjects::Subjects};
use crate::{
    Reason,
    bucket::Bucket,
    counters::Meter,
    links::{Link, Links},
    outbox::{Outbox, PORTION},
    wire::ALIVE,
};

/// Most nodes: without permissions at the server, anybody who may connect could make up names.
const MOST: usize = 8_192;

/// A node that is there.
pub(crate) struct Node {
    outgoing: Link,
    incoming: Link,
    bucket: Bucket,
    last: Instant,
    beacon: Option<Beacon>,
    sender: AbortHandle,
}

/// What has come shows that a node is there.
pub(crate) struct Presence<'a> {
    pub(crate) node: &'a mut Node,
    /// It wasn't before.
    pub(crate) is_new: bool,
}

/// See the module.
pub(crate) struct Members {
    links: Arc<Links>,
    subjects: Arc<Subjects>,
    client: watch::Receiver<Option<Client>>,
    nodes: HashMap<String, Node>,
    senders: JoinSet<()>,
    swept: Instant,
}

impl Node {
    pub(crate) const fn link(&self) -> &Link {
        &self.incoming
    }

    /// Takes what something of so many bytes costs. False: it sends too much.
    pub(crate) fn may(&mut self, bytes: usize) -> bool {
        self.bucket.take(Instant::now(), bytes).is_ok()
    }

    /// It has said this. True: not on this connection, so it may know nobody.
    pub(crate) fn said(&mut self, beacon: Beacon) -> bool {
        let before = self.beacon.replace(beacon);
        before.is_none_or(|before| before.life != beacon.life)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl Members {
    pub(crate) fn new(
        links: Arc<Links>,
        subjects: Arc<Subjects>,
        client: watch::Receiver<Option<Client>>,
    ) -> Self {
        let (nodes, senders) = (HashMap::new(), JoinSet::new());
        Self { links, subjects, client, nodes, senders, swept: Instant::now() }
    }

    /// How often this node says that it is there.
    pub(crate) fn pace(&self) -> Duration {
        Beacon::pace(self.nodes.len() + 1, self.links.owns.load(Relaxed))
    }

    /// Something has come from a node. `None`: there are too many of them, it is refused.
    pub(crate) fn heard(&mut self, name: &str, now: Instant) -> Option<Presence<'_>> {
        let is_new = !self.nodes.contains_key(name);
        if is_new {
            let node = self.admit(name, now)?;
            self.nodes.insert(name.to_owned(), node);
        }
        let node = self.nodes.get_mut(name)?;
        node.last = now;
        self.links.heard(&node.incoming.meter);
        Some(Presence { node, is_new })
    }

    fn admit(&mut self, name: &str, now: Instant) -> Option<Node> {
        let links = self.links.clone();
        let room = self.nodes.len() < MOST;
        let both = || Some((links.connected(name, None)?, links.accepted(name)?));
        let Some((outgoing, incoming)) = room.then(both).flatten() else {
            let why = format!("there are {} nodes: are names made up?", self.nodes.len());
            links.refuse(Reason::Connections, None, &name, &why);
            return None;
        };
        info!("node {name} is there");
        let outbox = outgoing.outbox.clone().unwrap_or_default();
        let meters = Meters { node: incoming.meter.clone(), links };
        let send = send(meters, outbox, self.subjects.to(name), self.client.clone());
        let sender = self.senders.spawn(send);
        Some(Node { outgoing, incoming, bucket: Bucket::new(now), last: now, beacon: None, sender })
    }

    /// A node has said that it ends.
    pub(crate) fn leave(&mut self, name: &str) -> Option<lb_cluster::NodeId> {
        info!("node {name} has ended");
        self.nodes.remove(name).map(|node| node.incoming.id)
    }

    /// Forgets nodes that have been silent for too long: of them nothing else tells.
    pub(crate) fn sweep(&mut self, now: Instant) {
        while let Some(ended) = self.senders.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                error!("sending to a node: {error}; it is taken as silent");
            }
        }
        // It was this node that didn't listen.
        let was_away = now.duration_since(self.swept) > ALIVE;
        self.swept = now;
        let unknown = Beacon::pace(self.nodes.len() + 1, false);
        self.nodes.retain(|name, node| {
            if was_away {
                node.last = now;
            }
            let patience = Beacon::patience(node.beacon.map_or(unknown, |beacon| beacon.every));
            let is_there = now.duration_since(node.last) < patience && !node.sender.is_finished();
            if !is_there {
                info!("node {name} has been silent for {patience:?}");
                // It had the time to start again.
                node.outgoing.left = Some(node.last);
            }
            is_there
        });
    }

    /// Nothing is sent any more.
    pub(crate) fn hush(&mut self) {
        self.senders.abort_all();
    }
}

struct Meters {
    links: Arc<Links>,
    node: Arc<Meter>,
}

/// Publishes what is to be sent to a node, for as long as it is there. While there is no server it waits in the outbox,
/// whose oldest are dropped.
async fn send(
    meters: Meters,
    outbox: Arc<Outbox>,
    subject: String,
    mut client: watch::Receiver<Option<Client>>,
) {
    let mut buffer = BytesMut::new();
    loop {
        let connected = match client.wait_for(Option::is_some).await {
            Ok(client) => client.clone(),
            Err(_) => return,
        };
        let Some(connected) = connected else { continue };
        let frames = tokio::select! {
            frames = outbox.take(&mut buffer, PORTION.min(connected.max_payload())) => frames,
            _ = client.changed() => continue,
        };
        let payload = buffer.split().freeze();
        let bytes = payload.len() as u64;
        let sent = tokio::select! {
            sent = connected.publish(subject.clone(), payload) => sent.map_err(|error| error.to_string()),
            _ = client.changed() => Err("the connection has ended".to_owned()),
        };
        for meter in [&*meters.node, &meters.links.total] {
            if sent.is_ok() {
                meter.frames_out.fetch_add(frames, Relaxed);
                meter.bytes_out.fetch_add(bytes, Relaxed);
            } else {
                meter.dropped.fetch_add(frames, Relaxed);
            }
        }
        if let Err(why) = sent
            && bytes > connected.max_payload() as u64
        {
            error!("a frame of {bytes} bytes can't be sent: {why}; raise max_payload at the NATS server");
        }
    }
}
