//! The observation path: maps → views and metrics. Nothing here changes anything.

pub mod connections;
pub mod metrics;
pub mod now;
pub mod overview;
pub mod snapshot;
pub mod sockets;
pub mod views;

pub use overview::Overview;
pub use snapshot::Snapshot;
