//! HTTP/JSON on a Unix socket. `types` is the contract with scripts; `control` is what the server asks of the agent.
//!
//! ```text
//! cli ─▶ client ─▶ socket ─▶ server ─▶ routes ─▶ control ─▶ agent
//! ```

pub mod client;
pub mod connections;
pub mod control;
pub mod error;
pub mod extract;
mod openapi;
mod route;
mod routes;
pub mod server;
pub mod types;
pub mod ui;
