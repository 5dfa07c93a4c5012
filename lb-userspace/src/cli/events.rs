//! `flowpin events`

use std::time::{Duration, UNIX_EPOCH};

use super::{
    Context, Failure,
    output::{bytes, duration},
};
use crate::api::types::{EventQuery, EventView};

/// Show what happens: connections that open and end, health, drains
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  flowpin events                        what the agent did and concluded of late: health, drains, what was refused
  flowpin events -f                     go on, with every connection that opens or ends, and why
  flowpin events -f --service db -o json | jq -c 'select(.kind == \"close\")'

A connection ends as finished (both sides have closed), client_reset, backend_reset, closed (by the agent: a timeout, a \
deadline, \"connection close\") or expired. With -o json each event is one line. When nobody follows, the kernel writes no records.")]
pub struct Args {
    /// Go on until interrupted, with connections
    #[arg(short, long)]
    follow: bool,
    /// Of this service only
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

impl Args {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let query = EventQuery { follow: self.follow, service: self.service };
        let mut events = context.client.events(&query).await?;
        let mut none = !self.follow;
        while let Some(event) = events.next().await? {
            none = false;
            context.printer.line(&event, text)?;
        }
        if none {
            context.printer.note(
                "no events yet; -f waits for them, and shows connections that open and end as well, which are not kept",
            );
        }
        Ok(())
    }
}

fn text(event: &EventView) -> String {
    let time = UNIX_EPOCH + Duration::try_from_secs_f64(event.time).unwrap_or_default();
    let mut line = format!("{}  {:<9}", humantime::format_rfc3339_millis(time), event.kind);
    if !event.service.is_empty() {
        line.push_str(&format!("  {}", event.service));
    }
    match (&event.client, &event.vip) {
        (Some(client), Some(vip)) => {
            let protocol = event.protocol.as_deref().unwrap_or_default();
            line.push_str(&format!("  {protocol} {client} -> {vip} -> {}", event.backend));
        }
        _ => line.push_str(&format!("  {}", event.backend)),
    }
    if let Some(reason) = &event.reason {
        let lasted = duration(event.duration_seconds.unwrap_or(0.0));
        let (sent, back) = (bytes(event.bytes_in.unwrap_or(0)), bytes(event.bytes_out.unwrap_or(0)));
        line.push_str(&format!("  {reason} after {lasted}, {sent} in, {back} out"));
    }
    if let Some(detail) = &event.detail {
        line.push_str(&format!("  {detail}"));
    }
    line
}
