//! Simulates a cluster with the very state machines and pick of the product: how even connections are, as most of a
//! backend over the mean, for its weight. The rows of a hundred nodes are tests; `scripts/bench --only simulation` shows
//! them all, up to 5,000 nodes.
//!
//! Network: a frame takes 0.25 to 0.75 ms unless the row says otherwise, an agent wakes within 0.2 ms.

mod cluster;
mod node;
mod rows;

pub use node::Mode;
pub use rows::{Figures, LARGE, Row, SMALL};

#[cfg(test)]
mod tests;
