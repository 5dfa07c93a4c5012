//! What this kernel and these interfaces can do.

/// How it stands with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There.
    Available,
    /// Not there, something else does its work.
    Fallback,
    /// Not there, and nothing does its work.
    Missing,
}

/// A feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What.
    pub name: String,
    /// How it stands.
    pub status: Status,
    /// What was found, and the remedy where one is needed.
    pub detail: String,
}

/// Looks.
pub fn probe() -> Vec<Feature> {
    Vec::new()
}
