//! The host that the agent runs on. Rules that keep packets from arriving (reverse path filters, netfilter rules,
//! routes past us) are seen and said, never changed. What kube-proxy left is listed, and removed when an operator asks.
//!
//! ```text
//! sysctl, iptables-save, nft ─▶ look ─▶ Found ─┐
//! configuration, routes ───────────▶ Setup ─┴─▶ hints ─▶ status | doctor
//! ```

pub mod cluster;
pub mod hints;
mod iptables;
pub mod kube_proxy;
pub mod look;
mod nft;
pub mod rule;
mod tool;

pub use hints::{Hint, Setup};
pub use look::Found;
