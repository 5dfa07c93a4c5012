//! Rebalancing: which connections may be moved so that backends that were added get their share.
//!
//! New connections go to the backend with the fewest, but those that stay open stay where they are: after a scale-out
//! the new backends are idle for hours. To move a connection is to reset both of its ends. Its client connects again,
//! and lands on the backend with the fewest; a client that doesn't is simply cut off. So only idle connections are
//! moved, only from backends that have more than their share, and few at a time.
//!
//! ```text
//! node  Asker::ask ──Ask: so many idle ones that could be moved──▶ Grants::ask  owner of the service
//!       Asker::answered ◀──Answer: so many of them now──
//! ```
//!
//! A node that is alone is its own owner: it hands its own ask to its own [`Grants`]. Pure, like the rest of the
//! crate.
//!
//! # What holds
//!
//! - In any 62 seconds no more connections are granted than the budget allows for a minute, and so in any minute no
//!   more are moved: a grant is used within two seconds ([`ANSWER_GOOD_FOR`]) or not at all. Where the budget allows
//!   less than one, one is granted in more than a minute. The budget is of the connections open at the grant.
//! - No backend gets below its fair part, rounded up, by a move: those granted but not yet closed are taken for
//!   closed, and those of the last ten seconds ([`RETURN`]) for on their way back. Clients that leave by themselves
//!   at that very moment can't be foreseen.
//! - Nothing is granted for a minute after a change ([`QUIET`]), nor by an owner in its first 62 seconds
//!   ([`NEW_OWNER`]): whatever the owner before granted is out of the window then.
//! - It ends: when no backend has more than one above its fair part, or when it doesn't help ([`State::Futile`]).
//!
//! Frames may be lost, doubled or late: what was granted in vain is spent, and the connections are still there.
//! It counts as moved, too: where more than half of it is in vain, it looks futile.

mod budget;
mod grants;
mod node;
mod pace;
mod shares;

use std::time::Duration;

pub use budget::{BadBudget, Budget};
pub use grants::{Grants, State};
pub use node::{ASK_GAP, Asker, Estimate, MAX_ASK_GAP, estimate, wants};

use serde::{Deserialize, Serialize};

use crate::BackendKey;

/// After a change of the pool, a drain or a change of health nothing is granted for so long.
pub const QUIET: Duration = Duration::from_secs(60);
/// An answer is good for so long after the ask; connections are reset until then or not at all.
pub const ANSWER_GOOD_FOR: Duration = Duration::from_secs(2);
/// What is granted in any time of this length is a minute's budget: a minute, and how much later a grant may be used.
pub const WINDOW: Duration = Duration::from_secs(62);
/// A new owner grants nothing for so long. What was granted before, by another owner or in its own last life, it
/// doesn't know; after a whole window that doesn't matter. Anything shorter could spend the budget twice.
pub const NEW_OWNER: Duration = WINDOW;
/// A grant that totals don't show by then was lost or not used: it is used within [`ANSWER_GOOD_FOR`], and the node's
/// report and a repetition of it take less than the three seconds that remain.
pub const GRANT_EXPIRES: Duration = Duration::from_secs(5);
/// A client has so long to come back until its connection is taken for gone.
pub const RETURN: Duration = Duration::from_secs(10);
/// Rebalancing that doesn't help isn't tried again for so long, unless something changes.
pub const FUTILE: Duration = Duration::from_secs(600);

/// How much is moved, and from when on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Most connections that are moved.
    pub budget: Budget,
    above: f64,
}

/// A threshold isn't one.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error(
    "rebalancing above {0}: it is the fullest backend's load over the mean, a number from 1 on, such as 1.2"
)]
pub struct BadAbove(pub f64);

impl Settings {
    /// `above`: rebalancing begins when the fullest backend has more than so many times the mean, both by weight. From
    /// 1 on.
    ///
    /// # Errors
    /// `above` is less than 1 or not finite.
    pub fn new(budget: Budget, above: f64) -> Result<Self, BadAbove> {
        if above.is_finite() && above >= 1.0 { Ok(Self { budget, above }) } else { Err(BadAbove(above)) }
    }

    /// The load of the fullest backend over the mean from which rebalancing begins.
    pub const fn above(&self) -> f64 {
        self.above
    }
}

/// A backend of a service, as the owner knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Which.
    pub key: BackendKey,
    /// Its weight; 0: it takes no new flows. It neither gives nor gets then, and doesn't count for the mean.
    pub weight: u32,
    /// Its open connections, over all nodes.
    pub open: u64,
}

/// Connections of one backend, to be moved elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Whose.
    pub backend: BackendKey,
    /// How many.
    pub connections: u64,
}

/// A node asks how many of its idle connections it may move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Its number; the answer has the same.
    pub number: u64,
    /// How many it could move, at most what is above fair. Each backend once.
    pub wants: Vec<Move>,
}

/// What the owner says to an [`Ask`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// That of the ask.
    pub number: u64,
    /// What is to be moved now; nothing for backends that aren't listed.
    pub grants: Vec<Move>,
}

/// Has no backend more than one above its fair part? Then there is nothing to be moved.
pub fn is_even(pool: &[Backend]) -> bool {
    shares::Shares::of(pool).even
}

#[cfg(test)]
mod tests;
