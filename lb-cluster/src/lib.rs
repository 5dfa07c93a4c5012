//! The whole cluster counts as one: what nodes tell each other of their connections, and what they conclude from it.
//!
//! Pure: no sockets, no clock, no chance. Time is an argument, as a [`Duration`](std::time::Duration) since any fixed moment of the node's
//! monotonic clock; so are frames and random numbers.
#![warn(missing_docs)]

pub mod agent;
mod aggregators;
pub mod frame;
mod keys;
pub mod owner;
mod timers;

pub use aggregators::{Aggregators, TooMany};
pub use keys::{BackendKey, NodeId, ServiceKey};
