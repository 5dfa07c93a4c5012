//! See the crate's map.

use std::path::PathBuf;

/// How to run the agent.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Config file; `None`: every default, no interfaces, no services.
    pub config: Option<PathBuf>,
    /// Where the API listens, instead of what the file says.
    pub api_socket: Option<PathBuf>,
    /// Take the datapath down when the agent ends.
    pub detach_on_exit: bool,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// It could not start.
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    anyhow::bail!("this build has no agent ({options:?})")
}
