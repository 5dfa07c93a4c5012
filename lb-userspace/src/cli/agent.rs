//! `flowpin agent`

use std::path::PathBuf;

use super::{Failure, output};
use crate::agent::{self, AgentOptions};

/// Run the daemon: load, attach, reconcile, serve the API and metrics
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin agent --config /etc/flowpin/flowpin.toml
  flowpin --api-socket /tmp/flowpin.sock agent        another socket than the file's

Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or root. SIGHUP re-reads the file; SIGTERM ends the agent and leaves the kernel
balancing: open and new connections go on, and the next agent takes over. RUST_LOG=debug logs more, and
RUST_LOG=info,flowpin::flows=debug each new flow. With --detach-on-exit the end of the agent is the
end of balancing, and open connections through a VIP break.")]
pub struct Args {
    /// Config file (TOML); without one every setting has its default and nothing is attached
    #[arg(long, short, value_name = "FILE")]
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
