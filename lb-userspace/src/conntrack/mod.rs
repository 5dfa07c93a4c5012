//! Upkeep of the flow and affinity tables: what is over is removed or closed, what is counted is counted again.

pub mod census;
pub mod clients;
pub mod closer;
pub mod directory;
mod ends;
pub mod handed;
pub mod matches;
mod queue;
pub mod select;
pub mod sockets;
pub mod sweep;
pub mod victims;

pub use census::Census;
pub use closer::Closer;
pub use directory::Directory;
