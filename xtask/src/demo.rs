//! The demonstration.

use clap::Args;

/// A part that runs in a namespace.
#[derive(Args)]
pub struct Role {
    /// Which
    name: String,
}

/// See the module.
pub fn run() -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}

/// Runs a part.
pub fn role(role: Role) -> anyhow::Result<()> {
    anyhow::bail!("there is no role {}", role.name)
}
