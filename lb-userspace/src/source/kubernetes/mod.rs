//! Kubernetes: Services and their endpoints, as the API server tells of them, become services of ours.
//!
//! ```text
//! events ─▶ Cache (compact, complete lists only) ─▶ State: claims, translate (categorize, annotations) ─▶ Delta
//! ```
//!
//! What a Service means is Kubernetes' to say: each rule here is one of its own service proxy's.

pub mod address;
pub mod annotations;
pub mod cache;
pub mod categorize;
pub mod claims;
pub mod client;
pub mod explain;
pub mod feed;
pub mod node;
pub mod note;
pub mod objects;
pub mod record;
pub mod saved;
pub mod state;
pub mod translate;
pub mod watch;
pub mod zones;

#[cfg(test)]
mod tests;

pub use cache::Event;
pub use state::{Delta, State};
pub use translate::Options;
