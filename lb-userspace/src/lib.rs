//! Flowpin's userspace: one binary, three paths.
//!
//! ```text
//! control      source ─▶ model ─▶ reconcile (transition, plan) ─▶ agent::owner ─▶ datapath (maps, links)
//! observation  datapath (read halves) ─▶ observe ─▶ metrics | api ─▶ cli
//! upkeep       conntrack (sweep, recount) ─▶ datapath;  health ─▶ agent::owner
//! ```
//!
//! `datapath` alone knows aya. `model` knows neither serde nor maps. The command line talks to the API and to nothing else;
//! `check` and `doctor` work without an agent.

pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod connection_log;
pub mod conntrack;
pub mod datapath;
pub mod health;
pub mod host;
pub mod model;
pub mod observe;
pub mod proxy;
pub mod reconcile;
pub mod source;
