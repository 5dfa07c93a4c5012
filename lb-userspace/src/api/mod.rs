//! HTTP/JSON on a Unix socket. `types` is the contract with scripts; `control` is what the server asks of the agent.

pub mod client;
pub mod control;
pub mod server;
pub mod types;
