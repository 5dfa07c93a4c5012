//! What a mesh shows of itself.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use lb_cluster::{NodeId, ServiceKey, agent::Count};

use crate::{Reason, Traffic};

/// A mesh at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// This node's name.
    pub node: String,
    /// The cluster's.
    pub cluster: String,
    /// This node and those that are connected, by name.
    pub members: Vec<Member>,
    /// Addresses that peers have by configuration and DNS; with NATS its servers.
    pub peers: Vec<Peer>,
    /// Names of the nodes that own services, sorted.
    pub aggregators: Vec<String>,
    /// Services that the node has connections of.
    pub services: Vec<Service>,
    /// What was refused since the start, for all reasons.
    pub refused: BTreeMap<Reason, u64>,
    /// What has come and gone since the start.
    pub traffic: Traffic,
    /// Why the files of [`Identity`](crate::Identity), or of [`Nats`](crate::Nats), can't be used as they are now;
    /// the last good ones are.
    pub identity: Option<String>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The same as a number.
    pub id: NodeId,
    /// It is this one.
    pub itself: bool,
    /// Where it is; `None`: with NATS, or it has connected to this node, but this one not to it. Is it among the peers?
    pub address: Option<SocketAddr>,
    /// For how long this node has been connected to it.
    pub connected: Option<Duration>,
    /// Connections that it has made to this node; with NATS 1. 0: nothing that it says gets here.
    pub incoming: usize,
    /// How long ago anything was heard of it.
    pub heard: Option<Duration>,
    /// What has come and gone since it is a member.
    pub traffic: Traffic,
}

/// An address of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// As it was configured.
    pub peer: String,
    /// One of its addresses; `None`: it has none.
    pub address: Option<SocketAddr>,
    /// How it is.
    pub state: PeerState,
}

/// How a peer's address is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// It wasn't reached yet.
    Connecting,
    /// It is this node's, which is connected; with NATS the server's own name.
    Connected(String),
    /// It is this node's, which is connected by another address.
    Elsewhere(String),
    /// It is this node itself.
    Itself,
    /// It can't be reached, or was refused, or has refused: why.
    Failing(String),
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which.
    pub service: ServiceKey,
    /// Name of the node that adds it up; its number, if it isn't a member.
    pub owner: Option<String>,
    /// The kernel takes what others have into account. Otherwise the node counts by itself: it is isolated.
    pub shared: bool,
    /// How old what is known is; `None`: nothing is.
    pub age: Option<Duration>,
    /// Connections opened a second, over all nodes.
    pub rate: f64,
    /// From a report to the totals that contain it, on average.
    pub delay: Option<Duration>,
    /// By backend: the total is own and others'.
    pub counts: Vec<Count>,
}
