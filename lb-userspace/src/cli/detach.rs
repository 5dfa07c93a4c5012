//! `flowpin detach` and `flowpin attach`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

use super::{Context, Failure, backend::at_least_a_second, output::plural};
use crate::{
    api::{
        client::ClientError,
        types::{Detach, DetachedView},
    },
    datapath::{DatapathError, attach::Attachments, pin::PinDir, sockets::Hooks},
};

/// How often the agent is asked.
const POLL: Duration = Duration::from_millis(500);

/// Stop balancing and take the programs off, at once or after the connections that are open
///
/// The agent stays and serves nothing until "flowpin attach", also if it is restarted meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin detach --hand-over --wait                   no open connection is cut
  flowpin detach --hand-over --deadline 2h --wait
  flowpin detach                                      at once; connections through source NAT or to VIPs are cut
  flowpin attach                                      take it back

With --hand-over new connections, and packets of connections that Flowpin doesn't know, are left to the stack from now \
on: to kube-proxy's rules, for example. Have those in force before. Connections that are open go on until they end, or \
until the deadline; then the programs leave. Where no agent runs, what an agent left in the kernel is removed, which \
can't be done with --hand-over: start it.")]
pub struct Args {
    /// Let open connections go on until they end
    #[arg(long)]
    hand_over: bool,
    /// After this the programs leave in any case: 15m, 2h [default: never]
    #[arg(long, value_name = "DURATION", value_parser = at_least_a_second, requires = "hand_over")]
    deadline: Option<Duration>,
    /// Return when the programs are off
    #[arg(long, requires = "hand_over")]
    wait: bool,
    /// Where an agent that doesn't run any more left maps and programs
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/flowpin", conflicts_with = "hand_over")]
    pin_dir: PathBuf,
}

/// Balance again after "flowpin detach"
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  flowpin attach

Connections that another balancer has opened meanwhile go on only if the services have stray = \"pass\".")]
pub struct Attach {}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let detach =
            Detach { hand_over: self.hand_over, deadline_seconds: self.deadline.map(|d| d.as_secs()) };
        let mut view = match context.client.detach(&detach).await {
            Err(ClientError::Unreachable { .. }) if !self.hand_over => {
                let gone = alone(&self.pin_dir).map_err(|e| Failure::Said(e.to_string()))?;
                if !gone {
                    return Err(Failure::Said(format!(
                        "no agent answers, and there is nothing in {}; --pin-dir says where it is",
                        self.pin_dir.display()
                    )));
                }
                DetachedView { detached: true, open_connections: 0, deadline_seconds: None }
            }
            answer => answer?,
        };
        while self.wait && !view.detached {
            sleep(POLL).await;
            let status = context.client.status().await?;
            view = status
                .detached
                .ok_or_else(|| Failure::Said("somebody has taken it back with \"flowpin attach\"".into()))?;
        }
        context.printer.print(&view, text)?;
        Ok(())
    }
}

impl Attach {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        context.client.attach().await?;
        context.printer.note("attached; \"flowpin status\" says where");
        Ok(())
    }
}

/// Removes what an agent left. False: there is nothing.
fn alone(dir: &Path) -> Result<bool, DatapathError> {
    if !dir.exists() {
        return Ok(false);
    }
    let pins = PinDir::open(dir)?;
    Hooks::new(&pins).detach()?;
    Attachments::new(&pins).detach_all()?;
    pins.remove()?;
    Ok(true)
}

fn text(view: &DetachedView) -> String {
    match view.detached {
        true => "detached".into(),
        false => format!(
            "handing over: {} still open; \"flowpin status\" says how it goes",
            plural(view.open_connections, "connection")
        ),
    }
}
