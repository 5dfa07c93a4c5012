//! Upkeep of the flow and affinity tables: what is over is removed or closed, what is counted is counted again.

pub mod census;
pub mod clients;
pub mod ends;
pub mod sweep;

pub use census::Census;
