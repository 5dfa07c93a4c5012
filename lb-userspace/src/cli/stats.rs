//! `flowpin stats`

use lb_common::abi::Reason;

use super::{
    Context, Failure,
    output::{Table, count},
    tables,
};
use crate::api::types::StatsView;

/// Show counters per service and backend, and what was refused or dropped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin stats
  flowpin stats -o json | jq .drops

IN is from client to backend, OUT the way back. Counters run from the adding of the backend, over restarts of \
the agent too. The table of drops leaves out zeros; JSON has them. The same figures are on the metrics page.")]
pub struct Args {}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        context.printer.print(&context.client.stats().await?, text)?;
        Ok(())
    }
}

fn text(stats: &StatsView) -> String {
    let mut table = Table::new(&["REFUSED OR DROPPED", ">PACKETS", "WHAT TO DO"]);
    let mut none = true;
    for (name, packets) in stats.drops.iter().filter(|(_, n)| **n > 0) {
        none = false;
        let remedy = Reason::ALL
            .iter()
            .find(|r| r.name() == name)
            .map_or(String::new(), |r| r.remedy().replace('`', ""));
        table.row([name.clone(), count(*packets), remedy]);
    }
    let drops = if none { "nothing was refused or dropped".into() } else { table.to_string() };
    format!("{}\n\n{drops}", tables::counters(&stats.services).trim_end())
}
