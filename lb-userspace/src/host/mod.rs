//! Rules of the host that keep packets from arriving: reverse path filters, netfilter rules, routes past us. They are
//! seen and said, never changed.
//!
//! ```text
//! sysctl, iptables-save, nft ─▶ look ─▶ Found ─┐
//! configuration, routes ───────────▶ Setup ─┴─▶ hints ─▶ status | doctor
//! ```

pub mod hints;
mod iptables;
pub mod look;
mod nft;
pub mod rule;

pub use hints::{Hint, Setup};
pub use look::Found;
