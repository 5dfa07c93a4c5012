//! Clusters of real agents.

pub mod relay;
mod world;

pub use world::{LIMIT, Node, Setting, VIP, Via, World, keygen, wait_until};
