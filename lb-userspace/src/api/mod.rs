//! HTTP/JSON on a Unix socket. `types` is the contract with scripts.

pub mod client;
pub mod error;
pub mod server;
pub mod types;
