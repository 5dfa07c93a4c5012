//! Carries what the nodes of a cluster tell each other, over TCP with TLS at both ends or through a NATS server, and
//! drives the state machines of [`lb_cluster`] with it.
//!
//! ```text
//! kernel ─counts─▶ Handle ─▶ driver (Agent, Owner) ─▶ links ─▶ outbox ─▶ dial ─▶ other nodes
//! kernel ◀─words── Kernel ◀────┘       ▲───────────────────────────────── listen ◀── other nodes
//!                                      ▲───────────────── outbox ─▶ nats ◀──▶ server
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
//! # NATS
//!
//! The same frames, in messages of up to 64 kB of them, as they would be written to a stream. A node publishes to
//! `flowpin.CLUSTER.FROM.to.NODE`, where FROM is itself, and hears what is for it. In names `~` replaces dots.
//! The sender is a part of the subject, so that the server's permissions can say who may speak for whom:
//!
//! | node-1 of prod may | |
//! | --- | --- |
//! | publish to | `flowpin.prod.node-1.>` |
//! | subscribe to | `flowpin.prod.*.here`, `flowpin.prod.*.to.node-1` |
//!
//! That is all that stands between a node and another's name. Without permissions whoever may connect may say that it
//! is any node, and is believed. What can be seen without is refused: frames whose content names another node than the
//! subject does, and a subject that has this node's own name, which another agent must have.
//!
//! Nobody has a list of nodes. Each says that it is there to all, on `flowpin.CLUSTER.FROM.here`, once a second, and is
//! gone when nothing was heard of it three times as long: 3 seconds, as on TCP, and before the owner forgets the counts
//! of who is silent, after 5. One message may be lost, and a server may start again, and nobody notices. Each of these
//! goes to all nodes, and a server delivers some 100,000 messages a second and core: so above 100 nodes those that own
//! no services say it less often, every 10 seconds from 1,000 nodes on, and add for how long it is good. A new node is
//! answered at once by all that hear of it. An agent that ends says that too; of one that is killed only the silence
//! tells, and that it was the agent alone nobody knows: its node's connections count for 5 more seconds and not for 15.
//!
//! The server is as reliable as a network: what it drops, or what was sent while it was away, is made good by what
//! follows. Meanwhile up to 1,024 frames wait for each node, of which the oldest are dropped. What comes too fast the
//! client drops, since one node can't be kept waiting without the others. A frame has up to 1 MiB, 5 bytes more than a
//! server takes by default: nodes of a cluster would have to be tens of thousands.
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
//! when nothing happens, 1.2 % while 100 connections a second open in the cluster. Through a NATS server on the same
//! machine it is known after 1.25 ms and 5 ms, where it was 0.75 ms and 4.3 ms by TCP, and takes a quarter to a third
//! more CPU time while connections open.
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
mod nats;
mod outbox;
mod peers;
mod settings;
mod talk;
mod view;
mod wire;

pub mod keygen;

pub use counters::{Reason, Traffic};
pub use driver::Kernel;
pub use error::MeshError;
pub use mesh::{Handle, Mesh};
pub use names::CLUSTER_SUFFIX;
pub use nats::NatsServer;
pub use settings::{Identity, Nats, Settings, Tcp, Transport};
pub use talk::{Question, Reply};
pub use view::{Member, Peer, PeerState, Service, View};
