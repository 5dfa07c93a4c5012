//! Upkeep of the flow tables: what is over is removed, what is counted is counted again.

pub mod census;
pub mod sweep;

pub use census::Census;
