//! `flowpin agent`

use std::path::PathBuf;

use super::{Failure, output};
use crate::agent::{self, AgentOptions};

/// Run the daemon: load, attach, reconcile, serve the API and metrics
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin agent --config /etc/flowpin/flowpin.toml
  flowpin agent --api-socket /tmp/flowpin.sock    listen elsewhere than the file says

Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

SIGHUP re-reads the file. SIGTERM ends the agent and leaves the kernel balancing: open and new connections go on, \
and the next agent takes over. With --detach-on-exit balancing ends with the agent, and open connections break.

RUST_LOG=debug logs more, RUST_LOG=info,flowpin::flows=debug logs each new flow.")]
pub struct Args {
    /// Config file (TOML); without one every setting has its default, nothing is attached, and the log says what to write
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the kernel part down when the agent ends
    #[arg(long)]
    detach_on_exit: bool,
}

impl Args {
    pub async fn run(self, api_socket: Option<PathBuf>) -> Result<(), Failure> {
        output::log_to_stderr();
        let options = AgentOptions { config: self.config, api_socket, detach_on_exit: self.detach_on_exit };
        agent::run(options).await.map_err(|e| Failure::Said(format!("{e:#}")))
    }
}
