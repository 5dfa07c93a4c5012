//! `flowpin status`

use super::{
    Context, Failure,
    output::{Table, count, duration, or_dash, plural},
};
use crate::api::types::{KubernetesView, StatusView};

/// Is the datapath attached where it should be, and healthy?
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin status
  flowpin status -o json | jq -r '.problems[]'

Exit code 0: all is as it should be. 1: degraded; what is wrong is listed. 3: no agent answers. Warnings, of rules of \
the host's own that get in the way or services without a backend for new clients, change neither state nor exit code.")]
pub struct Args {}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let status = context.client.status().await?;
        context.printer.print(&status, text)?;
        if status.state == "ok" {
            return Ok(());
        }
        let first = status.problems.first().map_or("no reason is given; see the agent's log", String::as_str);
        let more = match status.problems.len().saturating_sub(1) {
            0 => String::new(),
            n => format!(" (and {n} more, listed by \"flowpin status\")"),
        };
        Err(Failure::Said(format!("{}: {first}{more}", status.state)))
    }
}

fn text(s: &StatusView) -> String {
    let used = 100.0 * s.conntrack_entries as f64 / s.conntrack_capacity.max(1) as f64;
    let mut text = format!(
        "State:       {}\nAgent:       flowpin {}, up {}\nKernel:      {}\nServices:    {} with {}\n\
         Conntrack:   {} of {} flows ({used:.1} %), drift {}\nGeneration:  {}\n",
        s.state,
        s.version,
        duration(s.uptime_seconds),
        s.kernel,
        count(s.services),
        plural(s.backends, "backend"),
        count(s.conntrack_entries),
        count(s.conntrack_capacity),
        s.accounting_drift,
        s.generation,
    );
    if let Some(kubernetes) = &s.kubernetes {
        text.push_str(&cluster(kubernetes));
    }
    for problem in &s.problems {
        text.push_str(&format!("Problem:     {problem}\n"));
    }
    for warning in &s.warnings {
        text.push_str(&format!("Warning:     {}: {}; {}\n", warning.about, warning.text, warning.remedy));
    }
    if s.interfaces.is_empty() {
        return text
            + "\nno interface matches the configuration; balancing begins with an [[interface]] in the config file";
    }
    let mut table = Table::new(&["INTERFACE", ">INDEX", "ATTACH", "MODE", "ERROR"]);
    for i in &s.interfaces {
        table.row([
            i.name.clone(),
            i.index.to_string(),
            i.attach.clone(),
            or_dash(i.mode.as_ref()),
            i.error.clone().unwrap_or_default(),
        ]);
    }
    format!("{text}\n{table}")
}

fn cluster(k: &KubernetesView) -> String {
    let server = k.server.as_deref().unwrap_or("no API server yet");
    let synced = if k.synced { "synced" } else { "not synced: nothing is taken away" };
    let services = plural(k.services, "Service");
    let mut text = format!("Kubernetes:  {services}, node {}, {server}, {synced}\n", k.node);
    for (kind, why) in &k.unseen {
        text.push_str(&format!("Unseen:      {kind}: {why}\n"));
    }
    for port in &k.not_listening {
        text.push_str(&format!("Note:        {port}\n"));
    }
    for note in k.notes.iter().take(NOTES) {
        text.push_str(&format!(
            "Note:        {} {}: {}: {}\n",
            note.kind, note.object, note.reason, note.text
        ));
    }
    if k.notes.len() > NOTES {
        text.push_str(&format!("Note:        and {} more; see -o json\n", k.notes.len() - NOTES));
    }
    text
}

/// As many notes on objects are shown.
const NOTES: usize = 20;
