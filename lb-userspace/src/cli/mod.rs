//! The command line: talks to the API and to nothing else (`agent`, `check` and `doctor` work without one).

mod backend;
mod check;
mod connection;
mod doctor;
pub mod output;
mod service;
mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    agent::{self, AgentOptions},
    api::client::{Client, ClientError},
};
use output::{Format, Out};

/// Balances connections inside the Linux kernel.
///
/// For each new connection a BPF program picks a backend, by least-connections or consistent hashing, and pins the connection
/// to it. `flowpin agent` is the daemon; the other commands talk to it.
#[derive(Parser)]
#[command(
    name = "flowpin",
    version,
    after_help = "\
Examples:
  flowpin agent --config /etc/flowpin/flowpin.toml
  flowpin service add db --vip 10.96.0.10 --port 5432/tcp
  flowpin backend add db 10.0.1.11:5432
  flowpin backend drain db 10.0.1.11:5432 --deadline 15m --wait
  flowpin connection list --service db
  flowpin status

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 agent unreachable."
)]
struct Cli {
    /// Socket of the agent's API
    #[arg(long, global = true, env = "FLOWPIN_API_SOCKET", value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Tables for people, JSON for scripts
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: load, attach, reconcile, serve the API and metrics
    ///
    /// TERM ends the agent and leaves the datapath running; HUP re-reads the config file. RUST_LOG=debug logs more,
    /// RUST_LOG=info,flowpin::flows=debug logs each new flow.
    Agent {
        /// Config file (TOML); without one: defaults, no interfaces, services from the state file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// When ending, take the programs off the interfaces and the maps away
        #[arg(long)]
        detach_on_exit: bool,
    },
    /// Services: a VIP, ports, an algorithm
    #[command(subcommand, visible_alias = "svc")]
    Service(service::Command),
    /// Backends of services
    #[command(subcommand, visible_alias = "be")]
    Backend(backend::Command),
    /// Pinned connections
    #[command(subcommand, visible_alias = "conn")]
    Connection(connection::Command),
    /// Is the datapath attached where it should be, and healthy? Exit code 1 if not
    Status,
    /// Counters per service and backend, and refusals by reason
    Stats,
    /// Validate a config file without touching the kernel
    Check {
        /// Config file (TOML)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// What this kernel and these interfaces can do, and what is missing
    Doctor,
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Where the agent listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/flowpin/api.sock";

/// Parses, runs, and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let wrong = e.use_stderr();
            // A closed pipe on the other side of `--help` is no failure.
            let _ = e.print();
            return if wrong { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e.to_string(), 1),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(e) => {
            let unreachable = matches!(e.downcast_ref(), Some(ClientError::Unreachable { .. }));
            if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            let text = format!("{e:#}").replace('\n', " ");
            fail(&text, if unreachable { 3 } else { 1 })
        }
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    output::error(text);
    ExitCode::from(code)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let out = Out::new(cli.output);
    let socket = cli.api_socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
    let client = Client::new(&socket);
    match cli.command {
        Command::Agent { config, detach_on_exit } => {
            output::log_to_stderr();
            agent::run(AgentOptions { config, detach_on_exit, api_socket: cli.api_socket }).await?;
        }
        Command::Service(command) => service::run(command, &client, &out).await?,
        Command::Backend(command) => return backend::run(command, &client, &out).await,
        Command::Connection(command) => connection::run(command, &client, &out).await?,
        Command::Status => return status::status(&client, &out).await,
        Command::Stats => status::stats(&client, &out).await?,
        Command::Check { config } => check::run(config.as_deref(), &out)?,
        Command::Doctor => return doctor::run(&out).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flowpin", &mut script);
            out.raw(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
