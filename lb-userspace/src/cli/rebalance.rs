//! `flowpin rebalance`

use clap::builder::NonEmptyStringValueParser;

use super::{
    Context, Failure,
    output::{Table, count, duration},
};
use crate::api::types::RebalanceView;

/// Show what rebalancing of a service would move, or begin it now
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin service set app --rebalance 1%/min      by itself, when the fullest has 1.2 times the mean
  flowpin rebalance app --dry-run                 what would be moved, and how long that takes
  flowpin rebalance app --now                     although it isn't above what is set

Moved are connections that have been silent for a while, on backends that have more than their share: both ends are reset, and the client \
must connect again, which leads it to the backend with the fewest. The budget is that of all nodes together, and holds for --now as well; for a \
minute after a change of the backends nothing is moved.")]
pub struct Args {
    /// The service
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    service: String,
    #[command(flatten)]
    what: What,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Say what would be moved, and how it stands
    #[arg(long)]
    dry_run: bool,
    /// Begin now
    #[arg(long)]
    now: bool,
}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let view = context.client.rebalance(&self.service, self.what.now).await?;
        context.printer.print(&view, text)?;
        Ok(())
    }
}

fn text(view: &RebalanceView) -> String {
    let for_so_long = view.seconds.map(duration).unwrap_or_default();
    let state = match view.state.as_deref() {
        Some("even") => "even: nothing is to be moved".into(),
        Some("waiting") => format!("waiting: the fullest has less than {} times the mean", view.above),
        Some("quiet") => {
            format!("quiet for {for_so_long} yet, since something has changed or the owner is new")
        }
        Some("moving") => format!("moving: {} so far", count(view.moved.unwrap_or_default())),
        Some("futile") => {
            format!("stopped for {for_so_long} yet: what was moved came back, or didn't come back at all")
        }
        Some(other) => other.into(),
        None => "not known: the owner doesn't answer, or doesn't rebalance it".into(),
    };
    let owner = view.owner.as_deref().unwrap_or("this node");
    let mut text = format!(
        "Service:    {}\nBudget:     {} of all connections, handed out by {owner}\nIdle:       silent for {}\nImbalance:  {:.2}\n\
         State:      {state}\n\n",
        view.service,
        view.budget,
        duration(view.idle_seconds),
        view.imbalance,
    );
    if view.would_move.is_empty() {
        return text + "nothing can be moved now";
    }
    let mut table = Table::new(&["BACKEND", ">WOULD MOVE"]);
    for (backend, connections) in &view.would_move {
        table.row([backend.clone(), count(*connections)]);
    }
    text.push_str(&table.to_string());
    match view.takes_seconds {
        Some(seconds) => text + &format!("\nin {} at this budget", duration(seconds)),
        None => text + "\nin more than a year at this budget",
    }
}
