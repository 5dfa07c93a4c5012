//! The whole cluster counts as one: what nodes tell each other of their connections, and what they conclude from it.
//!
//! Each node by itself picks well and all together pick badly: 500 connections from 100 nodes on 50 backends leave one
//! backend with 1.7 times the mean. Here each service has an owner, one of 3 to 16 aggregators
//! ([`Aggregators::owner`]), that adds up what all nodes have and tells them. The kernel picks the least of the node's
//! own connections, which it counts exactly, and those of others ([`lb_common::ranked`]). Nobody is asked when a
//! connection opens.
//!
//! ```text
//! kernel ─counts─▶ agent ─Report─▶ owner ─Totals─▶ agent ─words─▶ kernel
//! ```
//!
//! Pure: no sockets, no clock, no chance. Time is an argument, as a [`Duration`](std::time::Duration) since any fixed
//! moment of the node's monotonic clock; so are frames and random numbers.
//!
//! # How it is driven
//!
//! - [`agent::Agent::counted`] when a connection has opened (the kernel marks the service and wakes the agent), and
//!   every 50 ms or so for those that have closed.
//! - `receive` with each frame and the sender that its certificate names; `poll` after that and at `deadline`, for what
//!   is to be sent. Both sides.
//! - [`agent::Agent::take_rewrites`] after each `poll` and `receive`: for these services [`agent::Agent::words`] are to
//!   be written. Until [`agent::VALID_FOR`] from then the kernel may use all of a word, later only its
//!   [order](lb_common::ranked::ORDER): so the deadline has to be moved on, also when nothing changes.
//! - [`owner::Owner::disconnected`] when the kernel of a node has ended its agent's connection.
//!
//! # What holds
//!
//! At rest the sum of reports is the owner's total is the sum of all nodes' open connections, and each node knows exactly
//! what others have. Counts are absolute, reports and totals are numbered, and totals say which report of each node they
//! contain: frames may be lost, doubled, late or out of order, agents and owners may be killed and started again, the
//! network may be cut anywhere. `tests/net` does all of it.
//!
//! Where a node doesn't know what others have, it counts by itself: no owner was heard of for a second, or too many
//! connections are to be expected that nobody has told of. Ties go by the node's rank then, which is better than lots.
//! A node that is silent is kept for 5 seconds, one whose agent alone is gone for 15; a new owner's word counts only once
//! nodes have had 800 ms to report.
//!
//! Connections that stay open stay where they are. [`rebalance`] says which may be moved after a scale-out.
//!
//! What it can't do: connections that open within one delay of each other, some 2 ms, don't know of each other. In a herd
//! one or another backend ends with one more than the mean. Where connections come and come at more than 25 a second,
//! totals are up to 15 ms apart ([`owner::STEADY_GAP`]), which is what keeps an owner's CPU low; those that
//! come next make good for a wrong choice.
//!
//! # How even it is
//!
//! By the simulation among the benches, which drives these very state machines and the kernel's pick: most connections of a backend
//! over the mean, median and 95th percentile; 100 nodes, 50 backends, 0.5 ms from node to node.
//!
//! | scenario | per node, ties by lot | order alone | shared |
//! | --- | --- | --- | --- |
//! | 500 in 1 s | 1.70/2.10 | 1.30/1.50 | 1.10/1.20 |
//! | 500 in 60 s | 1.70/2.10 | 1.30/1.50 | 1.00/1.00 |
//! | 5,000 in 1 s | 1.06/1.09 | 1.04/1.06 | 1.02/1.03 |
//! | 1,000 nodes, 100 backends, 5,000 in 1 s | 1.34/1.40 | 1.14/1.20 | 1.04/1.06 |
//! | 5,000 nodes, 500 backends, 25,000 in 1 s | 1.44/1.64 | 1.20/1.24 | 1.06/1.10 |
//! | half on one node | 1.60/1.70 | 1.30/1.40 | 1.10/1.20 |
//! | lifetimes of an hour (exact: 1.07) | 1.78/1.83 | 1.56/1.57 | 1.08/1.08 |
//! | lifetimes of a minute (exact: 1.07) | 1.75/1.83 | 1.57/1.65 | 1.07/1.09 |
//! | 10 backends of 100 restart in turn | 1.15/1.20 | 1.22/1.25 | 1.01/1.01 |
//! | weights 1/2/4, 1,150 in 1 s | 1.70/2.10 | 1.40/1.50 | 1.10/1.20 |
//! | 8 nodes, 4 backends, 40 in 1 s | 1.10/1.20 | 1.10/1.20 | 1.00/1.00 |
//! | 500 in 1 s, 50 ms there and back | 1.70/2.10 | 1.30/1.50 | 1.30/1.50 |
//! | 500 in 1 s, 100 ms there and back | 1.70/2.10 | 1.30/1.50 | 1.40/1.50 |
//! | 500 in 1 s, the owner gone for 3 s | 1.70/2.10 | 1.30/1.50 | 1.40/1.60 |
#![warn(missing_docs)]

pub mod agent;
mod aggregators;
pub mod frame;
mod keys;
pub mod owner;
pub mod rebalance;
mod timers;

pub use aggregators::{Aggregators, MAX_AGGREGATORS, TooMany};
pub use keys::{BackendKey, NodeId, ServiceKey};
pub use lb_common::ranked::Rank;
