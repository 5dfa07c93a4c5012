//! Packets: built, run through a program, compared.

pub mod build;
pub mod rig;

pub use build::{Frame, L4, checksums_hold};
pub use rig::{Face, Outcome, Rig};
