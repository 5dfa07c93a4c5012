//! Who is connected, and what is to be sent to whom. This is the seam between the driver and the transport: the
//! driver sends by [`Links::send`] and hears by [`Event`]; how a frame gets to a node, it doesn't know.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use lb_cluster::{
    NodeId, ServiceKey,
    frame::{Frame, Own},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use tracing::warn;

use crate::{
    Reason, View,
    counters::{Meter, Refusals},
    outbox::Outbox,
    talk, view,
    wire::{Side, unpack},
};

/// A node whose connection has ended is a member for so long yet: it may only be starting again, and its services
/// needn't move meanwhile.
pub(crate) const GRACE: Duration = Duration::from_secs(3);
/// Most connections from one node: one, and those that it doesn't know yet to have ended.
const MAX_INCOMING: usize = 4;

/// What the driver hears.
pub(crate) enum Event {
    /// The kernel's counts were read.
    Counted { service: ServiceKey, pool: u32, opened: u64, counts: Vec<Own> },
    /// The words of a service have to be written once more.
    Rewrite(ServiceKey),
    /// Somebody looks.
    View(oneshot::Sender<View>),
    /// Other nodes are connected now.
    Members,
    /// A question to all nodes that are connected, or to one of them, and to whom it is said what they say.
    Ask { node: Option<String>, body: Vec<u8>, heard: mpsc::UnboundedSender<talk::Heard> },
    /// An answer to a node's question.
    Answer { to: NodeId, number: u64, body: Vec<u8> },
}

/// What it hears of other nodes. In another queue, which is bounded: who sends too much, waits.
pub(crate) enum Heard {
    /// A frame of a node's.
    Frame { from: NodeId, meter: Arc<Meter>, side: Side, frame: Frame },
    /// A node's connection was closed by itself or its kernel.
    Gone(NodeId),
}

struct Outgoing {
    /// `None`: it is reached through a server.
    address: Option<SocketAddr>,
    since: Instant,
    outbox: Arc<Outbox>,
}

struct Node {
    name: String,
    meter: Arc<Meter>,
    outgoing: Option<Outgoing>,
    incoming: usize,
    /// When the last outgoing connection has ended.
    left: Option<Instant>,
}

/// See the module.
pub(crate) struct Links {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) start: Instant,
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    events: mpsc::UnboundedSender<Event>,
    pub(crate) total: Meter,
    pub(crate) refusals: Refusals,
    /// A node has connected that this one isn't connected to: it's worth trying now.
    pub(crate) wanted: Notify,
    /// This node owns services.
    pub(crate) owns: AtomicBool,
}

impl Links {
    pub(crate) fn new(node: &str, cluster: &str, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            node: node.to_owned(),
            cluster: cluster.to_owned(),
            start: Instant::now(),
            nodes: Mutex::default(),
            events,
            total: Meter::default(),
            refusals: Refusals::default(),
            wanted: Notify::new(),
            owns: AtomicBool::new(false),
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node is connected to another. `None`: it was already, by another address.
    pub(crate) fn connected(self: &Arc<Self>, name: &str, address: Option<SocketAddr>) -> Option<Link> {
        let id = NodeId::of(name);
        let outbox = Arc::new(Outbox::default());
        let mut nodes = self.nodes();
        let node = nodes.entry(id).or_insert_with(|| Node::new(name));
        if node.outgoing.is_some() {
            return None;
        }
        node.outgoing = Some(Outgoing { address, since: Instant::now(), outbox: outbox.clone() });
        let meter = node.meter.clone();
        drop(nodes);
        self.tell();
        Some(Link { links: self.clone(), id, name: name.to_owned(), meter, outbox: Some(outbox), left: None })
    }

    /// Is this node connected to that one?
    pub(crate) fn is_connected(&self, name: &str) -> bool {
        self.nodes().get(&NodeId::of(name)).is_some_and(|node| node.outgoing.is_some())
    }

    /// Another node is connected to this one. `None`: it has too many connections.
    pub(crate) fn accepted(self: &Arc<Self>, name: &str) -> Option<Link> {
        let id = NodeId::of(name);
        let mut nodes = self.nodes();
        let node = nodes.entry(id).or_insert_with(|| Node::new(name));
        if node.incoming >= MAX_INCOMING {
            return None;
        }
        node.incoming += 1;
        if node.outgoing.is_none() {
            self.wanted.notify_waiters();
        }
        let meter = node.meter.clone();
        Some(Link { links: self.clone(), id, name: name.to_owned(), meter, outbox: None, left: None })
    }

    /// A node's name, or its number if it is gone.
    pub(crate) fn name(&self, id: NodeId) -> String {
        self.nodes().get(&id).map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// Puts a frame on its way, or drops it if the node isn't there.
    pub(crate) fn send(&self, to: NodeId, frame: &Bytes) {
        let nodes = self.nodes();
        let Some(Node { meter, outgoing: Some(outgoing), .. }) = nodes.get(&to) else {
            self.total.dropped.fetch_add(1, Relaxed);
            return;
        };
        let dropped = outgoing.outbox.push(frame.clone());
        for meter in [&**meter, &self.total] {
            meter.dropped.fetch_add(dropped, Relaxed);
        }
    }

    /// Counts what was refused. `meter`: the node's whose it was, if that is known. Tells of the first, the second, the
    /// fourth and so on.
    pub(crate) fn refuse(
        &self,
        reason: Reason,
        meter: Option<&Meter>,
        from: &dyn Display,
        why: &dyn Display,
    ) {
        for meter in meter.into_iter().chain([&self.total]) {
            meter.refused.fetch_add(1, Relaxed);
        }
        let count = self.refusals.count(reason);
        if count.is_power_of_two() {
            warn!("refused from {from}: {why} ({}, {count} so far)", reason.label());
        }
    }

    /// Something was heard of a node.
    pub(crate) fn heard(&self, meter: &Meter) {
        meter.heard.store(self.start.elapsed().as_millis() as u64 + 1, Relaxed);
    }

    /// Names of this node and those that it is connected to, or was a moment ago; and when that moment is over next.
    /// Forgets others.
    pub(crate) fn members(&self) -> (Vec<String>, Option<Instant>) {
        let now = Instant::now();
        let mut nodes = self.nodes();
        let is_member =
            |node: &Node| node.outgoing.is_some() || node.left.is_some_and(|left| now < left + GRACE);
        nodes.retain(|_, node| node.incoming != 0 || is_member(node));
        let members = nodes.values().filter(|node| is_member(node));
        let mut names: Vec<_> =
            members.clone().map(|node| node.name.clone()).chain([self.node.clone()]).collect();
        names.sort_unstable();
        let next = members.filter(|node| node.outgoing.is_none()).filter_map(|node| node.left).min();
        (names, next.map(|left| left + GRACE))
    }

    /// Nodes that this one is connected to.
    pub(crate) fn reachable(&self) -> Vec<(NodeId, String)> {
        let nodes = self.nodes();
        let reachable = nodes.iter().filter(|(_, node)| node.outgoing.is_some());
        reachable.map(|(id, node)| (*id, node.name.clone())).collect()
    }

    /// For the driver.
    pub(crate) fn events(&self) -> mpsc::UnboundedSender<Event> {
        self.events.clone()
    }

    /// For those who look, by name.
    pub(crate) fn view(&self) -> Vec<view::Member> {
        let itself = view::Member {
            name: self.node.clone(),
            id: NodeId::of(&self.node),
            itself: true,
            address: None,
            connected: None,
            incoming: 0,
            heard: None,
            traffic: crate::Traffic::default(),
        };
        let now = self.start.elapsed();
        let member = |(id, node): (&NodeId, &Node)| view::Member {
            name: node.name.clone(),
            id: *id,
            itself: false,
            address: node.outgoing.as_ref().and_then(|it| it.address),
            connected: node.outgoing.as_ref().map(|it| it.since.elapsed()),
            incoming: node.incoming,
            heard: (node.meter.heard.load(Relaxed).checked_sub(1))
                .map(|heard| now.saturating_sub(Duration::from_millis(heard))),
            traffic: node.meter.view(),
        };
        let mut members: Vec<_> = self.nodes().iter().map(member).chain([itself]).collect();
        members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        members
    }

    fn tell(&self) {
        // If the driver is gone, the mesh ends.
        let _ = self.events.send(Event::Members);
    }
}

impl Node {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), meter: Arc::default(), outgoing: None, incoming: 0, left: None }
    }
}

/// A connection with a node, for as long as it lasts.
pub(crate) struct Link {
    links: Arc<Links>,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) meter: Arc<Meter>,
    /// What is to be sent to it, if this node has connected to it.
    pub(crate) outbox: Option<Arc<Outbox>>,
    /// When the node was there last, if that isn't when the link is dropped.
    pub(crate) left: Option<Instant>,
}

impl Link {
    /// The node has sent more than it may.
    pub(crate) fn floods(&self) {
        let why = "too many frames, or too many bytes";
        self.links.refuse(Reason::Flood, Some(&self.meter), &self.name, &why);
    }

    /// Counts a frame that has come, still packed, and hands it to the driver. False: the driver is gone.
    pub(crate) async fn take_in(&self, bytes: &[u8], heard: &mpsc::Sender<Heard>) -> bool {
        for meter in [&*self.meter, &self.links.total] {
            meter.frames_in.fetch_add(1, Relaxed);
            meter.bytes_in.fetch_add(bytes.len() as u64, Relaxed);
        }
        match unpack(bytes) {
            Ok((side, frame)) => {
                let frame = Heard::Frame { from: self.id, meter: self.meter.clone(), side, frame };
                heard.send(frame).await.is_ok()
            }
            Err(why) => {
                self.links.refuse(Reason::Malformed, Some(&self.meter), &self.name, &why);
                true
            }
        }
    }

    /// No other connection of the node's to this one is left.
    pub(crate) fn is_last_incoming(&self) -> bool {
        self.links.nodes().get(&self.id).is_some_and(|node| node.incoming == 1)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut nodes = self.links.nodes();
        let Some(node) = nodes.get_mut(&self.id) else { return };
        match self.outbox.take() {
            None => node.incoming -= 1,
            Some(outbox) => {
                let dropped = outbox.len() as u64;
                for meter in [&*self.meter, &self.links.total] {
                    meter.dropped.fetch_add(dropped, Relaxed);
                }
                (node.outgoing, node.left) = (None, Some(self.left.unwrap_or_else(Instant::now)));
            }
        }
        drop(nodes);
        self.links.tell();
    }
}
