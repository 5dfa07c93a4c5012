//! `flowpin demo`: what Flowpin does, shown on this machine with real connections.
//!
//! ```text
//! run ─▶ show, a task: world (namespaces), servers and clients in this process, an agent in one of its own
//!  └───▶ a signal ends the task; however it ends, world::clean_up removes all
//! ```

mod agent;
mod bars;
mod clients;
mod kube_proxy;
mod needs;
mod netns;
mod servers;
mod show;
mod step;
mod world;

use std::io;

use futures::future::select_all;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

use super::{Failure, output::Printer};

/// Show what Flowpin does, with real connections in network namespaces; nothing is left behind
///
/// A client, two nodes and five backends. On one node runs Flowpin, on the other are iptables rules like kube-proxy's.
/// Connections are opened and stay open through a scale-out, a drain and a killed agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sudo flowpin demo

It takes about 35 seconds on a terminal, where it waits after each step; 5 elsewhere. At its beginning it says how to \
watch from another terminal, with \"flowpin top\" and \"flowpin events -f\".

Needs root and ip (iproute2). Without iptables, kube-proxy's side is left out. Agent, pins and sockets are its own: an agent \
that runs on this machine, its services and its interfaces are left alone. Ctrl-C and SIGTERM end it and clean up; what a \
demo left that was killed outright, the next one removes. With -o json each step is a line.")]
pub struct Args {}

/// The last line.
const GONE: &str =
    "\nEverything that the demo made is gone. \"flowpin doctor\" says what this machine can do.";

impl Args {
    pub async fn run(self, printer: &Printer) -> Result<(), Failure> {
        needs::check().map_err(said)?;
        // From here on these signals end nothing by themselves.
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let ends: io::Result<Vec<Signal>> = ends.into_iter().collect();
        let mut ends = ends.map_err(|e| Failure::Said(format!("signals can't be heeded: {e}")))?;
        for tag in world::abandoned() {
            world::clean_up(&tag);
            printer.note(format!("removed {tag}, which a demo left that was killed"));
        }
        let tag = world::tag(std::process::id());
        let mut show = JoinSet::new();
        show.spawn(show::run(tag.clone(), *printer));
        let ended = tokio::select! {
            ended = show.join_next() => ended,
            _ = select_all(ends.iter_mut().map(|end| Box::pin(end.recv()))) => None,
        };
        // If it still runs, it ends where it waits next, and makes nothing after that.
        show.shutdown().await;
        world::clean_up(&tag);
        match ended {
            Some(Ok(shown)) => {
                shown.map_err(said)?;
                if !printer.is_json() {
                    printer.line(&(), |()| GONE.into())?;
                }
                Ok(())
            }
            Some(Err(panic)) => Err(Failure::Said(format!("the demo failed: {panic}; report this"))),
            None => Err(Failure::Said("interrupted; everything that the demo made is gone".into())),
        }
    }
}

/// As a failed command. Whoever read the output and had enough is no failure.
fn said(error: anyhow::Error) -> Failure {
    error.downcast().unwrap_or_else(|error| Failure::Said(format!("{error:#}")))
}
