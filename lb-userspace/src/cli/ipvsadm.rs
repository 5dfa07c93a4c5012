//! `flowpin ipvsadm`: what `lb-ipvsadm` reads and prints, asked of the agent.

mod apply;
mod view;

use std::{io::Read, time::Duration};

use clap::CommandFactory;
use lb_ipvsadm::{
    Change, Command, List, Refusal, Told, What,
    plan::plan,
    print::{self, Heading},
    restore,
    save::{Saved, save},
};
use tokio::time::{Instant, sleep};

use super::{Cli, Context, Failure, output};
use crate::{api::types::ConnectionQuery, model::readable::readable};

/// Do what ipvsadm does, with its options and its tables, for hands that know it
#[derive(Debug, clap::Args)]
#[command(after_help = include_str!("ipvsadm/help.txt"))]
pub struct Args {
    /// A command of ipvsadm, then its options
    #[arg(value_name = "COMMAND AND OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Between the two readings of `--rate`.
const READING: Duration = Duration::from_secs(1);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let text = readable(&refusal.to_string());
        match refusal.told {
            Told::Usage => Self::Usage(text),
            Told::Failed => Self::Said(text),
        }
    }
}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        if context.printer.is_json() {
            let instead = "use \"flowpin service list\", \"connection list\" or \"stats\" with -o json";
            return Err(Failure::Usage(format!("ipvsadm's tables have no JSON; {instead}")));
        }
        match Command::parse(&self.args)? {
            Command::Change(change) => changes(context, &[(None, change)]).await,
            Command::Restore => {
                let lines = restore::read(&standard_input()?)?;
                let lines: Vec<_> = lines.into_iter().map(|(line, change)| (Some(line), change)).collect();
                changes(context, &lines).await
            }
            Command::List(asked) => {
                let text = list(context, &asked).await?;
                Ok(output::raw(text.as_bytes())?)
            }
            Command::Save => {
                let Saved { text, left_out, unsaid } = save(&view::table(&context.client.services().await?)?);
                output::raw(text.as_bytes())?;
                let note = |what: &String| context.printer.note(format_args!("not saved: {what}"));
                unsaid.iter().chain(&left_out).for_each(note);
                match left_out.len() {
                    0 => Ok(()),
                    n => Err(Failure::Said(format!("{n} of the frontends are not in what was saved"))),
                }
            }
            Command::Help => {
                let mut all = Cli::command();
                let help = all.find_subcommand_mut("ipvsadm").map(|own| own.render_long_help().to_string());
                Ok(output::raw(help.unwrap_or_default().as_bytes())?)
            }
        }
    }
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    match std::io::stdin().lock().read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(e) => Err(Failure::Said(format!("can't read standard input: {e}"))),
    }
}

/// Does all of them; what isn't the command line's to do is said last.
async fn changes(context: &Context, changes: &[(Option<usize>, Change)]) -> Result<(), Failure> {
    let plan = plan(&view::table(&context.client.services().await?)?, changes)?;
    apply::all(context, &plan).await?;
    plan.notes.iter().for_each(|note| context.printer.note(note));
    let Some((last, others)) = plan.kept.split_last() else { return Ok(()) };
    others.iter().for_each(|kept| context.printer.note(kept));
    Err(Failure::Said(last.clone()))
}

async fn list(context: &Context, asked: &List) -> Result<String, Failure> {
    let Context { client, printer } = context;
    let services = client.services().await?;
    match asked.what {
        What::Connections => {
            let list = client.connections(&ConnectionQuery::default()).await?;
            return Ok(print::connections(view::connections(&services, &list)?));
        }
        What::Timeouts => {
            let (timeouts, alike) = view::timeouts(&services);
            if !alike {
                printer.note(
                    "services differ in their timeouts, these are the defaults; see \"flowpin service show\"",
                );
            }
            return Ok(print::timeouts(&timeouts));
        }
        _ => {}
    }
    let mut table = view::table(&services)?;
    if asked.what == What::Rate {
        let since = Instant::now();
        sleep(READING).await;
        let later = view::table(&client.services().await?)?;
        table = later.rates(&table, since.elapsed().as_secs_f64());
    }
    let status = client.status().await?;
    let heading = Heading { version: &status.version, size: status.conntrack_capacity };
    Ok(print::servers(heading, &table, asked)?)
}
