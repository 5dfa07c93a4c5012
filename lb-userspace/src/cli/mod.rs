//! The command line: a file per noun. All but `agent`, `check`, `import`, `cluster keygen`, `doctor`, `cleanup`,
//! `demo`, `completions` and `man` talk to the agent's API and to nothing else, and `detach` where no agent answers; `output` is the
//! only printer.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, error::ErrorKind};

mod agent;
mod backend;
mod check;
mod cleanup;
mod cluster;
mod completions;
mod connection;
mod demo;
mod detach;
mod doctor;
mod drain;
mod events;
mod everywhere;
mod explain;
mod failure;
mod frontend;
mod import;
mod ipvsadm;
mod man;
mod output;
mod rebalance;
mod service;
mod settings;
mod stats;
mod status;
mod tables;
mod top;

use self::{
    failure::Failure,
    output::{Format, Printer},
};
use crate::api::client::Client;

/// Where the agent listens unless config or command line say otherwise.
const DEFAULT_SOCKET: &str = "/run/flowpin/api.sock";

/// Balances connections inside the Linux kernel.
///
/// Each new connection to a service's virtual address (VIP) is given to one of its backends and stays there, pinned in a table
/// in the kernel, until it ends. "flowpin agent" loads the kernel part and looks after it; all other commands ask that agent.
#[derive(Debug, Parser)]
#[command(
    name = "flowpin",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  flowpin demo                                              what does it do? shown in network namespaces
  flowpin doctor                                            what can this machine do?
  flowpin check --config /etc/flowpin/flowpin.toml          is the file right?
  flowpin agent --config /etc/flowpin/flowpin.toml          run
  flowpin service add app --vip 10.96.0.10 --port 80/tcp --backend 10.0.1.11    a service by hand
  flowpin backend add app 10.0.1.12                         another backend for it
  flowpin service set app --slow-start 30s                  change it while it is in use
  flowpin backend drain app 10.0.1.11 --wait                take it out, break nothing

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 agent unreachable."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Unix socket of the agent's API [default: /run/flowpin/api.sock]
    #[arg(long, global = true, env = "FLOWPIN_API_SOCKET", hide_env_values = true, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// table for people, or json for scripts (stable names, durations in seconds)
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, hide_possible_values = true, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Args),
    /// Add, change, list, show and remove services
    #[command(subcommand, visible_alias = "svc")]
    Service(service::Command),
    /// Add, change, list, drain, undrain and remove the backends of a service
    #[command(subcommand, visible_alias = "be")]
    Backend(backend::Command),
    /// List and close pinned connections
    #[command(subcommand, visible_alias = "conn")]
    Connection(connection::Command),
    Events(events::Args),
    Explain(explain::Args),
    Top(top::Args),
    Status(status::Args),
    Stats(stats::Args),
    Cluster(cluster::Args),
    Rebalance(rebalance::Args),
    Check(check::Args),
    Import(import::Args),
    Ipvsadm(ipvsadm::Args),
    Doctor(doctor::Args),
    Detach(detach::Args),
    Attach(detach::Attach),
    /// Remove what another balancer left on this node
    #[command(subcommand)]
    Cleanup(cleanup::Command),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// What a command needs besides its own arguments.
struct Context {
    client: Client,
    printer: Printer,
}

/// Runs what was asked for; the result is the process's exit code.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if code != 0 {
                complain(&failure.to_string());
            }
            code.into()
        }
    }
}

/// How long what is still under way may take when a command is done.
const END: Duration = Duration::from_millis(100);

fn dispatch(cli: Cli) -> Result<(), Failure> {
    crate::agent::share_memory();
    if matches!(cli.command, Command::Agent(_)) {
        crate::agent::signals_apart().map_err(|e| Failure::Said(format!("can't start: {e}")))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Said(format!("can't start: {e}")))?;
    let Global { api_socket, output } = cli.global;
    let client = Client::new(api_socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET)));
    let context = Context { client, printer: Printer::new(output) };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Agent(args) => args.run(api_socket).await,
            Command::Service(command) => command.run(&context).await,
            Command::Backend(command) => command.run(&context).await,
            Command::Connection(command) => command.run(&context).await,
            Command::Events(args) => args.run(&context).await,
            Command::Explain(args) => args.run(&context).await,
            Command::Top(args) => args.run(&context).await,
            Command::Status(args) => args.run(&context).await,
            Command::Stats(args) => args.run(&context).await,
            Command::Cluster(args) => args.run(&context).await,
            Command::Rebalance(args) => args.run(&context).await,
            Command::Check(args) => args.run(&context.printer).await,
            Command::Import(args) => args.run(&context.printer),
            Command::Ipvsadm(args) => args.run(&context).await,
            Command::Doctor(args) => args.run(&context.printer).await,
            Command::Detach(args) => args.run(&context).await,
            Command::Attach(args) => args.run(&context).await,
            Command::Cleanup(command) => command.run(&context.printer).await,
            Command::Demo(args) => args.run(&context.printer).await,
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
        }
    });
    // What is still being done for nobody isn't waited for.
    runtime.shutdown_timeout(END);
    result
}

/// Prints help, version, or what is wrong with the command line (in one line), and gives the exit code.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        // Whether it can be printed or not (a closed pipe), help is not a failure.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => drop(error.print()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            return 2.into();
        }
        _ => {
            complain(&one_line(&error.render().to_string()));
            return 2.into();
        }
    }
    ExitCode::SUCCESS
}

/// clap's paragraphs, joined: what is wrong; usage; where to find more.
fn one_line(text: &str) -> String {
    let paragraphs = text.trim_start_matches("error: ").split("\n\n");
    let flat =
        paragraphs.map(|p| p.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" "));
    flat.filter(|p| !p.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
        .replace("; Usage: ", "; usage: ")
        .replace("; For more", "; for more")
}

/// The one line on stderr. If even that can't be written, the exit code has to do.
fn complain(message: &str) {
    let message = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    drop(writeln!(std::io::stderr(), "flowpin: {message}"));
}
