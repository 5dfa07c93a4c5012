//! Carries what the nodes of a cluster tell each other, over TCP with TLS at both ends, and drives the state machines
//! of [`lb_cluster`] with it.
//!
//! ```text
//! kernel ─counts─▶ Handle ─▶ driver (Agent, Owner) ─▶ links ─▶ outbox ─▶ dial ─▶ other nodes
//! kernel ◀─words── Kernel ◀────┘       ▲───────────────────────────────── listen ◀── other nodes
//! ```
//!
//! # Connections
//!
//! Each node connects to each other, and sends on the connection that it has made. On the one that it has taken it
//! only says, each second, that it is there. So each end knows within 3 seconds that the other is gone, and nobody has
//! to agree on which of two connections is the right one. The lists of peers have to be the same on all nodes, or name
//! all: where only one of two knows the other, nothing comes back ([`Member::incoming`]).
//!
//! A connection that breaks is made again after 100 ms to 5 s, at once if the other node has connected meanwhile. What
//! was on its way is lost, which does no harm: counts are absolute. A node that takes nothing has a queue of its own,
//! of which the oldest is dropped.
//!
//! # Who is who
//!
//! A node is who its certificate says: one DNS name is its own, another is the cluster's with [`CLUSTER_SUFFIX`].
//! Whoever connects looks for the cluster's name, as any client of TLS does, and both look for the node's. Frames that
//! speak for another node are refused. Files are read again when they have changed, for the next connection; those
//! that there are stay, so that to shut a node out, the agents have to be started again. [`keygen`] makes
//! certificates.
//!
//! What is refused is counted by [`Reason`] and logged, less and less often. A node may send 20,000 frames a second;
//! what is more is dropped, and the rest waits at its end.
//!
//! # Who owns services
//!
//! With [`Settings::aggregators`] it is said. Otherwise the first 16 by name of the members, which are this node and
//! those that it is connected to, or was in the last 3 seconds. The place among all members is the node's rank. All
//! nodes see the same members when each can connect to each, some 5 seconds after the last change. Until then, and for
//! as long as two nodes can't connect though others can with both, some may have an owner of their own: each part
//! balances itself, as in a network that is cut. Nothing has to be agreed on, and there is no leader whose loss would
//! matter.
//!
//! A node that starts again within 3 seconds stays the owner of its services. If it doesn't come back they go to
//! others; for a second they use what it said last, then each node counts by itself until the new owner knows all.
//!
//! # What it costs
//!
//! By `examples/latency`, 8 nodes in one process, on a machine with 2 cores that was busy besides: a connection is
//! known to the other nodes' kernels after 0.9 ms (median) and 5 ms (99th percentile). Each node takes 0.2 % of a core
//! when nothing happens, 1.2 % while 100 connections a second open in the cluster.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bucket;
mod context;
mod counters;
mod dial;
mod driver;
mod error;
mod identity;
mod links;
mod listen;
mod mesh;
mod names;
mod outbox;
mod peers;
mod settings;
mod view;
mod wire;

pub mod keygen;

pub use counters::{Reason, Traffic};
pub use driver::Kernel;
pub use error::MeshError;
pub use mesh::{Handle, Mesh};
pub use names::CLUSTER_SUFFIX;
pub use settings::{Identity, Settings};
pub use view::{Member, Peer, PeerState, Service, View};
