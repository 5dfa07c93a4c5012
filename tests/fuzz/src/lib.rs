//! Functions that take bytes which anybody may have made up, and panic where something doesn't hold that must hold for any
//! bytes. `fuzz/` has cargo-fuzz look for such bytes; `tests/corpus.rs` goes through those that are kept, and changes of them.

mod api;
mod config;
mod kubernetes;
mod packet;
mod state;

pub use self::{api::api, config::config, kubernetes::kubernetes, packet::packet, state::state};

/// A target: what it is called, here and in `fuzz/`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] =
    [("packet", packet), ("config", config), ("state", state), ("api", api), ("kubernetes", kubernetes)];

/// What is said of bad input is one line, and says something.
fn assert_one_line(said: &str) {
    assert!(!said.trim().is_empty() && !said.contains('\n'), "{said:?}");
}
